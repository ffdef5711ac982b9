"""The image encoder of CLIP (https://arxiv.org/abs/2103.00020), with its projection."""

from dataclasses import dataclass
from typing import Any

from mindspore import Tensor, nn, ops

from worker.diffusion.layers import Conv2d, Embedding, LayerNorm, Linear, empty_parameter
from worker.diffusion.models.clip_layers import ACTIVATIONS, ClipLayers
from worker.diffusion.models.config import divides, read_config, require
from worker.diffusion.models.transformer import tokens


@dataclass(frozen=True)
class ClipVisionConfig:
    """The fields of a CLIP image encoder's `config.json` that are read here."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 512

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "ClipVisionConfig":
        """Raises CheckpointError for a value that asks for another network than is built here."""
        values = read_config(cls, config, {}, "image_encoder")
        require([values["hidden_act"]], ACTIVATIONS, "image_encoder hidden_act")
        heads = values["num_attention_heads"]
        divides(heads, [values["hidden_size"]], "image_encoder num_attention_heads")
        return cls(**values)


class ClipVisionModelWithProjection(nn.Cell):
    """Pixels (n, 3, image_size, image_size) to embeddings (n, projection_dim)."""

    def __init__(self, config: ClipVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_model = VisionTransformer(config)
        self.visual_projection = Linear(config.hidden_size, config.projection_dim, bias=False)

    def construct(self, pixels: Tensor) -> Tensor:
        return self.visual_projection(self.vision_model(pixels))


class VisionTransformer(nn.Cell):
    """Gives the state of the class token, normalised."""

    def __init__(self, config: ClipVisionConfig) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        # The checkpoint's own spelling.
        self.pre_layrnorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.encoder = ClipLayers(config, causal=False)
        self.post_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def construct(self, pixels: Tensor) -> Tensor:
        last, _ = self.encoder(self.pre_layrnorm(self.embeddings(pixels)))
        return self.post_layernorm(last[:, 0])


class VisionEmbeddings(nn.Cell):
    """A token for the class, and one for each patch."""

    def __init__(self, config: ClipVisionConfig) -> None:
        super().__init__()
        channels, patch = config.hidden_size, config.patch_size
        self.class_embedding = empty_parameter(channels)
        self.patch_embedding = Conv2d(
            config.num_channels, channels, patch, stride=patch, padding=0, bias=False
        )
        places = (config.image_size // patch) ** 2 + 1
        self.position_embedding = Embedding(places, channels)

    def construct(self, pixels: Tensor) -> Tensor:
        patches = tokens(self.patch_embedding(pixels))
        n, _, channels = patches.shape
        first = ops.broadcast_to(
            ops.reshape(self.class_embedding, (1, 1, channels)), (n, 1, channels)
        )
        return ops.concat((first, patches), 1) + self.position_embedding.weight
