"""The text encoder of CLIP (https://arxiv.org/abs/2103.00020)."""

from dataclasses import dataclass
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from worker.diffusion.layers import Embedding, LayerNorm, Linear
from worker.diffusion.models.clip_layers import ACTIVATIONS, ClipLayers
from worker.diffusion.models.config import divides, read_config, require


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
    projection_dim: int = 512
    #: The token at which a text is pooled; 2, as old files say, means the largest of its ids.
    eos_token_id: int = 49407

    @classmethod
    def from_dict(cls, config: dict[str, Any], name: str = "text_encoder") -> "ClipTextConfig":
        """Raises CheckpointError for a value that asks for another network than is built here."""
        values = read_config(cls, config, {}, name)
        require([values["hidden_act"]], ACTIVATIONS, f"{name} hidden_act")
        heads = values["num_attention_heads"]
        divides(heads, [values["hidden_size"]], f"{name} num_attention_heads")
        return cls(**values)


class ClipTextModel(nn.Cell):
    """Token ids (n, length) int32 to a hidden state (n, length, hidden_size).

    It is the last one, normalised, or with `penultimate` that before the last layer.
    """

    def __init__(self, config: ClipTextConfig, penultimate: bool = False) -> None:
        super().__init__()
        self.config = config
        self.penultimate = penultimate
        self.text_model = TextTransformer(config)

    def construct(self, ids: Tensor) -> Tensor:
        last, before = self.text_model(ids)
        return before if self.penultimate else last


class ClipTextModelWithProjection(ClipTextModel):
    """Gives the hidden state and the text's embedding (n, projection_dim)."""

    def __init__(self, config: ClipTextConfig, penultimate: bool = False) -> None:
        super().__init__(config, penultimate)
        self.text_projection = Linear(config.hidden_size, config.projection_dim, bias=False)

    def construct(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        last, before = self.text_model(ids)
        embedding = self.text_projection(self.pool(ids, last))
        return before if self.penultimate else last, embedding

    def pool(self, ids: Tensor, state: Tensor) -> Tensor:
        """The state (n, hidden_size) at each text's first end token."""
        n, length, channels = state.shape
        numbers = ops.cast(ids, ms.float32)
        end = self.config.eos_token_id
        wanted = ops.amax(numbers, 1, True) if end == 2 else float(end)
        places = ops.where(numbers == wanted, ops.arange(length).astype(ms.float32), float(length))
        first = ops.amin(places, 1).astype(ms.int32) + ops.arange(n).astype(ms.int32) * length
        return ops.gather(ops.reshape(state, (n * length, channels)), first, 0)


class TextTransformer(nn.Cell):
    """Gives the last hidden state, normalised, and that before the last layer."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.embeddings = TextEmbeddings(config)
        self.encoder = ClipLayers(config, causal=True)
        self.final_layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def construct(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        last, before = self.encoder(self.embeddings(ids))
        return self.final_layer_norm(last), before


class TextEmbeddings(nn.Cell):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.token_embedding = Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = Embedding(config.max_position_embeddings, config.hidden_size)

    def construct(self, ids: Tensor) -> Tensor:
        positions = ops.arange(ids.shape[1])
        return self.token_embedding(ids) + self.position_embedding(positions)
