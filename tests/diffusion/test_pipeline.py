"""Stable Diffusion's pipeline equals the reference's, and says what is wrong with bad input."""

import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import tiny
from make_pipelines import CASES, LATENTS, arguments, latent, picture
from PIL import Image

from worker.diffusion import CheckpointError, Pipeline, PipelineInputError, reclaim_memory

REFERENCE = Path(__file__).parents[1] / "reference"
WORST, MEAN = 1 / 255, 2e-4


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return tiny.write_stable_diffusion(tmp_path_factory.mktemp("stable-diffusion"))


@pytest.fixture(scope="session")
def pipe(checkpoint):
    return Pipeline.from_pretrained(checkpoint)


@pytest.fixture(scope="session")
def expected():
    return np.load(REFERENCE / "pipelines.npz")


def errors(result: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """The worst and the mean difference of two pictures in 0..1."""
    assert result.shape == expected.shape
    difference = np.abs(result - expected.astype(np.float32))
    return float(difference.max()), float(difference.mean())


@pytest.mark.parametrize("name", CASES)
def test_the_picture_equals_the_references(pipe, expected, name):
    (result,) = pipe(**arguments(CASES[name]), output_type="np")
    worst, mean = errors(result, expected[name])
    assert worst <= WORST
    assert mean <= MEAN


@pytest.mark.parametrize("name", LATENTS)
def test_the_latent_equals_the_references(pipe, expected, name):
    (result,) = pipe(**arguments(CASES[name]), output_type="latent")
    reference = expected[f"{name}_latent"]
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, reference, atol=1e-3 * np.abs(reference).max())


@pytest.mark.parametrize(
    "change",
    [
        {"negative_prompt": "a photo of a dog"},
        {"prompt": "a painting of a cat"},
        {"scheduler": "DDIMScheduler"},
        {"guidance_scale": 7.0},
        {"seed": 2},
        {"strength": 0.8},
    ],
)
def test_the_comparison_notices_any_other_argument(pipe, expected, change):
    given = arguments(CASES["image_06_pndm"]) | change
    (result,) = pipe(**given, output_type="np")
    worst, mean = errors(result, expected["image_06_pndm"])
    assert worst > 10 * WORST
    assert mean > 10 * MEAN


def test_one_run_comes_out_as_picture_array_and_latent(pipe):
    given = arguments(CASES["text_pndm"])
    (image,), (array,), (latent,) = (
        pipe(**given, output_type=output_type) for output_type in ("pil", "np", "latent")
    )
    assert image.size == (64, 64)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(image), np.uint8(np.round(array * 255)))
    np.testing.assert_array_equal(pipe.decode(latent), array)
    np.testing.assert_array_equal(np.asarray(pipe.decode_picture(latent)), np.asarray(image))


def test_lists_give_each_row_its_own_value(pipe):
    rows = {
        "prompt": ["a photo of a cat", "a painting of a dog", "the sky"],
        "image": [None, picture(64, 64), latent()],
        "strength": [0.8, 0.5, 0.9],
        "guidance_scale": [7.5, 1.0, 3.0],
        "num_inference_steps": [4, 6, 3],
        "scheduler": [None, "DDIMScheduler", "EulerDiscreteScheduler"],
        "seed": [1, 2, 3],
        "width": [64, None, None],
        "height": [64, None, None],
    }
    together = pipe(**rows, output_type="latent")
    for i, result in enumerate(together):
        (alone,) = pipe(**{name: v[i] for name, v in rows.items()}, output_type="latent")
        assert np.abs(result - alone).max() <= 1e-4 * np.abs(alone).max()


def test_rows_that_join_later_get_what_they_get_alone(pipe):
    texts = ["a photo of a cat", "the red house", "oil painting"]
    requests = [
        {"prompt": text, "image": picture(64, 64), "num_inference_steps": 4 + i, "seed": i}
        for i, text in enumerate(texts)
    ]
    requests[1]["guidance_scale"] = 1.0
    rows = []
    for request in requests:
        rows.append(pipe.prepare(**request))
        pipe.step([row for row in rows if not row.done])
    assert len({row.position for row in rows}) == 3
    while pending := [row for row in rows if not row.done]:
        pipe.step(pending)
    for row, request in zip(rows, requests, strict=True):
        (alone,) = pipe(**request, output_type="latent")
        assert np.abs(row.latent - alone).max() <= 1e-4 * np.abs(alone).max()


def test_progress_is_told_at_the_start_and_after_each_step_and_can_end_the_run(pipe):
    class Canceled(Exception):
        pass

    seen = []

    def on_step(done, total):
        seen.append((done, total))
        if done == 2:
            raise Canceled

    given = arguments(CASES["image_06_euler"]) | {"num_inference_steps": 10}
    with pytest.raises(Canceled):
        pipe(**given, on_step=on_step)
    assert seen == [(0, 6), (1, 6), (2, 6)]
    assert len(pipe(**given, on_step=lambda *_: None)) == 1


