"""Writes schedulers.json and schedulers.npz: runs of the reference's schedulers, step by step.

Needs diffusers (requirements.txt); run as `python tests/reference/make_schedulers.py`.
"""

import json
import random
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
OWN: dict[str, dict[str, list[Any]]] = {
    "PNDMScheduler": {"skip_prk_steps": [True], "set_alpha_to_one": [True, False]},
    "DDIMScheduler": {
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
}
ALWAYS = ("skip_prk_steps",)


def draw_cases(count: int) -> list[dict[str, Any]]:
    """Runs with about half of the fields given, a third of them from another class's file."""
    choose = random.Random(0)
    cases = []
    for seed in range(count):
        name = choose.choice(list(OWN))
        fields = {
            field: choose.choice(values)
            for field, values in {**SHARED, **OWN[name]}.items()
            if field in ALWAYS or choose.random() < 0.5
        }
        if fields.get("rescale_betas_zero_snr"):
            # As published. With a smaller first beta the last noise level hangs on the rounding of
            # torch's float32 square root, and `epsilon` predicts nothing at the first timestep.
            as_published = {"beta_schedule": "scaled_linear", "beta_start": 0.00085}
            fields |= as_published | {"prediction_type": "v_prediction"}
        published, override = {"_class_name": name, **fields}, None
        if choose.random() < 1 / 3:
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
    return [case for case in cases if int(case["steps"] * (case["strength"] or 1)) >= 1]


def noises(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A latent and the noise it starts from."""
    generator = np.random.default_rng(seed)
    return tuple(generator.standard_normal((2, *SHAPE), dtype=np.float32))


def model(sample: np.ndarray, timestep: float, seed: int) -> np.ndarray:
    """Stands for a model: depends on the sample, the timestep and on nothing else."""
    phase = np.arange(sample.size, dtype=np.float32).reshape(sample.shape) + seed
    return (0.6 * np.tanh(sample) + np.sin(phase + timestep / 100)).astype(np.float32)


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
    latent, noise = map(torch.from_numpy, noises(case["seed"]))
    steps, strength = case["steps"], case["strength"]
    first = 0 if strength is None else steps - min(int(steps * strength), steps)
    timesteps = scheduler.timesteps[first:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    if strength is None:
        sample = noise * scheduler.init_noise_sigma
    else:
        sample = scheduler.add_noise(latent[None], noise[None], timesteps[:1])[0]
    samples = [sample.numpy()]
    for timestep in timesteps:
        scaled = scheduler.scale_model_input(sample, timestep).numpy()
        output = torch.from_numpy(model(scaled, float(timestep), case["seed"]))
        sample = scheduler.step(output, timestep, sample).prev_sample
        samples.append(sample.numpy())
    return timesteps.numpy(), np.stack(samples)


def main() -> None:
    cases, arrays = draw_cases(280), {}
    for i, case in enumerate(cases):
        timesteps, samples = run_reference(case)
        arrays[f"timesteps{i}"], arrays[f"samples{i}"] = timesteps.astype(np.float32), samples
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "schedulers.json").write_text(f"[\n{lines}\n]\n", "utf-8")
    joined = {
        "lengths": np.array([len(arrays[f"timesteps{i}"]) for i in range(len(cases))]),
        "timesteps": np.concatenate([arrays[f"timesteps{i}"] for i in range(len(cases))]),
        "samples": np.concatenate([arrays[f"samples{i}"] for i in range(len(cases))]),
    }
    np.savez_compressed(HERE / "schedulers.npz", **joined)


if __name__ == "__main__":
    main()
