"""Writes what the reference makes of the tiny SDXL checkpoints.

`tiny_sdxl.shapes.json`: the shapes of the weights; `sdxl.npz`: outputs of the models, pictures
(float16) and latents. Run in the reference environment of `requirements.txt`:
python tests/reference/make_sdxl.py
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import tiny_sdxl
from make_pipelines import ODD, SQUARE, as_reference_takes_it, latent, other_scheduler, picture

OUTPUT = Path(__file__).with_name("sdxl.npz")

BASE = {"prompt": "a photo of a cat!", "num_inference_steps": 5, "seed": 1}
DDIM, DPM = "DDIMScheduler", "DPMSolverMultistepScheduler"
IMAGE = {"image": (64, 64)}

#: Arguments of each run over BASE, by the checkpoint that it is of; the result is a picture.
PICTURES: dict[str, dict[str, dict[str, Any]]] = {
    "base": {
        "text": {**SQUARE},
        "text_empty_negative": {**SQUARE, "negative_prompt": ""},
        "text_negative": {**SQUARE, "negative_prompt": "low, blue sea!", "guidance_scale": 7.5},
        "text_unguided": {**SQUARE, "guidance_scale": 1.0},
        "text_odd_size": {**ODD, "scheduler": DDIM, "seed": 2**40},
        "image": {**IMAGE, "strength": 0.6},
        "image_odd_size": {"image": (79, 63), "strength": 0.6, "scheduler": DPM},
    },
    "refiner": {
        "refined": {**IMAGE, "num_inference_steps": 10},
        "refined_otherwise": {
            "image": "latent",
            "strength": 0.8,
            "aesthetic_score": 8.0,
            "negative_aesthetic_score": 1.5,
            "negative_prompt": "oil painting",
        },
    },
}

#: The same; the result is a latent.
LATENTS: dict[str, dict[str, dict[str, Any]]] = {
    "base": {
        "image_ended": {
            **IMAGE,
            "strength": 0.8,
            "denoising_end": 0.6,
            "num_inference_steps": 10,
        },
        "odd_size": {**ODD, "num_inference_steps": 2},
        "middle": {
            "image": "latent",
            "denoising_start": 0.3,
            "denoising_end": 0.7,
            "num_inference_steps": 10,
            "scheduler": DPM,
        },
    },
    "refiner": {
        "picture_without_noise": {
            **IMAGE,
            "denoising_start": 0.5,
            "scheduler": "EulerAncestralDiscreteScheduler",
        },
    },
}

#: The base ends where the refiner begins: the share of the way, and the scheduler of both.
HAND_OVERS: dict[str, tuple[float, Any]] = {
    "euler_80": (0.8, None),
    "euler_65": (0.65, None),
    "euler_25": (0.25, None),
    "euler_linspace": (0.7, {"class": "EulerDiscreteScheduler", "timestep_spacing": "linspace"}),
    "euler_karras": (0.6, {"class": "EulerDiscreteScheduler", "use_karras_sigmas": True}),
    "euler_trailing": (0.8, {"class": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}),
    "ddim_80": (0.8, DDIM),
    "ddim_45": (0.45, DDIM),
    "dpm_80": (0.8, DPM),
    "dpm_35": (0.35, DPM),
    "dpm_karras": (0.6, {"class": DPM, "use_karras_sigmas": True}),
    "heun_80": (0.8, "HeunDiscreteScheduler"),
    "heun_50": (0.5, "HeunDiscreteScheduler"),
    "unipc": (0.65, "UniPCMultistepScheduler"),
    "pndm": (0.7, "PNDMScheduler"),
    "ancestral": (0.7, "EulerAncestralDiscreteScheduler"),
}


def arguments(case: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the product's pipeline for one case."""
    image = case.get("image")
    if image is not None:
        case = {**case, "image": latent() if image == "latent" else picture(*image)}
    return {**BASE, **case}


