"""Building the models of a checkpoint with its weights, ready to be called."""

import mindspore as ms

from worker.diffusion import weights
from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.layers import compiled, parameters_in
from worker.diffusion.models.clip_text import ClipTextConfig, ClipTextModel
from worker.diffusion.models.unet import UNet, UNetConfig
from worker.diffusion.models.vae import Vae, VaeConfig
from worker.diffusion.weights import load_weights


def load_unet(checkpoint: Checkpoint, dtype: ms.dtype = ms.float32) -> UNet:
    """The UNet. Raises CheckpointError if configuration or weights are not as built here."""
    with parameters_in(dtype):
        unet = UNet(UNetConfig.from_dict(checkpoint.config("unet")))
    load_weights([unet], checkpoint.weight_files("unet"), "unet")
    return compiled(unet)


def load_text_encoder(checkpoint: Checkpoint, dtype: ms.dtype = ms.float32) -> ClipTextModel:
    """The text encoder. Raises CheckpointError as `load_unet`."""
    with parameters_in(dtype):
        encoder = ClipTextModel(ClipTextConfig.from_dict(checkpoint.config("text_encoder")))
    load_weights([encoder], checkpoint.weight_files("text_encoder"), "text_encoder")
    return compiled(encoder)


def load_vae(checkpoint: Checkpoint, dtype: ms.dtype = ms.float32) -> Vae:
    """The autoencoder. Raises CheckpointError as `load_unet`."""
    with parameters_in(dtype):
        vae = Vae(VaeConfig.from_dict(checkpoint.config("vae")))
    load_weights([vae.encoder, vae.decoder], checkpoint.weight_files("vae"), "vae")
    compiled(vae.encoder)
    compiled(vae.decoder)
    return vae


def vae_fingerprint(checkpoint: Checkpoint) -> str:
    """What tells whether two checkpoints share an autoencoder, so that latents can be passed on."""
    config = VaeConfig.from_dict(checkpoint.config("vae"))
    return weights.fingerprint(config, checkpoint.weight_files("vae"))
