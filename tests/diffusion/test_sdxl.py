"""Stable Diffusion XL equals the reference: base, refiner, and the way from one to the other."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import tiny_sdxl
from make_pipelines import latent, picture
from make_sdxl import (
    END,
    HAND_OVERS,
    LATENTS,
    PICTURES,
    arguments,
    hand_over,
    text_ids,
    unet_inputs,
)

from worker.diffusion import CheckpointError, Pipeline, PipelineInputError
from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.models import ClipTextModelWithProjection, UNetConfig
from worker.diffusion.models.load import load_text_encoder
from worker.diffusion.pipelines.latent_diffusion import default_size

REFERENCE = Path(tiny_sdxl.__file__).parent
#: Of models, absolute, for outputs of order one.
TOLERANCE = 1e-4
WORST, MEAN = 1 / 255, 2e-4
#: Of latents, relative to the largest value.
FAR = 1e-4


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdxl")
    return {
        "base": tiny_sdxl.write_base(folder / "base"),
        "refiner": tiny_sdxl.write_refiner(folder / "refiner"),
    }


@pytest.fixture(scope="module")
def pipes(checkpoints):
    return {name: Pipeline.from_pretrained(folder) for name, folder in checkpoints.items()}


@pytest.fixture(scope="module")
def expected():
    return np.load(REFERENCE / "sdxl.npz")


def render(pipe, output_type="latent", **given):
    (result,) = pipe(**given, output_type=output_type)
    return result


def distance(result, expected):
    """Of two latents, relative to the largest value."""
    assert result.shape == expected.shape
    return np.abs(result - expected).max() / np.abs(expected).max()


def cases(table):
    return [(name, case) for name, group in table.items() for case in group]


@pytest.mark.parametrize("name", ["base", "refiner"])
def test_the_unet_equals_the_references(pipes, expected, name):
    inputs = map(ms.Tensor, unet_inputs(f"{name}_unet"))
    output = pipes[name].unet(*inputs).asnumpy()
    assert np.abs(output - expected[f"{name}_unet"]).max() < TOLERANCE


def test_a_level_without_transformers_may_say_that_it_has_none():
    config = UNetConfig.from_dict({**tiny_sdxl.UNET, "transformer_layers_per_block": [0, 1, 2]})
    assert replace(config, transformer_layers_per_block=(1, 1, 2)) == UNetConfig.from_dict(
        tiny_sdxl.UNET
    )


def test_the_text_encoders_give_the_state_before_the_last_layer(pipes, expected):
    ids = ms.Tensor(text_ids())
    first, second = (encoder.text_encoder for encoder in pipes["base"].prompt_encoders)
    assert np.abs(first(ids).asnumpy() - expected["text_encoder"]).max() < TOLERANCE
    state, pooled = second(ids)
    assert np.abs(state.asnumpy() - expected["text_encoder_2"]).max() < TOLERANCE
    assert np.abs(pooled.asnumpy() - expected["pooled_at_largest"]).max() < TOLERANCE


def test_a_text_is_pooled_at_its_end_token_where_the_configuration_names_one(
    checkpoints, expected, tmp_path
):
    folder = shutil.copytree(checkpoints["base"], tmp_path / "base")
    config = folder / "text_encoder_2" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": END}))
    encoder = load_text_encoder(
        Checkpoint.open(folder),
        name="text_encoder_2",
        form=ClipTextModelWithProjection,
        penultimate=True,
    )
    pooled = encoder(ms.Tensor(text_ids()))[1].asnumpy()
    assert np.abs(pooled - expected["pooled_at_end"]).max() < TOLERANCE
    assert np.abs(pooled - expected["pooled_at_largest"]).max() > 100 * TOLERANCE


@pytest.mark.parametrize(("name", "case"), cases(PICTURES))
def test_the_picture_equals_the_references(pipes, expected, name, case):
    result = render(pipes[name], "np", **arguments(PICTURES[name][case]))
    assert result.shape == expected[case].shape
    difference = np.abs(result - expected[case].astype(np.float32))
    assert difference.max() <= WORST
    assert difference.mean() <= MEAN


@pytest.mark.parametrize(("name", "case"), cases(LATENTS))
def test_the_latent_equals_the_references(pipes, expected, name, case):
    result = render(pipes[name], **arguments(LATENTS[name][case]))
    assert distance(result, expected[case]) < FAR


@pytest.mark.parametrize("case", HAND_OVERS)
def test_the_refiner_goes_on_where_the_base_ends(pipes, expected, case):
    first, second = hand_over(*HAND_OVERS[case])
    handed = render(pipes["base"], **first)
    assert distance(handed, expected[f"{case}_base"]) < FAR
    refined = render(pipes["refiner"], **second, image=handed)
    assert distance(refined, expected[f"{case}_refiner"]) < FAR


@pytest.mark.parametrize("scheduler", ["EulerDiscreteScheduler", "DDIMScheduler"])
def test_two_parts_of_a_way_are_the_whole_way(pipes, scheduler):
    given = {"prompt": "a cat", "seed": 3, "num_inference_steps": 7, "scheduler": scheduler}
    handed = render(pipes["base"], **given, width=64, height=64, denoising_end=0.6)
    result = render(pipes["base"], **given, image=handed, denoising_start=0.6)
    whole = render(pipes["base"], **given, width=64, height=64)
    assert distance(result, whole) < 1e-6


@pytest.mark.parametrize(
    ("name", "case", "change"),
    [
        ("base", "middle", {"denoising_start": 0.45}),
        ("base", "middle", {"denoising_end": 0.6}),
        ("base", "middle", {"negative_prompt": ""}),
        ("base", "middle", {"prompt": "a photo of a dog"}),
        ("base", "image_ended", {"strength": 0.9}),
        ("base", "image_ended", {"denoising_end": None}),
        ("refiner", "picture_without_noise", {"aesthetic_score": 6.5}),
        ("refiner", "picture_without_noise", {"negative_aesthetic_score": 3.0}),
        ("refiner", "picture_without_noise", {"seed": 2}),
    ],
    ids=str,
)
def test_the_comparison_notices_any_other_argument(pipes, expected, name, case, change):
    result = render(pipes[name], **arguments(LATENTS[name][case]) | change)
    assert distance(result, expected[case]) > 10 * FAR


@contextmanager
def replaced(pipe, name, change):
    """Puts a change after one of a pipeline's methods."""
    method = getattr(pipe, name)
    setattr(pipe, name, lambda *args: change(method(*args)))
    try:
        yield
    finally:
        delattr(pipe, name)


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("time_ids", lambda ids: ids + np.float32([8, 0, 0, 0, 0, 0])),
        ("time_ids", lambda ids: ids + np.float32([0, 0, 8, 0, 0, 0])),
        ("time_ids", lambda ids: ids + np.float32([0, 0, 0, 0, 0, 8])),
        ("time_ids", lambda ids: ids[[1, 0, 2, 3, 5, 4]]),
        ("encode", lambda text: (text[0], np.roll(text[1], 1))),
        ("encode", lambda text: (np.roll(text[0], 32, axis=-1), text[1])),
    ],
    ids=["height", "crop", "target", "order", "pooled", "encoders"],
)
def test_the_comparison_notices_what_else_the_unet_is_told(pipes, expected, method, change):
    pipe, given = pipes["base"], arguments(LATENTS["base"]["odd_size"])
    with replaced(pipe, method, change):
        result = render(pipe, **given)
    assert distance(result, expected["odd_size"]) > 10 * FAR
    assert distance(render(pipe, **given), expected["odd_size"]) < FAR


