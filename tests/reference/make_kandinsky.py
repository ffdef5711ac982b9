"""Writes what the reference makes of the tiny Kandinsky 2.2 checkpoints.

`tiny_kandinsky.shapes.json`: the shapes of the weights and the epsilons of the norms;
`kandinsky.npz`: outputs of the models, latents and pictures. Needs diffusers (requirements.txt);
run as `python tests/reference/make_kandinsky.py`. The product's noise takes the place of torch's,
so that both start from the same numbers.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import tiny_kandinsky
from make_pipelines import picture

OUTPUT = Path(__file__).with_name("kandinsky.npz")

BASE = {
    "prompt": "a photo of a cat",
    "num_inference_steps": 6,
    "prior_num_inference_steps": 4,
    "seed": 1,
}
SQUARE, WIDE = {"width": 64, "height": 64}, {"width": 128, "height": 64}
IMAGE = {"image": (64, 64), **SQUARE, "strength": 0.5}

#: Arguments of each run over BASE; `image` is the size of a drawn picture.
CASES: dict[str, dict[str, Any]] = {
    "text": {**SQUARE},
    "text_wide": {**WIDE, "seed": 2**40},
    "text_negative": {**SQUARE, "negative_prompt": "low, blue sea"},
    "text_empty_negative": {**SQUARE, "negative_prompt": ""},
    "text_unguided": {**SQUARE, "guidance_scale": 1.0},
    "text_prior_unguided": {**SQUARE, "prior_guidance_scale": 1.0},
    "text_both_unguided": {
        **SQUARE,
        "guidance_scale": 1.0,
        "prior_guidance_scale": 1.0,
        "negative_prompt": "low",
    },
    "text_ddim": {**SQUARE, "scheduler": "DDIMScheduler"},
    "image_05": {**IMAGE},
    "image_default_strength": {"image": (64, 64), **SQUARE},
    "image_10": {**IMAGE, "strength": 1.0},
    "image_negative": {**IMAGE, "negative_prompt": "low, blue sea", "guidance_scale": 7.0},
    "image_resized": {**IMAGE, "image": (150, 100), **WIDE},
    "image_enlarged": {**IMAGE, "image": (30, 50)},
}
#: Runs whose latent is kept too.
LATENTS = ("text_negative", "image_05")


def arguments(case: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the product's pipeline for one case."""
    if "image" in case:
        case = {**case, "image": picture(*case["image"])}
    return {**BASE, **case}


def inputs() -> dict[str, tuple[np.ndarray, ...]]:
    """What each model is given, by the name of its output."""
    mask = np.zeros((2, 77), np.float32)
    mask[0, :9] = 1
    mask[1] = 1
    ids = np.random.Generator(np.random.Philox(1)).integers(0, 576, (2, 77), dtype=np.int32)
    ids[0, 20:], ids[1, 76] = 576, 576
    return {
        "unet": (
            tiny.normal("kandinsky latents", (2, 4, 8, 16)),
            np.float32([999, 37]),
            tiny.normal("kandinsky image", (2, 32)),
        ),
        "prior": (
            tiny.normal("prior noisy", (2, 32)),
            np.float32([999, 37]),
            tiny.normal("prior states", (2, 77, 32)),
            tiny.normal("prior text", (2, 32)),
            mask,
        ),
        "image_encoder": (tiny.normal("vision pixels", (2, 3, 28, 28)),),
        "text": (ids,),
        "movq_encode": (tiny.normal("movq pixels", (1, 3, 64, 48)),),
        "movq_decode": (tiny.normal("movq latents", (1, 4, 8, 6)),),
    }


def main() -> None:
    write_architecture()
    with tempfile.TemporaryDirectory() as temporary:
        prior = tiny_kandinsky.write_prior(Path(temporary, "prior"))
        decoder = tiny_kandinsky.write_decoder(Path(temporary, "decoder"), prior)
        text, image = reference_pipelines(decoder, prior)
        arrays = model_outputs(text)
        for name, case in CASES.items():
            pipe = image if "image" in case else text
            result = run(pipe, arguments(case), "np")
            arrays[name] = result.astype(np.float16)
            if name in LATENTS:
                arrays[f"{name}_latent"] = run(pipe, arguments(case), "latent")
    for name, array in arrays.items():
        print(f"{name}: shape {array.shape}, mean {array.mean():.3f}, std {array.std():.3f}")
    np.savez_compressed(OUTPUT, **arrays)


