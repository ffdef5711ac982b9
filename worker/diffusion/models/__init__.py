"""The networks of diffusion models, and loading them from checkpoints."""

from worker.diffusion.models.clip_text import (
    ClipTextConfig,
    ClipTextModel,
    ClipTextModelWithProjection,
)
from worker.diffusion.models.load import (
    load_text_encoder,
    load_unet,
    load_vae,
    vae_fingerprint,
)
from worker.diffusion.models.unet import UNet, UNetConfig
from worker.diffusion.models.vae import Vae, VaeConfig

__all__ = [
    "ClipTextConfig",
    "ClipTextModel",
    "ClipTextModelWithProjection",
    "UNet",
    "UNetConfig",
    "Vae",
    "VaeConfig",
    "load_text_encoder",
    "load_unet",
    "load_vae",
    "vae_fingerprint",
]