def test_rows_of_one_call_get_what_they_get_alone(pipes):
    given = {"image": latent(), "num_inference_steps": 8, "guidance_scale": 1.0}
    rows = [
        {"prompt": "a cat", "num_inference_steps": 4, "seed": 1, "width": 64, "height": 64},
        {**given, "prompt": "sky", "denoising_start": 0.3, "denoising_end": 0.9},
        {**given, "prompt": "sea", "strength": 0.5, "scheduler": "DDIMScheduler"},
    ]
    pipe, begun = pipes["base"], []
    for row in rows:
        begun.append(pipe.prepare(**row))
        pipe.step(begun)
    assert [row.position for row in begun] == [3, 2, 1]
    while pending := [row for row in begun if not row.done]:
        pipe.step(pending)
    for result, row in zip(begun, rows, strict=True):
        assert distance(result.latent, render(pipe, **row)) < FAR


def test_rows_of_one_call_may_be_scored_unlike(pipes):
    refiner = pipes["refiner"]
    scores = {"aesthetic_score": [3.0, 9.0], "negative_aesthetic_score": [2.0, 1.0]}
    given = {"prompt": "a cat", "image": picture(64, 64), "num_inference_steps": 4, "strength": 0.9}
    together = refiner(**given, **scores, output_type="latent")
    for i, result in enumerate(together):
        alone = render(refiner, **given, **{name: value[i] for name, value in scores.items()})
        assert distance(result, alone) < FAR
    assert distance(*together) > 10 * FAR


