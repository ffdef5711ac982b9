"""Checkpoints load strictly, from folders and from the hub, and say what is wrong with them."""

import json

import mindspore as ms
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from tests.fresh_process import run_python
from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.errors import CheckpointError
from worker.diffusion.models import (
    UNet,
    UNetConfig,
    load_text_encoder,
    load_unet,
    load_vae,
    vae_fingerprint,
)

UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
VAE_FILE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path):
    return tiny.write_stable_diffusion(tmp_path / "checkpoint")


def change(file, edit):
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


PARTS = ("unet", "vae", "text_encoder")


def loaded_weights(checkpoint):
    """The weights of all models by their keys."""
    vae = load_vae(checkpoint)
    cells = [load_unet(checkpoint), vae.encoder, vae.decoder, load_text_encoder(checkpoint)]
    return {key: p.asnumpy() for cell in cells for key, p in cell.parameters_and_names()}


def decoder_weights(folder, **options):
    vae = load_vae(Checkpoint.open(folder, **options))
    return {key: p.asnumpy() for key, p in vae.decoder.parameters_and_names()}


def test_every_published_weight_arrives_unchanged(folder):
    expected = {key: v for name in PARTS for key, v in tiny.weights(name, "new").items()}
    expected.pop("text_model.embeddings.position_ids")
    loaded = loaded_weights(Checkpoint.open(folder))
    assert loaded.keys() == expected.keys()
    for key, value in loaded.items():
        np.testing.assert_array_equal(value, expected[key], key)


@pytest.mark.parametrize("form", ["convolution", "new"])
def test_all_forms_of_the_vae_attention_are_the_same_vae(folder, tmp_path, form):
    other = tiny.write_stable_diffusion(tmp_path / form, vae_attention=form)
    first, second = decoder_weights(folder), decoder_weights(other)
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert vae_fingerprint(Checkpoint.open(folder)) == vae_fingerprint(Checkpoint.open(other))


def test_a_text_encoder_without_the_prefix_loads(folder):
    def cut(tensors):
        for key in list(tensors):
            tensors[key.removeprefix("text_model.")] = tensors.pop(key)

    change(folder / "text_encoder/model.safetensors", cut)
    encoder = load_text_encoder(Checkpoint.open(folder))
    key = "text_model.final_layer_norm.weight"
    loaded = dict(encoder.parameters_and_names())[key].asnumpy()
    np.testing.assert_array_equal(loaded, tiny.weights("text_encoder")[key])


def test_float16_files_of_a_variant_are_cast_to_float32(tmp_path):
    folder = tiny.write_stable_diffusion(tmp_path, dtype="float16", variant="fp16")
    expected = {key: v for name in PARTS for key, v in tiny.weights(name, "new").items()}
    loaded = loaded_weights(Checkpoint.open(folder, variant="fp16"))
    assert loaded.keys() == expected.keys() - {"text_model.embeddings.position_ids"}
    for key, value in loaded.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, expected[key].astype(np.float16), key)


def test_bfloat16_files_are_cast_to_float32(folder):
    expected = tiny.weights("vae", "new")
    write_bfloat16(folder / VAE_FILE, expected)
    for key, value in decoder_weights(folder).items():
        np.testing.assert_allclose(value, expected[key], rtol=2**-7)
        assert (value.view(np.uint32) & 0xFFFF == 0).all()


def write_bfloat16(file, tensors):
    header, parts, start = {}, [], 0
    for key, value in tensors.items():
        part = (value.view(np.uint32) >> 16).astype("<u2").tobytes()
        offsets = [start, start + len(part)]
        header[key] = {"dtype": "BF16", "shape": value.shape, "data_offsets": offsets}
        parts.append(part)
        start += len(part)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def test_float16_weights_can_stay_float16(tmp_path):
    folder = tiny.write_stable_diffusion(tmp_path, dtype="float16")
    unet = load_unet(Checkpoint.open(folder), ms.float16)
    expected = tiny.weights("unet")
    for key, parameter in unet.parameters_and_names():
        assert parameter.dtype == ms.float16
        np.testing.assert_array_equal(parameter.asnumpy(), expected[key].astype(np.float16))