def write_architecture() -> None:
    """The shapes of the weights, and the epsilon of each norm."""
    import torch
    from diffusers import PriorTransformer, UNet2DConditionModel, VQModel
    from make_models import write_tables
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    models = {
        "unet": UNet2DConditionModel.from_config(tiny_kandinsky.UNET),
        "movq": VQModel.from_config(tiny_kandinsky.MOVQ),
        "prior": PriorTransformer.from_config(tiny_kandinsky.PRIOR),
        "text_encoder": CLIPTextModelWithProjection(CLIPTextConfig(**tiny_kandinsky.TEXT_ENCODER)),
        "image_encoder": CLIPVisionModelWithProjection(
            CLIPVisionConfig(**tiny_kandinsky.IMAGE_ENCODER)
        ),
    }
    shapes = {
        name: {key: list(value.shape) for key, value in model.state_dict().items()}
        for name, model in models.items()
    }
    norms = (torch.nn.GroupNorm, torch.nn.LayerNorm)
    epsilons = {
        f"{name} epsilons": {
            path: norm.eps for path, norm in model.named_modules() if isinstance(norm, norms)
        }
        for name, model in models.items()
    }
    write_tables(tiny_kandinsky.SHAPES, shapes | epsilons)


def reference_pipelines(decoder: Path, prior: Path) -> tuple[Any, Any]:
    """The reference's combined pipelines, without and with an image, with the product's noise."""
    import torch
    from diffusers import (
        KandinskyV22CombinedPipeline,
        KandinskyV22Img2ImgCombinedPipeline,
        KandinskyV22Pipeline,
        KandinskyV22PriorPipeline,
    )
    from diffusers.pipelines.kandinsky2_2 import (
        pipeline_kandinsky2_2,
        pipeline_kandinsky2_2_img2img,
        pipeline_kandinsky2_2_prior,
    )
    from diffusers.schedulers import scheduling_ddpm, scheduling_unclip

    def randn_tensor(shape: Any, generator: np.random.Generator, **_: Any) -> torch.Tensor:
        return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))

    for module in (
        pipeline_kandinsky2_2,
        pipeline_kandinsky2_2_img2img,
        pipeline_kandinsky2_2_prior,
        scheduling_ddpm,
        scheduling_unclip,
    ):
        module.randn_tensor = randn_tensor
    parts = KandinskyV22Pipeline.from_pretrained(decoder).components
    parts |= {
        f"prior_{name}": part
        for name, part in KandinskyV22PriorPipeline.from_pretrained(prior).components.items()
    }
    pipes = KandinskyV22CombinedPipeline(**parts), KandinskyV22Img2ImgCombinedPipeline(**parts)
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
    return pipes


def model_outputs(pipe: Any) -> dict[str, np.ndarray]:
    import torch

    given = {
        name: [torch.from_numpy(array) for array in arrays] for name, arrays in inputs().items()
    }
    with torch.no_grad():
        latents, timesteps, image = given["unet"]
        noisy, steps, states, text, mask = given["prior"]
        texts = pipe.prior_text_encoder(given["text"][0].long())
        outputs = {
            "unet": pipe.unet(
                latents, timesteps, None, added_cond_kwargs={"image_embeds": image}
            ).sample,
            "prior": pipe.prior_prior(
                noisy, steps, text, states, mask.bool()
            ).predicted_image_embedding,
            "image_encoder": pipe.prior_image_encoder(given["image_encoder"][0]).image_embeds,
            "text_states": texts.last_hidden_state,
            "text_embeds": texts.text_embeds,
            "movq_encode": pipe.movq.encode(given["movq_encode"][0]).latents,
            "movq_decode": pipe.movq.decode(
                given["movq_decode"][0], force_not_quantize=True
            ).sample,
        }
        outputs["image_embedding"] = pipe.prior_prior.post_process_latents(outputs["prior"])
    return {name: output.numpy() for name, output in outputs.items()}


def run(pipe: Any, given: dict[str, Any], output_type: str) -> np.ndarray:
    """What the reference makes of the product's arguments: a picture or a latent."""
    generator = np.random.Generator(np.random.Philox(given.pop("seed")))
    if "image" in given:
        # The reference hands its resizing the one for the other.
        given["width"], given["height"] = given["height"], given["width"]
    published = pipe.decoder_pipe.scheduler
    pipe.decoder_pipe.scheduler = scheduler(published, given.pop("scheduler", None))
    result = pipe(**given, generator=generator, output_type=output_type).images[0]
    pipe.decoder_pipe.scheduler = published
    return np.asarray(result)


def scheduler(published: Any, name: str | None) -> Any:
    """The scheduler of that class; the pipeline asks its configuration for a learned variance."""
    import diffusers

    if name is None:
        return published
    fields = {k: v for k, v in published.config.items() if k != "variance_type"}
    return getattr(diffusers, name).from_config(fields)


if __name__ == "__main__":
    main()
