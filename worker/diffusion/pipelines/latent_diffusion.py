"""What the families share whose UNet works on the latents of a KL autoencoder."""

from collections.abc import Callable, Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from PIL import Image

from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.errors import CheckpointError
from worker.diffusion.models.load import load_unet, load_vae
from worker.diffusion.models.vae import Vae
from worker.diffusion.noise import draw
from worker.diffusion.pipelines.inputs import result_size
from worker.diffusion.pipelines.pipeline import Pipeline
from worker.diffusion.pipelines.prompts import host, hosts


class LatentDiffusion(Pipeline):
    """Latent diffusion (Rombach et al. 2022): a UNet between an encoder and a decoder."""

    def __init__(self, checkpoint: Checkpoint, dtype: ms.dtype) -> None:
        super().__init__(checkpoint, dtype)
        self.checkpoint = checkpoint
        self.unet = load_unet(checkpoint, dtype)
        self.vae = load_vae(checkpoint, dtype)
        self.vae_scale_factor = self.vae.config.downscale
        self.default_size = default_size(checkpoint.config("unet"), self.vae_scale_factor)
        if self.unet.config.in_channels != self.vae.config.latent_channels:
            raise CheckpointError(
                f"unet in_channels is {self.unet.config.in_channels}; "
                f"allowed: {self.vae.config.latent_channels}, the vae's latent_channels."
            )

    @property
    def models(self) -> list[nn.Cell]:
        encoders = [encoder.text_encoder for encoder in self.prompt_encoders]
        return [self.unet, self.vae.encoder, self.vae.decoder, *encoders]

    def predict(
        self, latents: np.ndarray, timesteps: np.ndarray, *condition: np.ndarray
    ) -> np.ndarray:
        """The UNet's output for a batch of one of the compiled sizes."""
        arrays = (self.device(array) for array in condition)
        return host(self.unet(self.device(latents), Tensor(timesteps), *arrays))

    def size(self, image: Any, width: int | None, height: int | None) -> tuple[int, int]:
        """Width and height of the result. Raises PipelineInputError for what cannot be."""
        channels = self.vae.config.latent_channels
        return result_size(
            image,
            width,
            height,
            default=self.default_size,
            scale=self.vae_scale_factor,
            channels=channels,
        )

    def clean_latent(
        self, image: Any, size: tuple[int, int], generator: np.random.Generator
    ) -> np.ndarray:
        """The scaled latent (C, h, w) that a run begins from: a picture's, one given, or zeros."""
        width, height = size
        if isinstance(image, Image.Image):
            mean, std = self.encode_picture(image, size)
            return (mean + std * draw(generator, mean.shape)) * self.vae.config.scaling_factor
        if image is None:
            scale, channels = self.vae_scale_factor, self.vae.config.latent_channels
            return np.zeros((channels, height // scale, width // scale), np.float32)
        return image.astype(np.float32)

    def encode_pixels(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        """Mean and standard deviation (n, C, h, w) of unscaled latents."""
        mean, logvar = self.ask_vae(Vae.encode, pixels)
        self.previewer.learn(mean[0] * self.vae.config.scaling_factor, pixels[0])
        return mean, np.exp(logvar / 2)

    def decode_latents(self, latents: np.ndarray) -> np.ndarray:
        (pixels,) = self.ask_vae(Vae.decode, latents / self.vae.config.scaling_factor)
        self.previewer.learn(latents[0], pixels[0])
        return pixels

    def ask_vae(
        self, method: Callable[[Vae, Tensor], Any], array: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """What the VAE gives; where half precision overflows, in float32 from then on."""
        outputs = hosts(method(self.vae, Tensor(array)))
        if self.vae.dtype != ms.float32 and not all(np.isfinite(o).all() for o in outputs):
            self.vae = load_vae(self.checkpoint)
            outputs = hosts(method(self.vae, Tensor(array)))
        return outputs


def default_size(unet: Mapping[str, Any], scale: int) -> tuple[int, int]:
    """Width and height that the model was trained for."""
    sample = unet.get("sample_size") or 64
    height, width = sample if isinstance(sample, list) else (sample, sample)
    return width * scale, height * scale
