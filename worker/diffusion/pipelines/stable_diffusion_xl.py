"""Stable Diffusion XL (Podell et al. 2023, https://arxiv.org/abs/2307.01952), base and refiner."""

from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from PIL import Image

from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.denoise import Row
from worker.diffusion.errors import CheckpointError, PipelineInputError
from worker.diffusion.models.clip_text import ClipTextModel, ClipTextModelWithProjection
from worker.diffusion.models.load import load_text_encoder
from worker.diffusion.noise import draw, make_generator
from worker.diffusion.pipelines.inputs import check_number, check_text
from worker.diffusion.pipelines.latent_diffusion import LatentDiffusion
from worker.diffusion.pipelines.prompts import PromptEncoder, host


class StableDiffusionXL(LatentDiffusion):
    """Text to image and image to image with one text encoder (the refiner) or two (the base).

    The UNet is told the size of the picture as well, and where the checkpoint
    `requires_aesthetics_score`, as the refiner does, how the picture would be rated. No watermark
    is laid into pictures.
    """

    family = "stable-diffusion-xl"
    class_names = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline")

    def __init__(self, checkpoint: Checkpoint, dtype: ms.dtype) -> None:
        super().__init__(checkpoint, dtype)
        self.zeros_for_no_prompt = bool(checkpoint.index.get("force_zeros_for_empty_prompt", True))
        self.takes_score = bool(checkpoint.index.get("requires_aesthetics_score", False))
        forms = {"": ClipTextModel, "_2": ClipTextModelWithProjection}
        self.prompt_encoders = [
            PromptEncoder(
                checkpoint.tokenizer(f"tokenizer{suffix}"),
                load_text_encoder(
                    checkpoint, dtype, f"text_encoder{suffix}", form, penultimate=True
                ),
                f"text_encoder{suffix}",
            )
            for suffix, form in forms.items()
            if suffix or "text_encoder" in checkpoint.components
        ]
        self.check_added()

    def check_added(self) -> None:
        """Raises CheckpointError where the UNet takes other numbers than are given to it here."""
        config = self.unet.config
        count = len(self.time_ids((8, 8), 0.0))
        pooled = self.prompt_encoders[-1].text_encoder.config.projection_dim
        given = pooled + count * config.addition_time_embed_dim
        taken = config.projection_class_embeddings_input_dim if self.unet.adds else 0
        if taken != given:
            raise CheckpointError(
                f"unet projection_class_embeddings_input_dim is {taken}; allowed: {given}, since "
                f"model_index.json says requires_aesthetics_score {self.takes_score}."
            )

    def prepare(
        self,
        prompt: str,
        image: Image.Image | np.ndarray | None = None,
        *,
        negative_prompt: str | None = None,
        strength: float = 0.3,
        num_inference_steps: int = 50,
        guidance_scale: float = 5.0,
        seed: int = 0,
        width: int | None = None,
        height: int | None = None,
        scheduler: str | Mapping[str, Any] | None = None,
        aesthetic_score: float | None = None,
        negative_aesthetic_score: float | None = None,
        denoising_start: float | None = None,
        denoising_end: float | None = None,
        prompt_weighting: bool = False,
    ) -> Row:
        """A row at its start.

        `image` is a picture, a latent [C, h, w] as a run with `output_type="latent"` gives it, or
        None: then `strength` does not matter. A `guidance_scale` of at most 1 means no guidance.
        Without a size the picture's own counts, rounded down to multiples of 8. The scores, 6 and
        2.5, belong to a checkpoint that `requires_aesthetics_score`. `negative_prompt` None is what
        the checkpoint was trained with as no text at all, which "" need not be. With
        `prompt_weighting` both prompts may hold weights such as `(word:1.3)`.

        A run with `denoising_end` leaves a latent that is still noisy. Another one goes on from it
        with the same number as its `denoising_start`, and with the same kind of scheduler; its
        `strength` does not matter then.
        """
        check_text("prompt", prompt)
        check_text("negative_prompt", "" if negative_prompt is None else negative_prompt)
        check_number("guidance_scale", guidance_scale)
        score = self.score("aesthetic_score", aesthetic_score, 6.0)
        negative_score = self.score("negative_aesthetic_score", negative_aesthetic_score, 2.5)
        image = self.upright(image)
        if image is None and (self.takes_score or denoising_start is not None):
            reason = "this model refines pictures" if self.takes_score else "denoising_start is set"
            raise PipelineInputError(f"image is None, but {reason}; give it an image.")
        size = self.size(image, width, height)
        generator = make_generator(seed)
        plan = self.scheduler(scheduler).plan(
            num_inference_steps,
            None if image is None else strength,
            denoising_start,
            denoising_end,
        )
        conditions = [(*self.encode(prompt, prompt_weighting), self.time_ids(size, score))]
        if guidance_scale > 1:
            unwanted = self.encode(negative_prompt, prompt_weighting)
            conditions.insert(0, (*unwanted, self.time_ids(size, negative_score)))
        latent = plan.start[0] * self.clean_latent(image, size, generator)
        if plan.start[1]:
            latent = latent + plan.start[1] * draw(generator, latent.shape)
        return Row(
            latent=latent,
            plan=plan,
            generator=generator,
            conditions=tuple(conditions),
            guidance_scale=float(guidance_scale),
        )

    def score(self, name: str, given: float | None, default: float) -> float:
        if given is None:
            return default
        check_number(name, given)
        if not self.takes_score:
            raise PipelineInputError(f"{name} is {given!r}, but this model knows no such score.")
        return given

    def encode(self, text: str | None, weighted: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """A text's embeddings (77, c) of all encoders side by side, and the last one's pooled."""
        outputs = [encoder(text or "", weighted) for encoder in self.prompt_encoders]
        context, pooled = np.concatenate([o[0] for o in outputs], axis=-1), outputs[-1][1]
        if text is None and self.zeros_for_no_prompt:
            return np.zeros_like(context), np.zeros_like(pooled)
        return context, pooled

    def time_ids(self, size: tuple[int, int], score: float) -> np.ndarray:
        """What the UNet is told of a picture: its size, uncropped, and its score or size again."""
        width, height = size
        last = (score,) if self.takes_score else (height, width)
        return np.array([height, width, 0, 0, *last], np.float32)

    def predict(
        self, latents: np.ndarray, timesteps: np.ndarray, *condition: np.ndarray
    ) -> np.ndarray:
        context, pooled, time_ids = condition
        # Numbers stay float32, as timesteps do: half precision would round them.
        numbers = Tensor(timesteps), self.device(context), self.device(pooled), Tensor(time_ids)
        return host(self.unet(self.device(latents), *numbers))

    def cut_off(self, text: str, prompt_weighting: bool = False) -> str:
        return self.prompt_encoders[-1].cut_off(text, prompt_weighting)