def hand_over(share: float, scheduler: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of the base and those of the refiner, which also takes the base's latent."""
    both = {**BASE, "num_inference_steps": 10, "scheduler": scheduler}
    return {**both, **SQUARE, "denoising_end": share}, {**both, "denoising_start": share}


def main() -> None:
    from make_models import write_tables

    shapes = {
        name: {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
        for name, model in reference_models().items()
    }
    write_tables(tiny_sdxl.SHAPES, shapes)
    arrays = model_outputs()
    with tempfile.TemporaryDirectory() as folder:
        base = tiny_sdxl.write_base(Path(folder) / "base")
        refiner = tiny_sdxl.write_refiner(Path(folder) / "refiner")
        pipes = reference_pipelines(base, refiner)
    for name, cases in PICTURES.items():
        for case, given in cases.items():
            arrays[case] = run(pipes, name, arguments(given), "np").astype(np.float16)
    for name, cases in LATENTS.items():
        for case, given in cases.items():
            arrays[case] = run(pipes, name, arguments(given), "latent")
    for case, (share, scheduler) in HAND_OVERS.items():
        first, second = hand_over(share, scheduler)
        handed = run(pipes, "base", first, "latent")
        arrays[f"{case}_base"] = handed
        arrays[f"{case}_refiner"] = run(pipes, "refiner", {**second, "image": handed}, "latent")
    np.savez_compressed(OUTPUT, **arrays)


def reference_models() -> dict[str, Any]:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return {
        "base_unet": UNet2DConditionModel.from_config(tiny_sdxl.UNET).eval(),
        "refiner_unet": UNet2DConditionModel.from_config(tiny_sdxl.REFINER_UNET).eval(),
        "vae": AutoencoderKL.from_config(tiny_sdxl.VAE).eval(),
        "text_encoder": reference_text_encoder(),
        "text_encoder_2": CLIPTextModelWithProjection(
            CLIPTextConfig(**tiny_sdxl.TEXT_ENCODER_2)
        ).eval(),
    }


def reference_text_encoder() -> Any:
    """CLIPTextModel under the names that are published, which transformers 5 cut short."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    model = CLIPTextModel(CLIPTextConfig(**tiny_sdxl.TEXT_ENCODER)).eval()
    if any(key.startswith("text_model.") for key in model.state_dict()):
        return model
    holder = torch.nn.Module()
    holder.text_model = model
    return holder


def model_outputs() -> dict[str, np.ndarray]:
    """The outputs of the models with the drawn weights."""
    import torch

    models = reference_models()
    for name, model in models.items():
        weights = tiny_sdxl.weights(name)
        model.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    arrays = {}
    with torch.no_grad():
        for name in ("base_unet", "refiner_unet"):
            latents, timesteps, context, pooled, time_ids = map(torch.from_numpy, unet_inputs(name))
            added = {"text_embeds": pooled, "time_ids": time_ids}
            output = models[name](latents, timesteps, context, added_cond_kwargs=added)
            arrays[name] = output.sample.numpy()
        ids = torch.from_numpy(text_ids().astype(np.int64))
        first = models["text_encoder"]
        states = getattr(first, "text_model", first)(ids, output_hidden_states=True)
        arrays["text_encoder"] = states.hidden_states[-2].numpy()
        second = models["text_encoder_2"]
        outputs = second(ids, output_hidden_states=True)
        arrays["text_encoder_2"] = outputs.hidden_states[-2].numpy()
        arrays["pooled_at_largest"] = outputs.text_embeds.numpy()
        second.text_model.eos_token_id = END
        arrays["pooled_at_end"] = second(ids).text_embeds.numpy()
    return arrays


#: An end token that is not the largest id.
END = 300


def text_ids() -> np.ndarray:
    """Two texts, each with the end token and the largest id at different places, twice each."""
    ids = np.random.Generator(np.random.Philox(1)).integers(0, 300, (2, 77))
    ids[0, [5, 60]], ids[0, [20, 21]] = END, 576
    ids[1, [70, 71]], ids[1, [3, 9]] = END, 400
    return ids.astype(np.int32)


def unet_inputs(name: str) -> tuple[np.ndarray, ...]:
    """Latents, timesteps, contexts, pooled texts and time ids of two unlike rows."""
    config = tiny_sdxl.MODELS[name][1]
    numbers = (config["projection_class_embeddings_input_dim"] - 40) // 8
    time_ids = np.float32([[1024, 768, 0, 0, 1024, 768], [64, 72, 8, 16, 4.5, 2.5]])[:, -numbers:]
    return (
        tiny.normal(name, (2, 4, 8, 8)),
        np.float32([999, 37]),
        tiny.normal(f"{name} context", (2, 77, config["cross_attention_dim"])),
        tiny.normal(f"{name} pooled", (2, 40)),
        np.ascontiguousarray(time_ids),
    )


def reference_pipelines(base: Path, refiner: Path) -> dict[tuple[str, bool], Any]:
    """The reference's pipelines by checkpoint and whether they take an image."""
    import torch
    from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
    from diffusers.models.autoencoders import vae
    from diffusers.pipelines.stable_diffusion_xl import (
        pipeline_stable_diffusion_xl,
        pipeline_stable_diffusion_xl_img2img,
    )
    from diffusers.schedulers import scheduling_euler_ancestral_discrete

    def randn_tensor(shape: Any, generator: np.random.Generator, **_: Any) -> torch.Tensor:
        return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))

    for module in (
        vae,
        pipeline_stable_diffusion_xl,
        pipeline_stable_diffusion_xl_img2img,
        scheduling_euler_ancestral_discrete,
    ):
        module.randn_tensor = randn_tensor
    text = StableDiffusionXLPipeline.from_pretrained(base, add_watermarker=False)
    parts = {k: v for k, v in text.components.items() if not isinstance(v, bool)}
    pipes = {
        ("base", False): text,
        ("base", True): StableDiffusionXLImg2ImgPipeline(**parts, add_watermarker=False),
        ("refiner", True): StableDiffusionXLImg2ImgPipeline.from_pretrained(
            refiner, add_watermarker=False
        ),
    }
    for pipe in pipes.values():
        pipe.set_progress_bar_config(disable=True)
    return pipes


def run(pipes: Any, name: str, given: dict[str, Any], output_type: str) -> np.ndarray:
    """What the reference makes of the product's arguments: a picture or a latent."""
    given = dict(given)
    pipe = pipes[name, "image" in given]
    published = pipe.scheduler
    pipe.scheduler = other_scheduler(published, given.pop("scheduler", None))
    generator = np.random.Generator(np.random.Philox(given.pop("seed")))
    if "image" in given:
        size = given.pop("width", None), given.pop("height", None)
        given["image"] = as_reference_takes_it(given["image"], size)
    result = pipe(**given, generator=generator, output_type=output_type).images[0]
    pipe.scheduler = published
    return np.asarray(result)


if __name__ == "__main__":
    main()
