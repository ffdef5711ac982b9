"""Each scheduler's steps equal the reference's, from the first noise to the last sample."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from make_schedulers import STABLE_DIFFUSION, model, noises

from worker.diffusion.denoise import Row, advance
from worker.diffusion.errors import PipelineInputError
from worker.diffusion.noise import make_generator
from worker.diffusion.schedulers import OUTPUT, SAMPLE, SCHEDULERS, Plan, make_scheduler
from worker.diffusion.schedulers.plan import empty_plan

REFERENCE = Path(__file__).parents[1] / "reference"
CASES = json.loads((REFERENCE / "schedulers.json").read_text("utf-8"))
TOLERANCE = 1e-4
# Euler with zero terminal SNR starts at noise level 4096, where the reference's float32 arithmetic
# is good to 4096 * 2**-23 = 5e-4 and its interpolated first timestep to a few units.
ZERO_SNR_TOLERANCE = 5e-4


@pytest.fixture(scope="module")
def expected():
    """Timesteps (n,) and samples (n + 1, ...) of each case."""
    arrays = np.load(REFERENCE / "schedulers.npz")
    ends = np.cumsum(arrays["lengths"])[:-1]
    timesteps = np.split(arrays["timesteps"], ends)
    samples = np.split(arrays["samples"], ends + np.arange(1, len(ends) + 1))
    return list(zip(timesteps, samples, strict=True))


def class_of(case: dict) -> str:
    return (case["override"] or {}).get("class", case["published"]["_class_name"])


def row_of(plan: Plan, latent: np.ndarray) -> Row:
    return Row(latent, plan, make_generator(0), embedding=np.zeros((1, 1), np.float32))


def run(case: dict) -> tuple[np.ndarray, np.ndarray]:
    """Timesteps and samples of one case, as the reference gives them."""
    scheduler = make_scheduler(case["published"], case["override"])
    plan = scheduler.plan(case["steps"], case["strength"])
    latent, noise = noises(case["seed"])
    row = row_of(plan, plan.start[0] * latent + plan.start[1] * noise)
    samples = [row.latent]
    for timestep, scale in zip(plan.timesteps, plan.input_scale, strict=True):
        advance(row, model(row.latent * np.float32(scale), float(timestep), case["seed"]))
        samples.append(row.latent)
    assert row.done
    return plan.timesteps, np.stack(samples)


def distance(samples: np.ndarray, expected: np.ndarray) -> float:
    """The worst step's largest error, relative to that step's largest value."""
    axes = tuple(range(1, samples.ndim))
    errors = np.abs(samples - expected).max(axis=axes)
    return float((errors / np.abs(expected).max(axis=axes)).max())


def test_every_run_equals_the_reference_step_by_step(expected):
    assert len(CASES) == len(expected) >= 150
    for case, (timesteps, samples) in zip(CASES, expected, strict=True):
        own_timesteps, own_samples = run(case)
        fields = {**case["published"], **(case["override"] or {})}
        zero_snr = (
            fields.get("rescale_betas_zero_snr") and class_of(case) == "EulerDiscreteScheduler"
        )
        np.testing.assert_allclose(
            own_timesteps, timesteps, rtol=1e-5, atol=2 if zero_snr else 1e-3
        )
        assert own_samples.shape == samples.shape, case
        tolerance = ZERO_SNR_TOLERANCE if zero_snr else TOLERANCE
        assert distance(own_samples, samples) <= tolerance, case


def test_the_cases_cover_each_class_in_both_ways_of_starting():
    kinds = Counter((class_of(case), case["strength"] is None) for case in CASES)
    assert {name for name, _ in kinds} == set(SCHEDULERS)
    assert min(kinds.values()) >= 20


@pytest.mark.parametrize("change", [{"beta_end": 0.0121}, {"steps_offset": 2}])
def test_the_comparison_notices_a_small_change(expected, change):
    plain = [i for i, case in enumerate(CASES) if case["published"] == STABLE_DIFFUSION]
    noticed = 0
    for i in plain:
        case = {**CASES[i], "override": {**CASES[i]["override"], **change}}
        noticed += distance(run(case)[1], expected[i][1]) > TOLERANCE
    assert noticed > len(plain) / 3


def test_only_published_fields_carry_over_to_another_class():
    euler = make_scheduler(STABLE_DIFFUSION, "EulerDiscreteScheduler")
    assert euler.beta_schedule == "scaled_linear"
    assert euler.timestep_spacing == "linspace"
    assert make_scheduler(STABLE_DIFFUSION).timestep_spacing == "leading"
    without_clip = {k: v for k, v in STABLE_DIFFUSION.items() if k != "clip_sample"}
    assert make_scheduler(without_clip, "DDIMScheduler").clip_sample is True


def test_an_image_keeps_the_last_steps_and_one_more_with_pndm():
    pndm = make_scheduler(STABLE_DIFFUSION)
    assert pndm.plan(10).timesteps.tolist()[:4] == [901, 801, 801, 701]
    assert pndm.plan(10, 0.3).timesteps.tolist() == [301, 201, 101, 1]
    ddim = make_scheduler(STABLE_DIFFUSION, "DDIMScheduler")
    assert ddim.plan(10, 0.3).timesteps.tolist() == [201, 101, 1]


def test_fresh_noise_comes_from_the_rows_own_generator():
    plan = empty_plan(np.array([1, 0]), (1.0, 0.0), clip=None)
    plan.update[:, SAMPLE] = 1.0
    plan.update[:, OUTPUT] = 1.0
    plan.noise[0] = 0.5
    row = row_of(plan, np.zeros((1, 2, 2), np.float32))
    advance(row, np.ones((1, 2, 2), np.float32))
    drawn = make_generator(0).standard_normal((1, 1, 2, 2), dtype=np.float32)[0]
    np.testing.assert_allclose(row.latent, 1 + drawn / 2, rtol=1e-6)
    advance(row, np.zeros((1, 2, 2), np.float32))
    np.testing.assert_allclose(row.latent, 1 + drawn / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("HeunScheduler", "scheduler is 'HeunScheduler'; allowed: DDIMScheduler, "),
        (3, "scheduler is 3; allowed"),
        ({"beta_end": 0.02}, "scheduler is None; allowed"),
        ({"class": "DDIMScheduler", "eta": 1}, "DDIMScheduler has no field 'eta'; allowed: "),
        ({"class": "DDIMScheduler", "thresholding": True}, "thresholding is True; "),
        ({"class": "DDIMScheduler", "beta_end": "x"}, "beta_end is 'x'; "),
        ({"class": "EulerDiscreteScheduler", "use_beta_sigmas": True}, "use_beta_sigmas is True"),
        ({"class": "EulerDiscreteScheduler", "interpolation_type": "log_linear"}, "'linear'"),
        ({"class": "PNDMScheduler", "prediction_type": "sample"}, "prediction_type is 'sample'"),
    ],
)
def test_what_is_not_implemented_is_refused_by_field_and_value(override, sentence):
    with pytest.raises(PipelineInputError) as caught:
        make_scheduler(STABLE_DIFFUSION, override)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("override", "steps", "strength", "sentence"),
    [
        (None, 0, None, "num_inference_steps is 0; it must be a whole number from 1 to 1000."),
        (None, 1001, None, "num_inference_steps is 1001; "),
        (None, 2.5, None, "num_inference_steps is 2.5; "),
        (None, 10, 1.1, "strength is 1.1; it must be from 0 to 1."),
        (None, 10, -0.1, "strength is -0.1; "),
        (None, 10, "a", "strength is 'a'; "),
        (None, 10, float("nan"), "strength is nan; "),
        (None, 10, 0.09, "leaves no step to run"),
        (None, 1000, None, "the first timestep would be 1000"),
        ({"class": "PNDMScheduler", "skip_prk_steps": False}, 10, None, "skip_prk_steps is False"),
        (
            {"class": "DDIMScheduler", "trained_betas": [0.1]},
            10,
            None,
            "trained_betas has 1 values",
        ),
        (
            {
                "class": "DDIMScheduler",
                "rescale_betas_zero_snr": True,
                "timestep_spacing": "trailing",
            },
            10,
            None,
            "rescale_betas_zero_snr is True",
        ),
        (
            {"class": "EulerDiscreteScheduler", "use_karras_sigmas": True, "sigma_min": 99.0},
            10,
            None,
            "sigma_min is 99.0",
        ),
    ],
)
def test_a_run_that_cannot_be_is_refused_in_one_sentence(override, steps, strength, sentence):
    with pytest.raises(PipelineInputError) as caught:
        make_scheduler(STABLE_DIFFUSION, override).plan(steps, strength)
    assert sentence in str(caught.value)
