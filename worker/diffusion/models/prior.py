"""The prior of unCLIP: from a text's embedding to an image's (https://arxiv.org/abs/2204.06125)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import Tensor, nn, ops

from worker.diffusion.layers import Gelu, LayerNorm, Linear, empty_parameter
from worker.diffusion.models.config import read_config
from worker.diffusion.models.transformer import Attention
from worker.diffusion.models.unet import TimestepEmbedding, frequencies

FIXED = {
    "added_emb_type": ("prd",),
    "additional_embeddings": (4,),
    "clip_embed_dim": (None,),
    "embedding_proj_dim": (None,),
    "embedding_proj_norm_type": (None,),
    "encoder_hid_proj_type": ("linear",),
    "norm_in_type": (None,),
    "time_embed_act_fn": ("silu",),
    "time_embed_dim": (None,),
}

#: What a masked place's score is lowered by.
MASKED = 1e4


@dataclass(frozen=True)
class PriorConfig:
    """The fields of a prior's `config.json` that are read here."""

    num_attention_heads: int = 32
    attention_head_dim: int = 64
    num_layers: int = 20
    embedding_dim: int = 768
    num_embeddings: int = 77

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "PriorConfig":
        """Raises CheckpointError for a value that asks for another network than is built here."""
        return cls(**read_config(cls, config, FIXED, "prior"))

    @property
    def channels(self) -> int:
        return self.num_attention_heads * self.attention_head_dim


class Prior(nn.Cell):
    """Predicts a clean image embedding, in the prior's own scale, from a noisy one.

    Embeddings (n, c), timesteps (n,) float32, the text's last hidden state (n, t, c), its embedding
    (n, c) and mask (n, t), 1 where there is text and 0 where it is padded, to (n, c).
    """

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        channels, width = config.embedding_dim, config.channels
        self.length = config.num_embeddings + 4
        self.frequencies = frequencies(width, shift=0)
        self.time_embedding = TimestepEmbedding(width, width)
        self.proj_in = Linear(channels, width)
        self.embedding_proj = Linear(channels, width)
        self.encoder_hidden_states_proj = Linear(channels, width)
        self.positional_embedding = empty_parameter(1, self.length, width)
        self.prd_embedding = empty_parameter(1, 1, width)
        self.transformer_blocks = nn.CellList(
            [PriorBlock(width, config.num_attention_heads) for _ in range(config.num_layers)]
        )
        self.norm_out = LayerNorm(width)
        self.proj_to_clip_embeddings = Linear(width, channels)
        self.clip_mean = empty_parameter(1, channels)
        self.clip_std = empty_parameter(1, channels)

    def construct(
        self, noisy: Tensor, timesteps: Tensor, states: Tensor, text: Tensor, mask: Tensor
    ) -> Tensor:
        angles = ops.reshape(timesteps, (-1, 1)) * self.frequencies
        sinusoid = ops.cast(ops.concat((ops.cos(angles), ops.sin(angles)), 1), noisy.dtype)
        last = ops.broadcast_to(self.prd_embedding, (noisy.shape[0], 1, self.config.channels))
        x = ops.concat(
            (
                self.encoder_hidden_states_proj(states),
                ops.expand_dims(self.embedding_proj(text), 1),
                ops.expand_dims(self.time_embedding(sinusoid), 1),
                ops.expand_dims(self.proj_in(noisy), 1),
                last,
            ),
            1,
        )
        x = x + self.positional_embedding
        bias = self.bias(mask)
        for block in self.transformer_blocks:
            x = block(x, bias)
        return self.proj_to_clip_embeddings(self.norm_out(x)[:, -1])

    def bias(self, mask: Tensor) -> Tensor:
        """(n, length, length): none looks ahead, and none at padding."""
        shown = ops.concat((mask, ops.ones((mask.shape[0], 4), mask.dtype)), 1)
        ahead = ops.triu(ops.full((self.length, self.length), -MASKED, dtype=mask.dtype), 1)
        return ops.expand_dims((shown - 1) * MASKED, 1) + ahead

    def image_embedding(self, clean: np.ndarray) -> np.ndarray:
        """An image embedding (..., c) in CLIP's scale from one in the prior's own."""
        mean, std = (p.asnumpy().astype(np.float32)[0] for p in (self.clip_mean, self.clip_std))
        return clean * std + mean


class PriorBlock(nn.Cell):
    """Self-attention and a feed-forward layer, each normalised before and residual."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels)
        self.attn1 = PriorAttention(channels, heads, bias=True)
        self.norm3 = LayerNorm(channels)
        self.ff = PriorFeedForward(channels)

    def construct(self, x: Tensor, bias: Tensor) -> Tensor:
        x = x + self.attn1(self.norm1(x), bias)
        return x + self.ff(self.norm3(x))


class PriorAttention(Attention):
    """Self-attention whose scores have a bias (n, s, s) added."""

    def construct(self, x: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
        return self.to_out[0](self.attend(self.to_q(x), self.to_k(x), self.to_v(x), bias))


class PriorFeedForward(nn.Cell):
    """A layer of four times the width, and back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The checkpoint counts a dropout between the two.
        self.net = nn.CellList(
            [WideLayer(channels, 4 * channels), nn.Identity(), Linear(4 * channels, channels)]
        )

    def construct(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))


class WideLayer(nn.Cell):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = Linear(in_channels, out_channels)
        self.gelu = Gelu()

    def construct(self, x: Tensor) -> Tensor:
        return self.gelu(self.proj(x))
