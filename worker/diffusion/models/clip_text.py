"""The text encoder of CLIP (https://arxiv.org/abs/2103.00020)."""

from dataclasses import dataclass
from typing import Any

from mindspore import Tensor, nn, ops

from worker.diffusion.layers import (
    Embedding,
    Gelu,
    LayerNorm,
    Linear,
    MultiHeadAttention,
    QuickGelu,
)
from worker.diffusion.models.config import divides, read_config, require

ACTIVATIONS = {"quick_gelu": QuickGelu, "gelu": Gelu}


@dataclass(frozen=True)
class ClipTextConfig:
    """The fields of a CLIP text encoder's `config.json` that are read here."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "ClipTextConfig":
        """Raises CheckpointError for a value that asks for another network than is built here."""
        values = read_config(cls, config, {}, "text_encoder")
        require([values["hidden_act"]], ACTIVATIONS, "text_encoder hidden_act")
        heads = values["num_attention_heads"]
        divides(heads, [values["hidden_size"]], "text_encoder num_attention_heads")
        return cls(**values)


class ClipTextModel(nn.Cell):
    """Token ids (n, length) int32 to the last hidden state (n, length, hidden_size)."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextTransformer(config)

    def construct(self, ids: Tensor) -> Tensor:
        return self.text_model(ids)


class TextTransformer(nn.Cell):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.embeddings = TextEmbeddings(config)
        self.encoder = TextLayers(config)
        self.final_layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def construct(self, ids: Tensor) -> Tensor:
        return self.final_layer_norm(self.encoder(self.embeddings(ids)))


class TextEmbeddings(nn.Cell):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.token_embedding = Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = Embedding(config.max_position_embeddings, config.hidden_size)

    def construct(self, ids: Tensor) -> Tensor:
        positions = ops.arange(ids.shape[1])
        return self.token_embedding(ids) + self.position_embedding(positions)


class TextLayers(nn.Cell):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.layers = nn.CellList([TextLayer(config) for _ in range(config.num_hidden_layers)])

    def construct(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class TextLayer(nn.Cell):
    """Causal self-attention and two dense layers, each normalised before and residual."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.layer_norm1 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = TextAttention(config.hidden_size, config.num_attention_heads)
        self.layer_norm2 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = TextMlp(config)

    def construct(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class TextAttention(nn.Cell):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.q_proj = Linear(channels, channels)
        self.k_proj = Linear(channels, channels)
        self.v_proj = Linear(channels, channels)
        self.out_proj = Linear(channels, channels)
        self.attend = MultiHeadAttention(heads, channels // heads, causal=True)

    def construct(self, x: Tensor) -> Tensor:
        return self.out_proj(self.attend(self.q_proj(x), self.k_proj(x), self.v_proj(x)))


class TextMlp(nn.Cell):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]()

    def construct(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))
