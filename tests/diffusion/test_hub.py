"""Of a repository on the hub only what is needed is fetched, and the cache serves without it."""

from pathlib import Path

import pytest
import tiny
import tiny_kandinsky

from tests.fresh_process import run_python
from tests.hub import running_hub
from worker.diffusion.layout import file_names, needed_files


@pytest.fixture
def folder(tmp_path):
    return tiny.write_stable_diffusion(tmp_path / "checkpoint")


FETCH = """
import sys
from worker.diffusion.checkpoint import Checkpoint
for repository in sys.argv[1:]:
    try:
        print(Checkpoint.open(repository).path)
    except Exception as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
"""


FETCH_PRIOR = """
import sys
from worker.diffusion.checkpoint import Checkpoint
found = Checkpoint.open(sys.argv[1])
print(found.path)
print(found.prior.path)
"""


def test_the_hub_is_asked_for_the_needed_files_only_and_the_cache_serves_without_it(
    folder, tmp_path
):
    for extra in ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.safetensors"):
        (folder / "unet" / extra).write_bytes(b"not needed")
    (folder / "v1-5-pruned.ckpt").write_bytes(b"not needed")

    with running_hub({"mill/tiny": folder}) as hub:
        address = f"http://127.0.0.1:{hub.server_port}"
        environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache")}
        fetched, unknown, odd = run_python(
            FETCH, "mill/tiny", "mill/absent", "not a name", **environment
        ).splitlines()
    cached, absent = run_python(FETCH, "mill/tiny", "mill/absent", **environment).splitlines()

    names = {p.relative_to(fetched).as_posix() for p in Path(fetched).rglob("*") if p.is_file()}
    assert names == file_names(folder) - {
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "v1-5-pruned.ckpt",
    }
    assert unknown.startswith("CheckpointError 'mill/absent' is neither a folder here nor")
    assert odd.startswith("CheckpointError 'not a name' is neither a folder here nor")
    assert cached == fetched
    assert absent.startswith("HubError The hub did not answer")


def test_the_prior_that_a_decoders_card_names_is_fetched_with_it(tmp_path):
    prior = tiny_kandinsky.write_prior(tmp_path / "prior")
    decoder = tiny_kandinsky.write_decoder(tmp_path / "decoder", "mill/prior")
    with running_hub({"mill/prior": prior, "mill/decoder": decoder}) as hub:
        address = f"http://127.0.0.1:{hub.server_port}"
        environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache")}
        fetched = run_python(FETCH_PRIOR, "mill/decoder", **environment)
    assert run_python(FETCH_PRIOR, "mill/decoder", **environment) == fetched
    for place, folder in zip(fetched.splitlines(), (decoder, prior), strict=True):
        names = {p.relative_to(place).as_posix() for p in Path(place).rglob("*") if p.is_file()}
        assert names == file_names(folder)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_of_both_variants_and_their_shards_only_those_asked_for_are_needed(variant):
    configs = {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "vae/config.json",
    }
    unet, encoder = "unet/diffusion_pytorch_model", "text_encoder/model"
    plain = {
        "vae/diffusion_pytorch_model.safetensors",
        f"{unet}.safetensors.index.json",
        f"{unet}-00001-of-00002.safetensors",
        f"{unet}-00002-of-00002.safetensors",
        f"{encoder}.safetensors.index.json",
        f"{encoder}-00001-of-00001.safetensors",
    }
    fp16 = {
        "vae/diffusion_pytorch_model.fp16.safetensors",
        f"{unet}.safetensors.index.fp16.json",
        f"{unet}.fp16-00001-of-00002.safetensors",
        f"{unet}.fp16-00002-of-00002.safetensors",
        f"{encoder}.safetensors.index.fp16.json",
        f"{encoder}-00001-of-00001.fp16.safetensors",
    }
    unused = {"safety_checker/model.safetensors", "unet/diffusion_pytorch_model.bin", "a.ckpt"}
    names = configs | plain | fp16 | unused
    wanted = needed_files(names, tiny.MODEL_INDEX, variant)
    assert sorted(wanted) == sorted(configs | (fp16 if variant else plain))
