"""float16 stays near float32, and a VAE for which it is too narrow runs in float32 instead."""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import tiny
import tiny_sdxl
from make_pipelines import CASES, arguments, latent
from make_sdxl import PICTURES
from make_sdxl import arguments as xl_arguments
from safetensors.numpy import load_file, save_file

from worker.diffusion import CheckpointError, Pipeline
from worker.diffusion.pipelines import latent_diffusion
from worker.diffusion.pipelines.prompts import hosts

REFERENCE = Path(tiny.__file__).parent
WEIGHTS = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    folder = tiny.write_stable_diffusion(tmp_path_factory.mktemp("sd"))
    return Pipeline.from_pretrained(folder, dtype="float16")


@pytest.fixture(scope="module")
def half_xl(tmp_path_factory):
    folder = tiny_sdxl.write_base(tmp_path_factory.mktemp("xl"), "float16", "fp16")
    with pytest.raises(CheckpointError, match=r"\.fp16\.safetensors"):
        Pipeline.from_pretrained(folder)
    return Pipeline.from_pretrained(folder, variant="fp16", dtype="float16")


def errors(result, expected):
    difference = np.abs(result - expected.astype(np.float32))
    return float(difference.max()), float(difference.mean())


@pytest.mark.parametrize("case", ["text_pndm", "text_ddim", "text_euler"])
def test_pictures_in_float16_are_near_those_in_float32(half, case):
    (result,) = half(**arguments(CASES[case]), output_type="np")
    worst, mean = errors(result, np.load(REFERENCE / "pipelines.npz")[case])
    assert 1 / 255 < worst <= 20 / 255
    assert mean <= 1e-2


@pytest.mark.parametrize("case", ["text", "text_negative", "image"])
def test_pictures_of_sdxl_in_float16_are_near_those_in_float32(half_xl, case):
    (result,) = half_xl(**xl_arguments(PICTURES["base"][case]), output_type="np")
    worst, mean = errors(result, np.load(REFERENCE / "sdxl.npz")[case])
    assert 1 / 255 < worst <= 6 / 255
    assert mean <= 3e-3


def test_a_vae_that_asks_for_float32_gets_it(half, half_xl):
    assert half_xl.unet.conv_in.weight.dtype == ms.float16
    assert half_xl.vae.dtype == half_xl.vae.decoder.post_quant_conv.weight.dtype == ms.float32
    assert half.vae.dtype == half.vae.decoder.post_quant_conv.weight.dtype == ms.float16


def test_a_vae_that_says_that_it_does_not_need_float32_goes_without(tmp_path):
    folder = tiny_sdxl.write_base(tmp_path, "float16")
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps(tiny_sdxl.VAE | {"force_upcast": False}), "utf-8")
    pipe = Pipeline.from_pretrained(folder, dtype="float16")
    assert pipe.vae.dtype == ms.float16
    # The latents are the same.
    assert pipe.vae_fingerprint == same_weights(tmp_path / "other").vae_fingerprint


def same_weights(folder):
    return Pipeline.from_pretrained(tiny_sdxl.write_base(folder, "float16"))


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory):
    """A checkpoint whose VAE holds numbers beyond 65504, of which the last norm leaves nothing."""
    folder = tiny.write_stable_diffusion(tmp_path_factory.mktemp("overflowing"), "float16")
    weights = load_file(folder / WEIGHTS)
    for way in ("encoder", "decoder"):
        weights[f"{way}.conv_in.weight"] *= np.float16(3e4)
    save_file(weights, folder / WEIGHTS)
    return folder


def test_a_picture_that_overflows_in_float16_is_decoded_in_float32(overflowing, monkeypatch):
    expected = Pipeline.from_pretrained(overflowing)
    pipe = Pipeline.from_pretrained(overflowing, dtype="float16")
    assert pipe.vae.dtype == ms.float16
    (pixels,) = hosts(pipe.vae.decode(ms.Tensor(latent()[None])))
    assert not np.isfinite(pixels).all()

    loads, load_vae = [], latent_diffusion.load_vae
    monkeypatch.setattr(latent_diffusion, "load_vae", lambda c: loads.append(c) or load_vae(c))
    for _ in range(2):
        np.testing.assert_array_equal(pipe.decode(latent()), expected.decode(latent()))
    assert len(loads) == 1
    assert pipe.vae.dtype == ms.float32
    with pytest.raises(FloatingPointError, match="not finite"):
        pipe.decode(np.full((4, 8, 8), np.nan, np.float32))
    assert len(loads) == 1


def test_a_picture_that_overflows_in_float16_is_encoded_in_float32(overflowing):
    pipe, expected = (
        Pipeline.from_pretrained(overflowing, dtype=d) for d in ("float16", "float32")
    )
    pixels = np.clip(tiny.normal("pixels", (1, 3, 64, 64)), -1, 1)
    for moment, same in zip(
        pipe.encode_pixels(pixels), expected.encode_pixels(pixels), strict=True
    ):
        np.testing.assert_array_equal(moment, same)
    assert pipe.vae.dtype == ms.float32