def test_no_negative_prompt_means_zeros_where_the_checkpoint_says_so(pipes):
    base, refiner = pipes["base"], pipes["refiner"]
    assert not any(array.any() for array in base.encode(None))
    assert all(array.any() for array in base.encode(""))
    for nothing, empty in zip(refiner.encode(None), refiner.encode(""), strict=True):
        np.testing.assert_array_equal(nothing, empty)


def test_base_and_refiner_share_their_autoencoder(pipes):
    base, refiner = pipes["base"], pipes["refiner"]
    assert base.family == refiner.family == "stable-diffusion-xl"
    assert base.vae_fingerprint == refiner.vae_fingerprint
    assert [len(pipe.prompt_encoders) for pipe in (base, refiner)] == [2, 1]
    assert base.scheduler_name() == "EulerDiscreteScheduler"
    assert base.prompt_encoders[1].tokenizer("")[2:] == [0] * 75
    assert base.cut_off("cat " * 76) == "cat "


def test_the_default_size_is_that_of_the_training():
    published = json.loads((REFERENCE / "published" / "sdxl.json").read_text("utf-8"))
    assert default_size(published["unet"], 8) == (1024, 1024)


def test_weights_in_a_prompt_are_those_of_both_embeddings_and_not_of_the_pooled(pipes):
    base = pipes["base"]
    (plain, pooled), (weighed, same) = (
        base.encode("a red cat"),
        base.encode("a (red:1.5) cat", True),
    )
    np.testing.assert_array_equal(pooled, same)
    # Start, "a", "red", "cat"; each encoder's embedding is scaled as a whole besides.
    a, red, cat = (weighed / plain)[1:4]
    np.testing.assert_allclose(red, 1.5 * a, rtol=1e-4)
    np.testing.assert_allclose(cat, a, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("base", {"denoising_end": 1.0}, "denoising_end is 1.0; it must be between 0 and 1."),
        ("base", {"denoising_end": "0.8"}, "denoising_end is '0.8'; it must be between 0 and 1."),
        ("base", {"denoising_end": 0.01}, "denoising_end 0.01 of 2 num_inference_steps leaves no"),
        ("base", {"denoising_start": 0.8}, "image is None, but denoising_start is set; give it an"),
        ("refiner", {}, "image is None, but this model refines pictures; give it an image."),
        (
            "refiner",
            {"image": picture(64, 64), "denoising_start": 0.5, "denoising_end": 0.5},
            "denoising_start is 0.5 and denoising_end is 0.5; the end must be the larger.",
        ),
        (
            "refiner",
            {"image": picture(64, 64), "denoising_start": 0.9999},
            "denoising_start 0.9999 of 2 num_inference_steps leaves no step to run",
        ),
        ("base", {"aesthetic_score": "6"}, "aesthetic_score is '6'; it must be a number."),
        ("base", {"aesthetic_score": 6.0}, "aesthetic_score is 6.0, but this model knows no such"),
        ("base", {"prior_guidance_scale": 4.0}, "stable-diffusion-xl has no prior_guidance_scale"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(pipes, name, change, sentence):
    with pytest.raises(PipelineInputError) as caught:
        pipes[name](**{"prompt": "cat", "num_inference_steps": 2} | change)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("model_index.json", {"requires_aesthetics_score": True}, "input_dim is 88; allowed: 80"),
        ("text_encoder_2/config.json", {"hidden_act": "relu"}, "text_encoder_2 hidden_act is"),
        ("text_encoder_2/config.json", {"projection_dim": 41}, "of text_encoder_2 do not fit"),
        ("unet/config.json", {"addition_embed_type": "image"}, "addition_embed_type is 'image'"),
    ],
)
def test_a_checkpoint_that_says_something_else_is_refused(tmp_path, file, change, sentence):
    folder = tiny_sdxl.write_base(tmp_path)
    config = json.loads((folder / file).read_text("utf-8"))
    (folder / file).write_text(json.dumps(config | change), "utf-8")
    with pytest.raises(CheckpointError, match=sentence):
        Pipeline.from_pretrained(folder)