def shard(file, variant, form):
    """Splits a weights file in two, named as one of the libraries does, and returns the index."""
    tensors = load_file(file)
    file.unlink()
    stem = file.name.removesuffix(".safetensors")
    infix = f".{variant}" if variant else ""
    stem, weight_map = stem.removesuffix(infix), {}
    for i in range(2):
        number = f"-0000{i + 1}-of-00002"
        name = {"diffusers": f"{stem}{infix}{number}", "transformers": f"{stem}{number}{infix}"}
        part = {key: tensors[key] for key in sorted(tensors)[i::2]}
        save_file(part, file.with_name(f"{name[form]}.safetensors"))
        weight_map |= dict.fromkeys(part, f"{name[form]}.safetensors")
    index = file.with_name(f"{stem}.safetensors.index{infix}.json")
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("form", ["diffusers", "transformers"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_of_every_model_are_read_with_their_index(tmp_path, variant, form):
    folder = tiny.write_stable_diffusion(tmp_path, variant=variant)
    whole = loaded_weights(Checkpoint.open(folder, variant=variant))
    files = sorted(folder.glob("*/*.safetensors"))
    indices = [shard(file, variant, form) for file in files]

    sharded = loaded_weights(Checkpoint.open(folder, variant=variant))

    assert len(indices) == len(PARTS)
    assert sharded.keys() == whole.keys()
    for key, value in sharded.items():
        np.testing.assert_array_equal(value, whole[key], key)
    lost = sorted(set(json.loads(indices[1].read_text())["weight_map"].values()))[0]
    indices[1].with_name(lost).unlink()
    with pytest.raises(CheckpointError, match=f"names 2 shards; not beside it: .*{lost}"):
        load_unet(Checkpoint.open(folder, variant=variant))


def test_a_shard_without_one_of_its_weights_is_noticed(folder):
    index = shard(folder / UNET_FILE, None, "diffusers")
    change(index.with_name("diffusion_pytorch_model-00002-of-00002.safetensors"), dict.popitem)
    with pytest.raises(CheckpointError, match="1 missing"):
        load_unet(Checkpoint.open(folder))


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda t: t.pop("conv_in.bias"), "1 missing: conv_in.bias"),
        (lambda t: t.update(extra=np.zeros(1, np.float32)), "1 unexpected: extra"),
        (
            lambda t: t.update({"conv_in.bias": np.zeros(7, np.float32)}),
            r"1 misshapen: conv_in.bias \(is \[7\], should be \[32\]\)",
        ),
        (
            lambda t: t.update({"conv_in.bias": np.zeros(32, np.int64)}),
            r"1 not floating-point: conv_in.bias \(I64\)",
        ),
        (
            lambda t: [t.pop(key) for key in list(t) if key.startswith("mid_block.resnets")],
            r"20 missing: mid_block.resnets.0.conv1.bias, .*, …",
        ),
    ],
    ids=["missing", "unexpected", "misshapen", "not floating-point", "many"],
)
def test_weights_that_do_not_fit_are_named(folder, edit, sentence):
    change(folder / UNET_FILE, edit)
    with pytest.raises(CheckpointError, match=sentence):
        load_unet(Checkpoint.open(folder))


@pytest.mark.parametrize("keep", [0, 7, 100, 20_000], ids="{} bytes".format)
def test_a_file_cut_short_is_called_damaged(folder, keep):
    file = folder / UNET_FILE
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"diffusion_pytorch_model\.safetensors is damaged"):
        load_unet(Checkpoint.open(folder))


def test_a_pickle_is_refused_with_the_way_to_convert_it(folder):
    (folder / UNET_FILE).rename(folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"unet has only diffusion_pytorch_model\.bin.*save_"):
        Checkpoint.open(folder)


def test_a_missing_variant_names_what_is_there(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"variant 'fp16'.*there is model\.safetensors"):
        Checkpoint.open(folder, variant="fp16")
    half = tiny.write_stable_diffusion(tmp_path / "half", dtype="float16", variant="fp16")
    with pytest.raises(CheckpointError, match=r"no variant.*there is .*\.fp16\.safetensors"):
        Checkpoint.open(half)


def test_a_folder_in_another_layout_is_refused(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"no model_index\.json.*given as that \.safetensors file"
    ):
        Checkpoint.open(tmp_path)


def test_a_missing_component_is_named(folder):
    for file in (folder / "vae").iterdir():
        file.unlink()
    with pytest.raises(CheckpointError, match="names vae, but its folder is not there"):
        Checkpoint.open(folder)


def test_components_that_are_not_used_or_null_are_not_asked_for(folder):
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"image_encoder": [None, None], "requires_safety_checker": True}
    (folder / "model_index.json").write_text(json.dumps(index))
    assert Checkpoint.open(folder).config("scheduler")["_class_name"] == "PNDMScheduler"
    with pytest.raises(CheckpointError, match="names no image_encoder"):
        Checkpoint.open(folder).config("image_encoder")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_configuration_is_named(folder, text):
    (folder / "unet/config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"unet/config\.json"):
        load_unet(Checkpoint.open(folder))


def test_fingerprints_differ_with_weights_and_with_configuration(folder, tmp_path):
    first = vae_fingerprint(Checkpoint.open(folder))
    changed = tiny.write_stable_diffusion(tmp_path / "weights")
    change(changed / VAE_FILE, lambda t: t["quant_conv.bias"].__setitem__(0, 3))
    scaled = tiny.write_stable_diffusion(tmp_path / "config")
    tiny.write_json(scaled / "vae/config.json", {**tiny.VAE, "scaling_factor": 0.13025})
    resized = tiny.write_stable_diffusion(tmp_path / "sample_size")
    tiny.write_json(resized / "vae/config.json", {**tiny.VAE, "sample_size": 512})

    assert vae_fingerprint(Checkpoint.open(changed)) != first
    assert vae_fingerprint(Checkpoint.open(scaled)) != first
    assert vae_fingerprint(Checkpoint.open(resized)) == first


MEASURE = """
import sys
from pathlib import Path
from worker.diffusion.models import UNet, UNetConfig
from worker.diffusion.safetensors_file import read_safetensors
from worker.diffusion.weights import canonical, load_weights

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

before = memory("VmRSS")
unet = UNet(UNetConfig(block_out_channels=(96, 192, 384, 384)))
load_weights([unet], canonical(read_safetensors(Path(sys.argv[1]))), "unet")
size = sum(p.size * p.itemsize for p in unet.get_parameters())
print(size, (memory("VmHWM") - before) / size)
"""


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_loading_takes_little_more_memory_than_the_weights(tmp_path, dtype):
    unet = UNet(UNetConfig(block_out_channels=(96, 192, 384, 384)))
    file = tmp_path / "large.safetensors"
    save_file({key: np.zeros(p.shape, dtype) for key, p in unet.parameters_and_names()}, file)
    output = run_python(MEASURE, str(file))
    size, ratio = map(float, output.split())
    assert size > 3e8
    assert ratio < 1.3
