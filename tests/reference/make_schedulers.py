"""Writes schedulers.json and schedulers.npz: runs of the reference's schedulers, step by step.

Needs diffusers (requirements.txt); run as `python tests/reference/make_schedulers.py`.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
SHAPE = (1, 2, 3)

STABLE_DIFFUSION = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
SHARED = {
    "beta_schedule": ["linear", "scaled_linear", "squaredcos_cap_v2"],
    "beta_start": [0.0001, 0.00085, 0.0015],
    "beta_end": [0.012, 0.02],
    "num_train_timesteps": [1000, 400],
    "steps_offset": [0, 1],
    "timestep_spacing": ["leading", "linspace", "trailing"],
    "prediction_type": ["epsilon", "v_prediction"],
}
THRESHOLDING = {
    "thresholding": [True, False],
    "dynamic_thresholding_ratio": [0.6, 0.995],
    "sample_max_value": [1.0, 1.5],
}
MULTISTEP = {
    **THRESHOLDING,
    "solver_order": [1, 2],
    "lower_order_final": [True, False],
    "use_karras_sigmas": [True, False],
    "final_sigmas_type": ["zero", "sigma_min"],
    "prediction_type": ["epsilon", "v_prediction", "sample"],
    "rescale_betas_zero_snr": [True, False],
}
OWN: dict[str, dict[str, list[Any]]] = {
    "PNDMScheduler": {"skip_prk_steps": [True], "set_alpha_to_one": [True, False]},
    "DDIMScheduler": {
        **THRESHOLDING,
        "clip_sample": [True, False],
        "clip_sample_range": [1.0, 2.5],
        "set_alpha_to_one": [True, False],
        "prediction_type": ["epsilon", "v_prediction", "sample"],
        "rescale_betas_zero_snr": [True, False],
    },
    "EulerDiscreteScheduler": {
        "use_karras_sigmas": [True, False],
        "final_sigmas_type": ["zero", "sigma_min"],
        "prediction_type": ["epsilon", "v_prediction", "sample"],
        "rescale_betas_zero_snr": [True, False],
        "sigma_min": [None, 0.1],
        "sigma_max": [None, 10.0],
    },
    "EulerAncestralDiscreteScheduler": {"rescale_betas_zero_snr": [True, False]},
    "DPMSolverMultistepScheduler": {
        **MULTISTEP,
        "algorithm_type": ["dpmsolver++", "sde-dpmsolver++"],
        "solver_type": ["midpoint", "heun"],
        "euler_at_final": [True, False],
    },
    "HeunDiscreteScheduler": {
        "use_karras_sigmas": [True, False],
        "clip_sample": [True, False],
        "clip_sample_range": [1.0, 2.5],
        "prediction_type": ["epsilon", "v_prediction", "sample"],
    },
    "UnCLIPScheduler": {
        "beta_schedule": ["squaredcos_cap_v2"],
        "variance_type": ["fixed_small_log", "learned_range"],
        "clip_sample": [True, False],
        "clip_sample_range": [1.0, 2.5],
        "prediction_type": ["epsilon", "sample"],
    },
    "LCMScheduler": {
        **THRESHOLDING,
        "original_inference_steps": [50, 36],
        "timestep_scaling": [10.0, 0.01],
        "clip_sample": [True, False],
        "clip_sample_range": [1.0, 2.5],
        "prediction_type": ["epsilon", "v_prediction", "sample"],
        "rescale_betas_zero_snr": [True, False],
    },
    "UniPCMultistepScheduler": {
        **MULTISTEP,
        "solver_order": [1, 2, 2, 2, 3],
        # Otherwise the reference's last step is no number where it ends without noise.
        "lower_order_final": [True, True, True, False],
        "solver_type": ["bh1", "bh2"],
        "final_sigmas_type": ["zero", "sigma_min", "sigma_min"],
        "disable_corrector": [[], [0, 2]],
    },
    "DDPMScheduler": {
        **THRESHOLDING,
        "variance_type": ["fixed_small", "fixed_small_log", "fixed_large", "learned_range"],
        "clip_sample": [True, False],
        "clip_sample_range": [1.0, 2.5],
        "prediction_type": ["epsilon", "v_prediction", "sample"],
        "rescale_betas_zero_snr": [True, False],
    },
}
ALWAYS = ("skip_prk_steps",)
#: One schedule is built in, whatever the file says.
ONE_SCHEDULE = ("UnCLIPScheduler",)


def draw_cases(count: int) -> list[dict[str, Any]]:
    """Runs of each class with about half of the fields given, a third from another class's file."""
    return [case for name in OWN for case in draw_cases_of(name, count)]


