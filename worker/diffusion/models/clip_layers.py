"""The layers that CLIP's two encoders share (https://arxiv.org/abs/2103.00020)."""

from typing import Protocol

from mindspore import Tensor, nn

from worker.diffusion.layers import Gelu, LayerNorm, Linear, MultiHeadAttention, QuickGelu

ACTIVATIONS = {"quick_gelu": QuickGelu, "gelu": Gelu}


class EncoderConfig(Protocol):
    """What both encoders' configurations say of their layers."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def hidden_act(self) -> str: ...
    @property
    def layer_norm_eps(self) -> float: ...


class ClipLayers(nn.Cell):
    """(n, s, hidden_size) to the last state and to that before the last layer."""

    def __init__(self, config: EncoderConfig, causal: bool) -> None:
        super().__init__()
        count = config.num_hidden_layers
        self.layers = nn.CellList([ClipLayer(config, causal) for _ in range(count)])

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before = x
        for layer in self.layers:
            before, x = x, layer(x)
        return x, before


class ClipLayer(nn.Cell):
    """Self-attention and two dense layers, each normalised before and residual."""

    def __init__(self, config: EncoderConfig, causal: bool) -> None:
        super().__init__()
        channels, eps = config.hidden_size, config.layer_norm_eps
        self.layer_norm1 = LayerNorm(channels, eps)
        self.self_attn = ClipAttention(channels, config.num_attention_heads, causal)
        self.layer_norm2 = LayerNorm(channels, eps)
        self.mlp = ClipMlp(config)

    def construct(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class ClipAttention(nn.Cell):
    def __init__(self, channels: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.q_proj = Linear(channels, channels)
        self.k_proj = Linear(channels, channels)
        self.v_proj = Linear(channels, channels)
        self.out_proj = Linear(channels, channels)
        self.attend = MultiHeadAttention(heads, channels // heads, causal)

    def construct(self, x: Tensor) -> Tensor:
        return self.out_proj(self.attend(self.q_proj(x), self.k_proj(x), self.v_proj(x)))


class ClipMlp(nn.Cell):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]()

    def construct(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))
