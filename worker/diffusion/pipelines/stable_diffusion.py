"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022)."""

from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
from PIL import Image

from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.denoise import Row
from worker.diffusion.models.load import load_text_encoder
from worker.diffusion.noise import draw, make_generator
from worker.diffusion.pipelines.inputs import check_number, check_text
from worker.diffusion.pipelines.latent_diffusion import LatentDiffusion
from worker.diffusion.pipelines.prompts import PromptEncoder


class StableDiffusion(LatentDiffusion):
    """Text to image and image to image with one CLIP text encoder and a latent UNet."""

    family = "stable-diffusion"
    class_names = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")

    def __init__(self, checkpoint: Checkpoint, dtype: ms.dtype) -> None:
        super().__init__(checkpoint, dtype)
        # Files of 2022 lack these fields, whose defaults were never meant for latents.
        self.published_scheduler |= {"steps_offset": 1, "clip_sample": False}
        self.encode_prompt = PromptEncoder(
            checkpoint.tokenizer("tokenizer"),
            load_text_encoder(checkpoint, dtype),
            "text_encoder",
        )
        self.prompt_encoders = [self.encode_prompt]

    def prepare(
        self,
        prompt: str,
        image: Image.Image | np.ndarray | None = None,
        *,
        negative_prompt: str | None = None,
        strength: float = 0.8,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        seed: int = 0,
        width: int | None = None,
        height: int | None = None,
        scheduler: str | Mapping[str, Any] | None = None,
        prompt_weighting: bool = False,
    ) -> Row:
        """A row at its start.

        `image` is a picture, a latent [C, h, w] as a run with `output_type="latent"` gives it, or
        None: then `strength` does not matter. A `guidance_scale` of at most 1 means no guidance.
        Without a size the picture's own counts, rounded down to multiples of 8. With
        `prompt_weighting` both prompts may hold weights such as `(word:1.3)`.
        """
        check_text("prompt", prompt)
        check_text("negative_prompt", "" if negative_prompt is None else negative_prompt)
        check_number("guidance_scale", guidance_scale)
        image = self.upright(image)
        size = self.size(image, width, height)
        generator = make_generator(seed)
        plan = self.scheduler(scheduler).plan(
            num_inference_steps, None if image is None else strength
        )
        guided = guidance_scale > 1
        texts = [negative_prompt or "", prompt] if guided else [prompt]
        conditions = tuple(self.encode_prompt(text, prompt_weighting) for text in texts)
        latent = self.clean_latent(image, size, generator)
        noise = draw(generator, latent.shape)
        return Row(
            latent=plan.start[0] * latent + plan.start[1] * noise,
            plan=plan,
            generator=generator,
            conditions=conditions,
            guidance_scale=float(guidance_scale),
        )

    def cut_off(self, text: str, prompt_weighting: bool = False) -> str:
        return self.encode_prompt.cut_off(text, prompt_weighting)