def draw_cases_of(name: str, count: int) -> list[dict[str, Any]]:
    # A class's cases do not depend on which other classes there are.
    choose = random.Random(name)
    cases = []
    for seed in range(count):
        fields = {
            field: choose.choice(values)
            for field, values in fields_of(name).items()
            if field in ALWAYS or choose.random() < 0.5
        }
        if fields.get("rescale_betas_zero_snr"):
            # As published. With a smaller first beta the last noise level hangs on the rounding of
            # torch's float32 square root, and `epsilon` predicts nothing at the first timestep.
            as_published = {"beta_schedule": "scaled_linear", "beta_start": 0.00085}
            fields |= as_published | {"prediction_type": "v_prediction"}
        published, override = {"_class_name": name, **fields}, None
        if choose.random() < 1 / 3 and name not in ONE_SCHEDULE:
            published, override = STABLE_DIFFUSION, {"class": name, **fields}
        cases.append(
            {
                "published": published,
                "override": override,
                "steps": choose.choice([1, 2, 3, 4, 5, 7, 10, 20, 25, 30]),
                "strength": choose.choice([None, None, 0.3, 0.6, 0.75, 1.0]),
                "seed": seed,
            }
        )
    least = 2 if name in ONE_SCHEDULE else 1
    return [
        case
        for case in cases
        if case["steps"] >= least and int(case["steps"] * (case["strength"] or 1)) >= 1
    ]


def fields_of(name: str) -> dict[str, list[Any]]:
    if name in ONE_SCHEDULE:
        return {"num_train_timesteps": SHARED["num_train_timesteps"], **OWN[name]}
    shared = {k: v for k, v in SHARED.items() if (name, k) != ("LCMScheduler", "timestep_spacing")}
    return {**shared, **OWN[name]}


def noises(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A latent and the noise it starts from."""
    generator = np.random.default_rng(seed)
    return tuple(generator.standard_normal((2, *SHAPE), dtype=np.float32))


def model(sample: np.ndarray, timestep: float, case: dict[str, Any]) -> np.ndarray:
    """Stands for a model: depends on the sample, the timestep and on nothing else.

    Where the variance is learned, it is predicted in as many channels again.
    """
    phase = np.arange(sample.size, dtype=np.float32).reshape(sample.shape) + case["seed"]
    output = (0.6 * np.tanh(sample) + np.sin(phase + timestep / 100)).astype(np.float32)
    if (case["override"] or case["published"]).get("variance_type") != "learned_range":
        return output
    return np.concatenate([output, np.tanh(output)])


def run_reference(case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Timesteps (n,) and the sample before the first and after each step (n + 1, *SHAPE)."""
    import diffusers
    import torch

    published, override = case["published"], case["override"]
    scheduler = getattr(diffusers, published["_class_name"]).from_config(published)
    if override:
        fields = {k: v for k, v in override.items() if k != "class"}
        scheduler = getattr(diffusers, override["class"]).from_config(scheduler.config, **fields)
    scheduler.set_timesteps(case["steps"])
    generator = np.random.Generator(np.random.Philox(case["seed"]))
    # The product's noise takes the place of torch's.
    sys.modules[type(scheduler).__module__].randn_tensor = lambda shape, **_: torch.from_numpy(
        generator.standard_normal(tuple(shape), dtype=np.float32)
    )
    # Heun's second half divides a difference of large numbers by a small noise level: in float32
    # the reference strays from itself in float64 by up to 8e-3.
    exact = isinstance(scheduler, diffusers.HeunDiscreteScheduler)
    dtype = torch.float64 if exact else torch.float32
    if exact:
        scheduler.sigmas = scheduler.sigmas.to(dtype)
    latent, noise = (torch.from_numpy(array[None]).to(dtype) for array in noises(case["seed"]))
    steps, strength = case["steps"], case["strength"]
    first = 0 if strength is None else steps - min(int(steps * strength), steps)
    first *= getattr(scheduler, "order", 1)
    timesteps = scheduler.timesteps[first:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    if strength is None:
        sample = noise * scheduler.init_noise_sigma
    else:
        sample = scheduler.add_noise(latent, noise, timesteps[:1])
    samples = [sample[0].numpy().astype(np.float32)]
    for i, timestep in enumerate(timesteps):
        scaled = scheduler.scale_model_input(sample, timestep)[0].numpy()
        output = torch.from_numpy(model(scaled, float(timestep), case)[None]).to(dtype)
        given = {}
        if isinstance(scheduler, diffusers.UnCLIPScheduler) and i + 1 < len(timesteps):
            given["prev_timestep"] = timesteps[i + 1]
        sample = scheduler.step(output, timestep, sample, **given).prev_sample
        samples.append(sample[0].numpy().astype(np.float32))
    return timesteps.numpy(), np.stack(samples)


def main() -> None:
    import torch

    cases, runs = draw_cases(64), []
    for case in cases:
        try:
            timesteps, samples = run_reference(case)
        except torch.linalg.LinAlgError:
            continue
        # Some configurations divide by zero in the reference.
        if np.isfinite(samples).all():
            runs.append((case, timesteps, samples))
    lines = ",\n".join(json.dumps(case) for case, _, _ in runs)
    (HERE / "schedulers.json").write_text(f"[\n{lines}\n]\n", "utf-8")
    np.savez_compressed(
        HERE / "schedulers.npz",
        lengths=np.array([len(timesteps) for _, timesteps, _ in runs]),
        timesteps=np.concatenate([timesteps for _, timesteps, _ in runs]).astype(np.float32),
        samples=np.concatenate([samples for _, _, samples in runs]),
    )
    print(f"{len(runs)} runs; left out, not finite: {len(cases) - len(runs)}")


if __name__ == "__main__":
    main()
