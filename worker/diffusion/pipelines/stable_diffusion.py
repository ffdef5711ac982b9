"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022)."""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from PIL import Image, ImageOps

from worker.diffusion import denoise
from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.denoise import Row
from worker.diffusion.errors import CheckpointError
from worker.diffusion.image import to_array, to_pixels
from worker.diffusion.models.load import load_text_encoder, load_unet, load_vae
from worker.diffusion.noise import draw, make_generator
from worker.diffusion.pipelines.inputs import check_number, check_text, result_size
from worker.diffusion.pipelines.pipeline import Pipeline
from worker.diffusion.tokenizer import Tokenizer

#: A batch repeats its prompts: this many embeddings are kept (0.2 MB each).
EMBEDDINGS_KEPT = 256


class StableDiffusion(Pipeline):
    """Text to image and image to image with one CLIP text encoder and a latent UNet."""

    family = "stable-diffusion"
    class_names = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")

    def __init__(self, checkpoint: Checkpoint, dtype: ms.dtype) -> None:
        super().__init__(checkpoint, dtype)
        # Files of 2022 lack these fields, whose defaults were never meant for latents.
        self.published_scheduler |= {"steps_offset": 1, "clip_sample": False}
        self.tokenizer = Tokenizer.from_pretrained(checkpoint.folder("tokenizer"))
        self.text_encoder = load_text_encoder(checkpoint, dtype)
        self.unet = load_unet(checkpoint, dtype)
        self.vae = load_vae(checkpoint, dtype)
        self.vae_scale_factor = self.vae.config.downscale
        self.default_size = default_size(checkpoint.config("unet"), self.vae_scale_factor)
        if self.unet.config.in_channels != self.vae.config.latent_channels:
            raise CheckpointError(
                f"unet in_channels is {self.unet.config.in_channels}; "
                f"allowed: {self.vae.config.latent_channels}, the vae's latent_channels."
            )
        vocabulary = self.text_encoder.config.vocab_size
        if self.tokenizer.size > vocabulary:
            raise CheckpointError(
                f"the tokenizer has {self.tokenizer.size} tokens, but text_encoder vocab_size "
                f"is {vocabulary}."
            )
        # Not a method of this object: the cache would keep an unloaded pipeline in memory.
        encode = partial(encode_prompt, self.tokenizer, self.text_encoder)
        self.embedding = lru_cache(EMBEDDINGS_KEPT)(encode)

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
    ) -> Row:
        """A row at its start.

        `image` is a picture, a latent [C, h, w] as a run with `output_type="latent"` gives it, or
        None: then `strength` does not matter. A `guidance_scale` of at most 1 means no guidance.
        Without a size the picture's own counts, rounded down to multiples of 8.
        """
        check_text("prompt", prompt)
        check_text("negative_prompt", "" if negative_prompt is None else negative_prompt)
        check_number("guidance_scale", guidance_scale)
        if isinstance(image, Image.Image):
            image = ImageOps.exif_transpose(image)
        channels, scale = self.vae.config.latent_channels, self.vae_scale_factor
        width, height = result_size(
            image, width, height, default=self.default_size, scale=scale, channels=channels
        )
        generator = make_generator(seed)
        plan = self.scheduler(scheduler).plan(
            num_inference_steps, None if image is None else strength
        )

        guided = guidance_scale > 1
        texts = [prompt, negative_prompt or ""] if guided else [prompt]
        embeddings = self.encode_prompts(texts)
        if isinstance(image, Image.Image):
            pixels = to_pixels(image, width, height)
            mean, std = (moment[0] for moment in self.encode_images(pixels[None]))
            latent = (mean + std * draw(generator, mean.shape)) * self.vae.config.scaling_factor
        elif image is None:
            latent = np.zeros((channels, height // scale, width // scale), np.float32)
        else:
            latent = image.astype(np.float32)
        noise = draw(generator, latent.shape)
        return Row(
            latent=plan.start[0] * latent + plan.start[1] * noise,
            plan=plan,
            generator=generator,
            embedding=embeddings[0],
            negative_embedding=embeddings[1] if guided else None,
            guidance_scale=float(guidance_scale),
        )

    def step(self, rows: Sequence[Row]) -> None:
        denoise.step(rows, self.predict)

    def predict(
        self, latents: np.ndarray, timesteps: np.ndarray, contexts: np.ndarray
    ) -> np.ndarray:
        """The UNet's output for a batch of one of the compiled sizes."""
        return host(self.unet(self.device(latents), Tensor(timesteps), self.device(contexts)))

    def encode_prompts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings (n, 77, C), float32."""
        return np.stack([self.embedding(text) for text in texts])

    def encode_images(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (n, C, h, w) of unscaled latents, from pixels in -1..1."""
        moments = [self.vae.encode(self.device(one[None])) for one in pixels]
        mean = np.concatenate([host(mean) for mean, _ in moments])
        logvar = np.concatenate([host(logvar) for _, logvar in moments])
        return mean, np.exp(logvar / 2)

    def decode(self, latent: np.ndarray) -> np.ndarray:
        unscaled = latent[None] / self.vae.config.scaling_factor
        pixels = host(self.vae.decode(self.device(unscaled)))[0]
        if not np.isfinite(pixels).all():
            raise FloatingPointError(
                "the decoded picture holds values that are not finite; "
                "with dtype 'float16' the vae may have overflowed."
            )
        return to_array(pixels)

    def device(self, array: np.ndarray) -> Tensor:
        return Tensor(np.ascontiguousarray(array, dtype=np.float32)).astype(self.dtype)


def encode_prompt(tokenizer: Tokenizer, text_encoder: nn.Cell, text: str) -> np.ndarray:
    """The embedding (77, C) of one text; one at a time, so that one shape is compiled."""
    ids = Tensor(np.array([tokenizer(text)], dtype=np.int32))
    return host(text_encoder(ids))[0]


def host(tensor: Tensor) -> np.ndarray:
    return tensor.astype(ms.float32).asnumpy()


def default_size(unet: Mapping[str, Any], scale: int) -> tuple[int, int]:
    """Width and height that the model was trained for."""
    sample = unet.get("sample_size") or 64
    height, width = sample if isinstance(sample, list) else (sample, sample)
    return width * scale, height * scale
