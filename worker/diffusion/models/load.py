"""Building the models of a checkpoint with its weights, ready to be called."""

import mindspore as ms

from worker.diffusion import weights
from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.layers import compiled, parameters_in
from worker.diffusion.models.clip_text import ClipTextConfig, ClipTextModel
from worker.diffusion.models.clip_vision import ClipVisionConfig, ClipVisionModelWithProjection
from worker.diffusion.models.kandinsky_unet import KandinskyUNet, KandinskyUNetConfig
from worker.diffusion.models.movq import Movq, MovqConfig
from worker.diffusion.models.prior import Prior, PriorConfig
from worker.diffusion.models.shared import shared
from worker.diffusion.models.unet import UNet, UNetConfig
from worker.diffusion.models.vae import Vae, VaeConfig
from worker.diffusion.weights import load_weights


def load_unet(checkpoint: Checkpoint, dtype: ms.dtype = ms.float32) -> UNet:
    """The UNet. Raises CheckpointError if configuration or weights are not as built here."""
    config, stored = UNetConfig.from_dict(checkpoint.config("unet")), checkpoint.weights("unet")

    def build() -> UNet:
        with parameters_in(dtype):
            unet = UNet(config)
        load_weights([unet], stored, "unet")
        return compiled(unet, config)

    return shared(UNet, config, dtype, stored, build)


def load_text_encoder(
    checkpoint: Checkpoint,
    dtype: ms.dtype = ms.float32,
    name: str = "text_encoder",
    form: type[ClipTextModel] = ClipTextModel,
    **options: bool,
) -> ClipTextModel:
    """A text encoder of the class `form`, made with `options`. Raises as `load_unet`."""
    config = ClipTextConfig.from_dict(checkpoint.config(name), name)
    stored = checkpoint.weights(name)

    def build() -> ClipTextModel:
        with parameters_in(dtype):
            encoder = form(config, **options)
        load_weights([encoder], stored, name)
        return compiled(encoder, config, options)

    return shared((form, *options.items()), config, dtype, stored, build)


def load_vae(checkpoint: Checkpoint, dtype: ms.dtype = ms.float32) -> Vae:
    """The autoencoder, in float32 where it says that it needs that. Raises as `load_unet`."""
    config, stored = VaeConfig.from_dict(checkpoint.config("vae")), checkpoint.weights("vae")
    dtype = ms.float32 if config.force_upcast else dtype

    def build() -> Vae:
        with parameters_in(dtype):
            vae = Vae(config, dtype)
        load_weights([vae.encoder, vae.decoder], stored, "vae")
        compiled(vae.encoder, config)
        compiled(vae.decoder, config)
        return vae

    return shared(Vae, config, dtype, stored, build)


def load_kandinsky_unet(checkpoint: Checkpoint, dtype: ms.dtype = ms.float32) -> KandinskyUNet:
    """Kandinsky's UNet. Raises CheckpointError as `load_unet`."""
    with parameters_in(dtype):
        config = KandinskyUNetConfig.from_dict(checkpoint.config("unet"))
        unet = KandinskyUNet(config)
    load_weights([unet], checkpoint.weights("unet"), "unet")
    return compiled(unet, config)


def load_movq(checkpoint: Checkpoint, dtype: ms.dtype = ms.float32) -> Movq:
    """Kandinsky's autoencoder. Raises CheckpointError as `load_unet`."""
    with parameters_in(dtype):
        config = MovqConfig.from_dict(checkpoint.config("movq"))
        movq = Movq(config, dtype)
    load_weights([movq.encoder, movq.decoder], checkpoint.weights("movq"), "movq")
    compiled(movq.encoder, config)
    compiled(movq.decoder, config)
    return movq


def load_prior(checkpoint: Checkpoint, dtype: ms.dtype = ms.float32, name: str = "prior") -> Prior:
    """Kandinsky's prior. Raises CheckpointError as `load_unet`."""
    with parameters_in(dtype):
        config = PriorConfig.from_dict(checkpoint.config(name))
        prior = Prior(config)
    load_weights([prior], checkpoint.weights(name), name)
    return compiled(prior, config)


def load_image_encoder(
    checkpoint: Checkpoint, dtype: ms.dtype = ms.float32, name: str = "image_encoder"
) -> ClipVisionModelWithProjection:
    """An image encoder, not compiled. Raises CheckpointError as `load_unet`."""
    with parameters_in(dtype):
        config = ClipVisionConfig.from_dict(checkpoint.config(name))
        encoder = ClipVisionModelWithProjection(config)
    load_weights([encoder], checkpoint.weights(name), name)
    return encoder


def vae_fingerprint(checkpoint: Checkpoint) -> str:
    """What tells whether two checkpoints share an autoencoder, so that latents can be passed on."""
    if "movq" in checkpoint.components:
        movq = MovqConfig.from_dict(checkpoint.config("movq"))
        return weights.fingerprint(movq, checkpoint.source.weights("movq"))
    config = VaeConfig.from_dict(checkpoint.config("vae"))
    return weights.fingerprint(config, checkpoint.source.weights("vae"))
