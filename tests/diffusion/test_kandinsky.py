"""Kandinsky 2.2 equals the reference's combined pipelines, and its stages share steps."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_kandinsky
from make_kandinsky import BASE, CASES, LATENTS, SQUARE, arguments
from make_pipelines import picture

from worker.diffusion import (
    CheckpointError,
    Pipeline,
    PipelineInputError,
    restore_row,
    save_row,
)
from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.layout import CARD, file_names, needed_files

REFERENCE = Path(tiny_kandinsky.__file__).with_name("kandinsky.npz")
WORST, MEAN = 2 / 255, 1e-3


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return tiny_kandinsky.write_prior(tmp_path_factory.mktemp("prior"))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory, prior):
    return tiny_kandinsky.write_decoder(tmp_path_factory.mktemp("decoder"), prior)


@pytest.fixture(scope="module")
def pipe(decoder):
    return Pipeline.from_pretrained(decoder)


@pytest.fixture(scope="module")
def expected():
    return np.load(REFERENCE)


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
        {"prompt": "a painting of a cat"},
        {"negative_prompt": "low, blue"},
        {"prior_guidance_scale": 3.5},
        {"prior_num_inference_steps": 5},
        {"guidance_scale": 6.5},
        {"seed": 2},
        {"strength": 0.7},
        {"scheduler": "DDIMScheduler"},
    ],
)
def test_the_comparison_notices_any_other_argument(pipe, expected, change):
    given = arguments(CASES["image_negative"]) | change
    (result,) = pipe(**given, output_type="np")
    worst, mean = errors(result, expected["image_negative"])
    assert worst > 10 * WORST
    assert mean > 3 * MEAN


def test_lists_give_each_row_its_own_value(pipe):
    rows = {
        "prompt": ["a photo of a cat", "a painting of a dog", "the sky"],
        "image": [None, picture(64, 64), None],
        "negative_prompt": [None, "low", "blue"],
        "prior_guidance_scale": [4.0, 1.0, 2.0],
        "prior_num_inference_steps": [2, 4, 3],
        "num_inference_steps": [3, 4, 2],
        "strength": [0.8, 0.5, 0.9],
        "guidance_scale": [4.0, 1.0, 3.0],
        "seed": [1, 2, 3],
        "width": [64, None, 64],
        "height": [64, None, 64],
    }
    together = pipe(**rows, output_type="latent")
    for i, result in enumerate(together):
        (alone,) = pipe(**{name: v[i] for name, v in rows.items()}, output_type="latent")
        assert np.abs(result - alone).max() <= 1e-4 * np.abs(alone).max()


def test_rows_of_both_stages_share_a_step_and_get_what_they_get_alone(pipe):
    requests = [
        {"prompt": text, **SQUARE, "num_inference_steps": 4, "prior_num_inference_steps": 2 + i}
        for i, text in enumerate(["a photo of a cat", "the red house", "oil painting"])
    ]
    requests[1]["negative_prompt"] = "low"
    rows, stages = [], set()
    for request in requests:
        rows.append(pipe.prepare(**request))
        pipe.step([row for row in rows if not row.done])
    while pending := [row for row in rows if not row.done]:
        stages.add(frozenset(row.then is None for row in pending))
        pipe.step(pending)
    assert frozenset([True, False]) in stages
    for row, request in zip(rows, requests, strict=True):
        (alone,) = pipe(**request, output_type="latent")
        assert np.abs(row.latent - alone).max() <= 1e-4 * np.abs(alone).max()


def test_progress_counts_the_steps_of_both_stages(pipe):
    seen = []
    given = arguments(CASES["image_05"])
    pipe(**given, on_step=lambda done, total: seen.append((done, total)))
    # Four of the prior, and the last three of six of the decoder.
    assert seen == [(done, 7) for done in range(8)]


@pytest.mark.parametrize("taken", [0, 2, 4, 5])
def test_a_row_goes_on_bit_for_bit_from_either_stage(pipe, taken):
    given = arguments(CASES["image_negative"])
    row = pipe.prepare(**given)
    for _ in range(taken):
        pipe.step([row])
    state = {name: array.copy() for name, array in save_row(row).items()}
    later = pipe.prepare(**given)
    restore_row(later, state)
    assert (later.taken, later.total) == (taken, 7)
    for one in (row, later):
        while not one.done:
            pipe.step([one])
    np.testing.assert_array_equal(later.latent, row.latent)


def test_a_row_of_the_decoder_does_not_go_on_with_another_plan(pipe):
    given = arguments(CASES["image_05"])
    row = pipe.prepare(**given)
    for _ in range(5):
        pipe.step([row])
    other = pipe.prepare(**given | {"strength": 0.7})
    with pytest.raises(ValueError, match="another plan"):
        restore_row(other, save_row(row))
    assert other.taken == 0


def test_a_latent_begins_a_run_as_its_picture_does(pipe):
    given = arguments(CASES["image_05"])
    latent = pipe.clean_latent(given["image"], (64, 64))
    results = [
        pipe(**given | {"image": image}, output_type="latent")[0]
        for image in (given["image"], latent)
    ]
    np.testing.assert_array_equal(*results)


def test_a_pipeline_tells_what_it_is(pipe, decoder):
    assert pipe.family == "kandinsky"
    assert pipe.default_size == (64, 64)
    assert pipe.vae_scale_factor == 8
    assert pipe.scheduler_name() == "DDPMScheduler"
    assert pipe.cut_off("cat " * 76) == "cat "
    assert len(pipe.vae_fingerprint) == 64


def test_sizes_are_those_of_the_picture_in_multiples_of_64(pipe):
    assert pipe.size(None, None, None) == (64, 64)
    assert pipe.size(picture(200, 130), None, None) == (192, 128)
    assert pipe.size(picture(200, 130), 64, None) == (64, 128)
    assert pipe.size(np.zeros((4, 8, 16)), None, None) == (128, 64)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"width": 72}, "width is 72; it must be a multiple of 64 above 0."),
        ({"image": picture(63, 64), "width": None}, "image is 63x64; each side must have at least"),
        ({"image": np.zeros((4, 8, 9))}, "image is a latent of 72x64 pixels; each side must be"),
        ({"image": np.zeros((8, 8, 8))}, "image is an array of shape [8, 8, 8]; a latent has"),
        ({"prior_num_inference_steps": 0}, "prior_num_inference_steps is 0; it must be"),
        ({"prior_num_inference_steps": 1}, "prior_num_inference_steps is 1; UnCLIPScheduler needs"),
        ({"prior_guidance_scale": "4"}, "prior_guidance_scale is '4'; it must be a number."),
        ({"image": picture(64, 64), "strength": 0.1}, "leaves no step to run"),
        ({"negative_prompt": 0}, "negative_prompt is 0; it must be a text."),
        ({"prompt_weighting": True}, "kandinsky has no prompt_weighting; allowed: negative_prompt"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(pipe, change, sentence):
    with pytest.raises(PipelineInputError) as caught:
        pipe(**BASE | SQUARE | change)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_decoder_and_prior_may_be_one_checkpoint(pipe, tmp_path):
    combined = Pipeline.from_pretrained(tiny_kandinsky.write_combined(tmp_path))
    given = arguments(CASES["text"]) | {"num_inference_steps": 2, "prior_num_inference_steps": 2}
    results = [each(**given, output_type="latent")[0] for each in (pipe, combined)]
    np.testing.assert_array_equal(*results)


def linked(folder, checkpoint, **changes):
    """A copy of a checkpoint with other files."""
    for path in checkpoint.iterdir():
        if path.name not in changes:
            (folder / path.name).symlink_to(path)
    for name, text in changes.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("entry", ["prior: {}", "prior:\n  - {}", 'prior: ["{}", other/prior]'])
def test_the_card_names_the_prior_as_text_or_list(decoder, prior, tmp_path, entry):
    card = "---\nlicense: mit\n" + entry.format(prior) + "\n---\n\nprior: elsewhere\n"
    Pipeline.from_pretrained(linked(tmp_path, decoder, **{"README.md": card}))


@pytest.mark.parametrize("card", ["", "# No front matter\n", "---\nlicense: mit\n---\n"])
def test_a_decoder_whose_card_names_no_prior_needs_one_given(decoder, prior, tmp_path, card):
    folder = linked(tmp_path, decoder, **{"README.md": card})
    with pytest.raises(CheckpointError, match=r"names no prior: say which with prior=, .*README"):
        Pipeline.from_pretrained(folder)
    Pipeline.from_pretrained(folder, prior=prior)


def test_a_damaged_card_is_refused_by_name(decoder, tmp_path):
    folder = linked(tmp_path, decoder, **{"README.md": "---\nprior: [\n---\n"})
    with pytest.raises(CheckpointError, match=r"front matter of .*README\.md is no YAML"):
        Pipeline.from_pretrained(folder)


def test_a_prior_must_be_one(decoder):
    with pytest.raises(CheckpointError, match="made for KandinskyV22Pipeline, and no prior"):
        Pipeline.from_pretrained(decoder, prior=decoder)


def test_a_card_that_names_its_own_decoder_is_refused(decoder, tmp_path):
    folder = linked(tmp_path, decoder, **{"README.md": f"---\nprior: {tmp_path}\n---\n"})
    with pytest.raises(CheckpointError, match="made for KandinskyV22Pipeline, and no prior"):
        Pipeline.from_pretrained(folder)


def test_only_a_decoder_takes_a_prior(prior, tmp_path):
    folder = tiny.write_stable_diffusion(tmp_path)
    with pytest.raises(CheckpointError, match=r"prior is .* takes none"):
        Pipeline.from_pretrained(folder, prior=prior)


def test_a_prior_of_another_width_is_refused(decoder, tmp_path):
    folder = tiny_kandinsky.write_prior(tmp_path)
    config = tiny_kandinsky.PRIOR | {"embedding_dim": 16}
    (folder / "prior" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="weights of prior do not fit"):
        Pipeline.from_pretrained(decoder, prior=folder)


def test_the_card_is_among_the_files_that_are_fetched(decoder):
    index = Checkpoint.open(decoder).index
    assert CARD in needed_files(file_names(decoder), index, None)
