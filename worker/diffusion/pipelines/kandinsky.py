"""Kandinsky 2.2 (https://arxiv.org/abs/2310.03502)."""

from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from PIL import Image

from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.denoise import Condition, Row, Stage
from worker.diffusion.errors import CheckpointError
from worker.diffusion.layout import PRIOR
from worker.diffusion.models.load import load_kandinsky_unet, load_movq
from worker.diffusion.noise import draw, make_generator
from worker.diffusion.pipelines.inputs import check_number, check_text, result_size
from worker.diffusion.pipelines.kandinsky_prior import KandinskyPrior
from worker.diffusion.pipelines.latent_diffusion import default_size
from worker.diffusion.pipelines.pipeline import Pipeline
from worker.diffusion.pipelines.prompts import host


class Kandinsky(Pipeline):
    """Text to image and image to image in two stages: a prior, and a decoder told of its result.

    A row begins in the prior, whose steps count as its own, and goes on in the decoder.
    """

    family = "kandinsky"
    resampling: Mapping[str, Any] = {"resample": Image.Resampling.BICUBIC, "reducing_gap": 1}
    class_names = (
        "KandinskyV22Pipeline",
        "KandinskyV22Img2ImgPipeline",
        "KandinskyV22CombinedPipeline",
        "KandinskyV22Img2ImgCombinedPipeline",
    )

    def __init__(self, checkpoint: Checkpoint, dtype: ms.dtype) -> None:
        super().__init__(checkpoint, dtype)
        self.checkpoint = checkpoint
        self.prior = load_prior(checkpoint, dtype)
        self.prompt_encoders = [self.prior.encode_prompt]
        self.unet = load_kandinsky_unet(checkpoint, dtype)
        self.movq = load_movq(checkpoint, dtype)
        self.vae_scale_factor = self.movq.config.downscale
        self.default_size = default_size(checkpoint.config("unet"), self.vae_scale_factor)
        unet, channels = self.unet.config, self.movq.config.latent_channels
        for field, value, allowed in (
            ("unet in_channels", unet.in_channels, channels),
            ("unet out_channels", unet.out_channels, 2 * channels),
            ("unet encoder_hid_dim", unet.encoder_hid_dim, self.prior.channels),
            ("image_encoder projection_dim", len(self.prior.nothing), self.prior.channels),
        ):
            if value != allowed:
                raise CheckpointError(
                    f"{field} is {value}; allowed: {allowed}, to go with the movq and the prior."
                )

    def prepare(
        self,
        prompt: str,
        image: Image.Image | np.ndarray | None = None,
        *,
        negative_prompt: str | None = None,
        strength: float = 0.3,
        num_inference_steps: int = 100,
        guidance_scale: float = 4.0,
        prior_guidance_scale: float = 4.0,
        prior_num_inference_steps: int = 25,
        seed: int = 0,
        width: int | None = None,
        height: int | None = None,
        scheduler: str | Mapping[str, Any] | None = None,
    ) -> Row:
        """A row at its start.

        `image` is a picture, a latent [C, h, w] as a run with `output_type="latent"` gives it, or
        None: then `strength` does not matter. A guidance scale of at most 1 means no guidance.
        Without a size the picture's own counts, rounded down to multiples of 64. Without a
        `negative_prompt` the decoder is led away from the image of nothing, and with one, which ""
        is too, from what the prior makes of it. `scheduler` is the decoder's.
        """
        check_text("prompt", prompt)
        check_text("negative_prompt", "" if negative_prompt is None else negative_prompt)
        check_number("guidance_scale", guidance_scale)
        check_number("prior_guidance_scale", prior_guidance_scale)
        image = self.upright(image)
        size = self.size(image, width, height)
        generator = make_generator(seed)
        plan = self.scheduler(scheduler).plan(
            num_inference_steps, None if image is None else strength
        )
        clean = self.clean_latent(image, size)

        def decoder(
            embeddings: np.ndarray, generator: np.random.Generator
        ) -> tuple[np.ndarray, tuple[Condition, ...]]:
            noise = draw(generator, clean.shape)
            wanted, *unwanted = self.prior.image_embedding(embeddings)
            conditions = ((unwanted[0] if unwanted else self.prior.nothing,), (wanted,))
            latent = plan.start[0] * clean + plan.start[1] * noise
            return latent, conditions if guidance_scale > 1 else conditions[1:]

        return self.prior.begin(
            [prompt] if negative_prompt is None else [prompt, negative_prompt],
            negative_prompt or "",
            prior_num_inference_steps,
            prior_guidance_scale,
            generator,
            then=Stage(plan, float(guidance_scale), clean.shape, decoder),
        )

    @property
    def models(self) -> list[nn.Cell]:
        prior = self.prior
        cells = [prior.prior, prior.encode_prompt.text_encoder]
        return [*cells, self.unet, self.movq.encoder, self.movq.decoder]

    def predict(
        self, latents: np.ndarray, timesteps: np.ndarray, *condition: np.ndarray
    ) -> np.ndarray:
        """Rows of both stages share a step, and their latents' form tells which model is asked."""
        if latents.ndim == 3:
            return self.prior.predict(latents, timesteps, *condition)
        (image,) = condition
        return host(self.unet(self.device(latents), Tensor(timesteps), self.device(image)))

    def cut_off(self, text: str, prompt_weighting: bool = False) -> str:
        return self.prior.encode_prompt.cut_off(text)

    def size(self, image: Any, width: int | None, height: int | None) -> tuple[int, int]:
        """Width and height of the result. Raises PipelineInputError for what cannot be."""
        return result_size(
            image,
            width,
            height,
            default=self.default_size,
            scale=self.vae_scale_factor,
            channels=self.movq.config.latent_channels,
            multiple=self.vae_scale_factor * self.unet.config.downscale,
        )

    def clean_latent(self, image: Any, size: tuple[int, int]) -> np.ndarray:
        """The latent (C, h, w) that a run begins from: a picture's, one given, or zeros."""
        width, height = size
        if isinstance(image, Image.Image):
            return self.encode_picture(image, size)[0]
        if image is None:
            scale, channels = self.vae_scale_factor, self.movq.config.latent_channels
            return np.zeros((channels, height // scale, width // scale), np.float32)
        return image.astype(np.float32)

    def encode_pixels(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        """Latents (n, C, h, w)."""
        latents = host(self.movq.encode(Tensor(pixels)))
        self.previewer.learn(latents[0], pixels[0])
        return (latents,)

    def decode_latents(self, latents: np.ndarray) -> np.ndarray:
        pixels = host(self.movq.decode(Tensor(latents)))
        if self.movq.dtype != ms.float32 and not np.isfinite(pixels).all():
            # Half precision overflowed: in float32 from now on.
            self.movq = load_movq(self.checkpoint)
            pixels = host(self.movq.decode(Tensor(latents)))
        self.previewer.learn(latents[0], pixels[0])
        return pixels


def load_prior(checkpoint: Checkpoint, dtype: ms.dtype) -> KandinskyPrior:
    """The prior that is a part of the checkpoint, or that belongs to it."""
    if checkpoint.prior is None:
        if f"{PRIOR}prior" in checkpoint.components:
            return KandinskyPrior(checkpoint, dtype, PRIOR)
        raise CheckpointError(
            f"{checkpoint.path} is the decoder of Kandinsky 2.2 and names no prior: say which with "
            "prior=, a folder or a repository, or with the entry `prior:` in the front matter of "
            "its README.md."
        )
    if "prior" not in checkpoint.prior.components:
        name = checkpoint.prior.index.get("_class_name")
        raise CheckpointError(f"prior {checkpoint.prior.path} is made for {name}, and no prior.")
    return KandinskyPrior(checkpoint.prior, dtype)
