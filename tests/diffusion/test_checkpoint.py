"""Checkpoints load strictly, from folders and from the hub, and say what is wrong with them."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.errors import CheckpointError
from worker.diffusion.layout import file_names
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


def decoder_weights(folder, **options):
    vae = load_vae(Checkpoint.open(folder, **options))
    return {key: p.asnumpy() for key, p in vae.decoder.parameters_and_names()}


def test_every_published_weight_arrives_unchanged(folder):
    checkpoint = Checkpoint.open(folder)
    vae = load_vae(checkpoint)
    cells = {
        "unet": [load_unet(checkpoint)],
        "vae": [vae.encoder, vae.decoder],
        "text_encoder": [load_text_encoder(checkpoint)],
    }
    for name, parts in cells.items():
        expected = tiny.weights(name, vae_attention="new")
        expected.pop("text_model.embeddings.position_ids", None)
        loaded = {key: p for part in parts for key, p in part.parameters_and_names()}
        assert loaded.keys() == expected.keys()
        for key, parameter in loaded.items():
            np.testing.assert_array_equal(parameter.asnumpy(), expected[key], key)


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


def test_float16_files_are_cast_to_float32(tmp_path):
    folder = tiny.write_stable_diffusion(tmp_path, dtype="float16", variant="fp16")
    loaded = decoder_weights(folder, variant="fp16")
    expected = tiny.weights("vae", "new")
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


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_are_read_with_their_index(folder, variant):
    file = folder / UNET_FILE
    tensors = load_file(file)
    file.unlink()
    infix = f".{variant}" if variant else ""
    weight_map = {}
    for i in range(2):
        name = f"diffusion_pytorch_model{infix}-0000{i + 1}-of-00002.safetensors"
        part = {key: tensors[key] for key in sorted(tensors)[i::2]}
        save_file(part, file.with_name(name))
        weight_map |= dict.fromkeys(part, name)
    index = file.with_name(f"diffusion_pytorch_model.safetensors.index{infix}.json")
    index.write_text(json.dumps({"weight_map": weight_map}))
    if variant:
        for name in ("vae/diffusion_pytorch_model", "text_encoder/model"):
            plain = folder / f"{name}.safetensors"
            plain.rename(folder / f"{name}{infix}.safetensors")

    unet = load_unet(Checkpoint.open(folder, variant=variant))

    for key, parameter in unet.parameters_and_names():
        np.testing.assert_array_equal(parameter.asnumpy(), tensors[key])
    file.with_name(weight_map["conv_in.weight"]).unlink()
    with pytest.raises(CheckpointError, match="not beside it"):
        load_unet(Checkpoint.open(folder, variant=variant))


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
    with pytest.raises(CheckpointError, match=r"no model_index\.json.*from_single_file"):
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
        Checkpoint.open(folder).folder("image_encoder")


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
from worker.diffusion.weights import load_weights

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

before = memory("VmRSS")
unet = UNet(UNetConfig(block_out_channels=(96, 192, 384, 384)))
load_weights([unet], [Path(sys.argv[1])], "unet")
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


def run_python(code, *arguments, **environment):
    """The output of a fresh process, without what MindSpore writes to its log."""
    command = [sys.executable, "-c", code, *arguments]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=root, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's HTTP interface as its own client needs to fetch a repository."""

    folder: Path
    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = self.path.split("?")[0]
        if path.startswith("/api/models/mill/tiny/tree/"):
            files = [p for p in self.folder.rglob("*") if p.is_file()]
            self.send_json([self.entry(file) for file in files])
        elif path in ("/api/models/mill/tiny", "/api/models/mill/tiny/revision/main"):
            names = [self.entry(p)["path"] for p in self.folder.rglob("*") if p.is_file()]
            siblings = [{"rfilename": name} for name in names]
            self.send_json({"id": "mill/tiny", "sha": self.commit, "siblings": siblings})
        elif path.startswith("/mill/tiny/resolve/"):
            file = self.folder / path.split("/", 5)[5]
            self.send(file.read_bytes(), {"ETag": f'"{self.entry(file)["oid"]}"'})
        else:
            self.send(b"", {"X-Error-Code": "RepoNotFound"}, 404)

    def entry(self, file):
        name = file.relative_to(self.folder).as_posix()
        oid = hashlib.sha1(file.read_bytes()).hexdigest()
        return {"type": "file", "path": name, "size": file.stat().st_size, "oid": oid}

    def send_json(self, value):
        self.send(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, body, headers, status=200):
        self.send_response(status)
        headers = {"Content-Length": str(len(body)), "X-Repo-Commit": self.commit, **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(folder):
    Hub.folder = folder
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    if thread.is_alive():
        server.shutdown()
    server.server_close()
    thread.join()


FETCH = """
import sys
from worker.diffusion.checkpoint import Checkpoint
for repository in sys.argv[1:]:
    try:
        print(Checkpoint.open(repository).path)
    except Exception as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
"""


def test_the_hub_is_asked_for_the_needed_files_only_and_the_cache_serves_without_it(
    hub, folder, tmp_path
):
    for extra in ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.safetensors"):
        (folder / "unet" / extra).write_bytes(b"not needed")
    (folder / "v1-5-pruned.ckpt").write_bytes(b"not needed")
    address = f"http://127.0.0.1:{hub.server_port}"
    environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache")}

    fetched, unknown, odd = run_python(
        FETCH, "mill/tiny", "mill/absent", "not a name", **environment
    ).splitlines()
    hub.shutdown()
    hub.server_close()
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