def test_a_picture_may_have_any_mode_and_orientation(pipe):
    given = {"prompt": "cat", "num_inference_steps": 1, "strength": 1.0, "guidance_scale": 1.0}
    for mode in ("RGBA", "L", "P", "1", "CMYK"):
        (result,) = pipe(image=picture(64, 64).convert(mode), **given)
        assert result.mode == "RGB"
    grey = np.asarray(picture(64, 64).convert("L"))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    results = [pipe(image=image, **given)[0] for image in (deep, Image.fromarray(grey))]
    np.testing.assert_array_equal(*(np.asarray(result) for result in results))
    turned = picture(64, 64).transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    results = [pipe(image=image, **given)[0] for image in (turned, picture(64, 64))]
    np.testing.assert_array_equal(*(np.asarray(result) for result in results))


def test_a_tiny_picture_may_be_made_larger(pipe):
    size = {"width": 64, "height": 64}
    (result,) = pipe("cat", picture(5, 3), num_inference_steps=2, guidance_scale=1.0, **size)
    assert result.size == (64, 64)


def test_a_pipeline_tells_what_it_is(pipe, checkpoint):
    assert pipe.family == "stable-diffusion"
    assert pipe.revision is None
    assert pipe.default_size == (64, 64)
    assert pipe.vae_scale_factor == 8
    assert pipe.scheduler_name() == "PNDMScheduler"
    assert pipe.scheduler_name({"class": "DDIMScheduler"}) == "DDIMScheduler"
    assert pipe.vae_fingerprint == Pipeline.from_pretrained(checkpoint).vae_fingerprint
    assert pipe.cut_off("cat " * 76) == "cat "


def test_the_revision_is_the_commit_of_a_cached_repository(checkpoint, tmp_path):
    (tmp_path / "snapshots").mkdir()
    snapshot = tmp_path / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.symlink_to(checkpoint)
    assert Pipeline.from_pretrained(snapshot).revision == snapshot.name


def test_a_result_that_is_not_finite_is_no_picture(pipe):
    with pytest.raises(FloatingPointError, match="not finite"):
        pipe.decode(np.full((4, 8, 8), np.nan, np.float32))


@pytest.mark.parametrize("dtype", ["float8", "bfloat16"])
def test_a_type_that_the_device_lacks_is_refused(checkpoint, dtype):
    with pytest.raises(CheckpointError, match=f"dtype is '{dtype}'"):
        Pipeline.from_pretrained(checkpoint, dtype=dtype)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prompt": 3}, "prompt is 3; it must be a text."),
        ({"negative_prompt": 3}, "negative_prompt is 3; it must be a text."),
        ({"prompt": "a \ud800"}, "prompt holds half a character (a lone surrogate)."),
        ({"prompt": ["a", "b"], "seed": [1, 2, 3]}, "prompt has 2 values for 3 rows."),
        ({"image": "cat.png"}, "image is a str; it must be a PIL image or a latent array."),
        ({"image": Image.new("RGB", (7, 64))}, "image is 7x64; each side must have at least 8"),
        ({"image": np.zeros((64, 64, 3))}, "image is an array of shape [64, 64, 3]; a latent has"),
        ({"image": np.zeros((4, 8, 8)), "width": 72}, "width x height is 72x64, but the latent is"),
        ({"width": 65}, "width is 65; it must be a multiple of 8 above 0."),
        ({"height": 0}, "height is 0; it must be a multiple of 8 above 0."),
        ({"height": -64}, "height is -64; it must be"),
        ({"width": "64"}, "width is '64'; it must be"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0; it must be"),
        ({"image": picture(64, 64), "strength": 1.5}, "strength is 1.5; it must be from 0 to 1."),
        ({"image": picture(64, 64), "strength": 0.0}, "leaves no step to run"),
        ({"negative_prompt": 0}, "negative_prompt is 0; it must be a text."),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan; it must be a number."),
        ({"guidance_scale": "7"}, "guidance_scale is '7'; it must be a number."),
        ({"seed": -1}, "seed is -1; it must be"),
        ({"scheduler": "NoScheduler"}, "scheduler is 'NoScheduler'; allowed: DDIMScheduler, "),
        ({"aesthetic_score": 6.0}, "stable-diffusion has no aesthetic_score; allowed: negative_"),
        ({"output_type": "jpeg"}, "output_type is 'jpeg'; allowed: pil, np, latent."),
    ],
)
def test_bad_input_is_refused_in_one_sentence(pipe, change, sentence):
    with pytest.raises(PipelineInputError) as caught:
        pipe(**{"prompt": "cat", "num_inference_steps": 2} | change)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_family_is_refused_by_name(checkpoint, tmp_path):
    index = json.loads((checkpoint / "model_index.json").read_text())
    for component in checkpoint.iterdir():
        if component.is_dir():
            (tmp_path / component.name).symlink_to(component)
    index["_class_name"] = "FluxPipeline"
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="FluxPipeline; pipelines here: StableDiffusion"):
        Pipeline.from_pretrained(tmp_path)


def test_a_loaded_pipeline_outlives_the_memory_of_another(pipe, tmp_path):
    before = pipe.decode(latent())
    folder = tiny.write_stable_diffusion(tmp_path / "other")
    config = folder / "vae" / "config.json"
    config.write_text(config.read_text().replace('"sample_size": 64', '"scaling_factor": 0.5'))
    other = Pipeline.from_pretrained(folder)
    assert not np.array_equal(other.decode(latent()), before)
    reference = weakref.ref(other.vae.decoder)
    del other
    reclaim_memory()
    assert reference() is None
    np.testing.assert_array_equal(pipe.decode(latent()), before)
