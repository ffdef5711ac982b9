"""Each scheduler's steps equal the reference's, from the first noise to the last sample."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from make_schedulers import STABLE_DIFFUSION, model, noises

from storage.spec import SCHEDULERS as SUBMITTED
from worker.diffusion.denoise import Row, advance
from worker.diffusion.errors import PipelineInputError
from worker.diffusion.noise import make_generator
from worker.diffusion.schedulers import OUTPUT, SAMPLE, SCHEDULERS, Plan, make_scheduler
from worker.diffusion.schedulers.plan import empty_plan

REFERENCE = Path(__file__).parents[1] / "reference"
CASES = json.loads((REFERENCE / "schedulers.json").read_text("utf-8"))
TOLERANCE = 1e-4
# With zero terminal SNR the noise level is 4096 at first, with the cosine schedule 20291: samples
# that are scaled by it, and estimates from them. The reference takes differences of such numbers
# in float32, so its samples are only good to the rounding of the largest.
ROUNDING = 2**-23


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


def row_of(plan: Plan, latent: np.ndarray, seed: int = 0) -> Row:
    return Row(latent, plan, make_generator(seed), conditions=((),))


def run(case: dict) -> tuple[Plan, np.ndarray]:
    """The plan of one case, and the samples as the reference gives them."""
    scheduler = make_scheduler(case["published"], case["override"])
    plan = scheduler.plan(case["steps"], case["strength"])
    latent, noise = noises(case["seed"])
    row = row_of(plan, plan.start[0] * latent + plan.start[1] * noise, case["seed"])
    samples = [row.latent]
    for timestep, scale in zip(plan.timesteps, plan.input_scale, strict=True):
        advance(row, model(row.latent * np.float32(scale), float(timestep), case))
        samples.append(row.latent)
    assert row.done
    return plan, np.stack(samples)


def distance(samples: np.ndarray, expected: np.ndarray) -> float:
    """The worst step's largest error, relative to that step's largest value."""
    axes = tuple(range(1, samples.ndim))
    errors = np.abs(samples - expected).max(axis=axes)
    return float((errors / np.abs(expected).max(axis=axes)).max())


def test_every_run_equals_the_reference_step_by_step(expected):
    assert len(CASES) == len(expected)
    for case, (timesteps, samples) in zip(CASES, expected, strict=True):
        plan, own_samples = run(case)
        np.testing.assert_allclose(plan.timesteps, timesteps, rtol=1e-5, atol=1e-3)
        assert own_samples.shape == samples.shape, case
        largest = max(plan.start[1], float(np.abs(plan.estimate).max()))
        tolerance = max(TOLERANCE, largest * ROUNDING)
        assert distance(own_samples, samples) <= tolerance, case


def test_the_cases_cover_each_class_in_both_ways_of_starting():
    kinds = Counter((class_of(case), case["strength"] is None) for case in CASES)
    assert {name for name, _ in kinds} == set(SCHEDULERS)
    assert min(kinds.values()) >= 10
    assert min(Counter(class_of(case) for case in CASES).values()) >= 40


def test_what_can_be_submitted_is_what_is_implemented():
    assert sorted(SUBMITTED) == sorted(SCHEDULERS)


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


#: The schedulers of Stable Diffusion 2.1, XL and XL turbo, of Kandinsky 2.2 and its prior, as their
#: publishers configured them.
PUBLISHED = [
    {
        "_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False,
        "num_train_timesteps": 1000, "prediction_type": "v_prediction", "set_alpha_to_one": False,
        "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
    },
    {
        "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0",
        "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        "clip_sample": False, "interpolation_type": "linear", "num_train_timesteps": 1000,
        "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": False,
        "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading",
        "trained_betas": None, "use_karras_sigmas": False,
    },
    {
        "_class_name": "EulerAncestralDiscreteScheduler", "_diffusers_version": "0.24.0.dev0",
        "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        "clip_sample": False, "interpolation_type": "linear", "num_train_timesteps": 1000,
        "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": False,
        "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "trailing",
        "trained_betas": None,
    },
    {
        "_class_name": "DDPMScheduler", "_diffusers_version": "0.18.0.dev0", "beta_end": 0.012,
        "beta_schedule": "linear", "beta_start": 0.00085, "clip_sample": False,
        "clip_sample_range": 1.0, "dynamic_thresholding_ratio": 0.995,
        "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 2.0,
        "steps_offset": 0, "thresholding": True, "timestep_spacing": "leading",
        "trained_betas": None, "variance_type": "learned_range",
    },
    {
        "_class_name": "UnCLIPScheduler", "_diffusers_version": "0.17.0.dev0",
        "beta_schedule": "squaredcos_cap_v2", "clip_sample": True, "clip_sample_range": 5.0,
        "num_train_timesteps": 1000, "prediction_type": "sample",
        "variance_type": "fixed_small_log",
    },
]  # fmt: skip


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda each: each["_class_name"])
def test_a_published_configuration_is_read_as_it_is(published):
    scheduler = make_scheduler(published)
    assert type(scheduler).__name__ == published["_class_name"]
    assert len(scheduler.plan(20)) == 20
    read = {field: value for field, value in published.items() if hasattr(scheduler, field)}
    assert {field: getattr(scheduler, field) for field in read} == read


def test_an_image_keeps_the_last_steps_and_one_more_with_pndm():
    pndm = make_scheduler(STABLE_DIFFUSION)
    assert pndm.plan(10).timesteps.tolist()[:4] == [901, 801, 801, 701]
    assert pndm.plan(10, 0.3).timesteps.tolist() == [301, 201, 101, 1]
    ddim = make_scheduler(STABLE_DIFFUSION, "DDIMScheduler")
    assert ddim.plan(10, 0.3).timesteps.tolist() == [201, 101, 1]


def test_fresh_noise_comes_from_the_rows_own_generator():
    plan = empty_plan(np.array([1, 0]), (1.0, 0.0))
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
        ({"class": "DDIMScheduler", "thresholding": 1}, "thresholding is 1; "),
        ({"class": "DDPMScheduler", "variance_type": "learned"}, "variance_type is 'learned'; "),
        ({"class": "DPMSolverMultistepScheduler", "solver_order": 3}, "solver_order is 3; "),
        (
            {"class": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"},
            "algorithm_type is 'dpmsolver'; ",
        ),
        (
            {"class": "DPMSolverMultistepScheduler", "lambda_min_clipped": -5.1},
            "lambda_min_clipped is -5.1; ",
        ),
        (
            {"class": "EulerAncestralDiscreteScheduler", "prediction_type": "sample"},
            "prediction_type is 'sample'",
        ),
        ({"class": "UniPCMultistepScheduler", "predict_x0": False}, "predict_x0 is False; "),
        ({"class": "UnCLIPScheduler"}, "beta_schedule is 'scaled_linear'; "),
        ({"class": "LCMScheduler", "timestep_spacing": "trailing"}, "has no field 'timestep_sp"),
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
            "LCMScheduler",
            51,
            None,
            "num_inference_steps is 51, original_inference_steps 50; allowed",
        ),
        (
            {"class": "UnCLIPScheduler", "beta_schedule": "squaredcos_cap_v2"},
            1,
            None,
            "num_inference_steps is 1; UnCLIPScheduler needs 2 or more",
        ),
        ("DPMSolverMultistepScheduler", 1000, None, "two steps would be at one noise level"),
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
