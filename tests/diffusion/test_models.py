"""The models give what diffusers' give on torch, and the comparison notices a wrong layer."""

import json
from contextlib import contextmanager
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import tiny

from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.errors import CheckpointError
from worker.diffusion.layers import GroupNorm, LayerNorm, compiled
from worker.diffusion.models import (
    ClipTextConfig,
    ClipTextModel,
    UNet,
    UNetConfig,
    Vae,
    VaeConfig,
    load_text_encoder,
    load_unet,
    load_vae,
)

REFERENCE = Path(tiny.__file__).parent

#: Absolute, for outputs of order one. A changed layer moves some output at least 30 times as far.
TOLERANCE = 1e-4
NOTICED = 30 * TOLERANCE


@pytest.fixture(scope="module")
def expected():
    return np.load(REFERENCE / "models.npz")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return Checkpoint.open(tiny.write_stable_diffusion(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture(scope="module")
def unet(checkpoint):
    return load_unet(checkpoint)


@pytest.fixture(scope="module")
def text_encoder(checkpoint):
    return load_text_encoder(checkpoint)


@pytest.fixture(scope="module")
def vae(checkpoint):
    return load_vae(checkpoint)


def tensor(name, shape):
    return ms.Tensor(tiny.normal(name, shape))


def denoise(unet):
    timesteps = ms.Tensor(np.array([999, 37], np.float32))
    context = tensor("unet_context", (2, 77, 32))
    return unet(tensor("unet", (2, 4, 8, 8)), timesteps, context).asnumpy()


def encode_text(text_encoder):
    ids = np.random.Generator(np.random.Philox(1)).integers(0, 577, (2, 77))
    return text_encoder(ms.Tensor(ids.astype(np.int32))).asnumpy()


def encode(vae):
    mean, logvar = vae.encode(tensor("pixels", (1, 3, 64, 48)))
    return mean.asnumpy(), logvar.asnumpy()


def decode(vae):
    return vae.decode(tensor("latents", (1, 4, 8, 6))).asnumpy()


def parameter_of(cell, key):
    return dict(cell.parameters_and_names())[key]


def difference(a, b):
    assert a.shape == b.shape
    return np.abs(a - b).max()


def test_unet_denoises_rows_of_different_timesteps(unet, expected):
    assert difference(denoise(unet), expected["unet"]) < TOLERANCE


def test_unet_takes_sizes_that_do_not_halve_evenly(unet, expected):
    latents, context = tensor("unet_odd", (1, 4, 9, 13)), tensor("unet_odd_context", (1, 77, 32))
    output = unet(latents, ms.Tensor(np.array([999], np.float32)), context).asnumpy()
    assert difference(output, expected["unet_odd"]) < TOLERANCE


def test_text_encoder_gives_the_last_hidden_state(text_encoder, expected):
    assert difference(encode_text(text_encoder), expected["text_encoder"]) < TOLERANCE


def test_vae_encodes_to_mean_and_log_variance(vae, expected):
    mean, logvar = encode(vae)
    assert difference(mean, expected["vae_mean"]) < TOLERANCE
    assert difference(logvar, expected["vae_logvar"]) < TOLERANCE


def test_vae_clamps_the_log_variance(vae):
    far = np.array([0, 0, 0, 0, 100, 100, -100, -100], np.float32)
    with changed(vae.encoder, "quant_conv.bias", lambda _: far):
        _, logvar = encode(vae)
    assert (logvar[:, :2] == 20).all()
    assert (logvar[:, 2:] == -30).all()


def test_vae_decodes(vae, expected):
    assert difference(decode(vae), expected["vae_decode"]) < TOLERANCE


@contextmanager
def changed(cell, key, change):
    """Changes a weight in place: a compiled model goes on reading the memory it was given."""
    values = parameter_of(cell, key).asnumpy()
    before = values.copy()
    values[...] = change(before)
    try:
        yield
    finally:
        values[...] = before


def moved_by(cell, key, run):
    """How far the output moves when one weight is a tenth larger and has its channels turned."""
    output = run()
    with changed(cell, key, lambda weight: 1.1 * np.roll(weight, 1, axis=0)):
        return difference(run(), output)


@pytest.mark.parametrize(
    "key",
    [
        "conv_in.weight",
        "time_embedding.linear_1.weight",
        "time_embedding.linear_2.bias",
        "down_blocks.0.resnets.0.norm1.weight",
        "down_blocks.1.resnets.0.conv_shortcut.weight",
        "down_blocks.2.resnets.0.time_emb_proj.weight",
        "down_blocks.0.downsamplers.0.conv.weight",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight",
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.bias",
        "mid_block.attentions.0.norm.bias",
        "mid_block.resnets.1.conv2.weight",
        "up_blocks.0.upsamplers.0.conv.weight",
        "up_blocks.1.attentions.1.transformer_blocks.0.ff.net.0.proj.weight",
        "up_blocks.2.attentions.0.transformer_blocks.0.norm2.weight",
        "up_blocks.3.attentions.0.proj_out.weight",
        "conv_norm_out.bias",
    ],
)
def test_a_wrong_layer_of_the_unet_is_noticed(unet, key):
    assert moved_by(unet, key, lambda: denoise(unet)) > NOTICED


@pytest.mark.parametrize(
    "key",
    [
        "embeddings.position_embedding.weight",
        "encoder.layers.0.self_attn.q_proj.weight",
        "encoder.layers.0.layer_norm1.bias",
        "encoder.layers.1.mlp.fc1.bias",
        "encoder.layers.1.self_attn.k_proj.weight",
        "final_layer_norm.weight",
    ],
)
def test_a_wrong_layer_of_the_text_encoder_is_noticed(text_encoder, key):
    key = f"text_model.{key}"
    assert moved_by(text_encoder, key, lambda: encode_text(text_encoder)) > NOTICED


def test_a_token_sees_only_those_before_it(text_encoder):
    ids = np.full((2, 77), 7, np.int32)
    ids[1, 40:] = 8
    first, second = text_encoder(ms.Tensor(ids)).asnumpy()
    assert difference(first[:40], second[:40]) == 0
    assert difference(first[40:], second[40:]) > NOTICED


@pytest.mark.parametrize(
    "key",
    [
        "encoder.down_blocks.1.downsamplers.0.conv.weight",
        "encoder.mid_block.attentions.0.to_k.weight",
        "encoder.mid_block.attentions.0.group_norm.weight",
        "encoder.mid_block.resnets.0.norm2.bias",
    ],
)
def test_a_wrong_layer_of_the_vae_encoder_is_noticed(vae, key):
    assert moved_by(vae.encoder, key, lambda: encode(vae)[0]) > NOTICED


@pytest.mark.parametrize(
    "key",
    [
        "post_quant_conv.weight",
        "decoder.mid_block.attentions.0.to_q.weight",
        "decoder.mid_block.attentions.0.to_out.0.weight",
        "decoder.up_blocks.2.resnets.0.conv1.weight",
        "decoder.up_blocks.0.upsamplers.0.conv.bias",
    ],
)
def test_a_wrong_layer_of_the_vae_decoder_is_noticed(vae, key):
    assert moved_by(vae.decoder, key, lambda: decode(vae)) > NOTICED


def test_every_norm_has_the_epsilon_of_the_reference(unet, vae, text_encoder):
    def epsilons(*cells):
        norms = (GroupNorm, LayerNorm)
        named = [pair for cell in cells for pair in cell.cells_and_names()]
        return {name: norm.eps for name, norm in named if isinstance(norm, norms)}

    expected = json.loads((REFERENCE / "tiny.epsilons.json").read_text())
    assert epsilons(unet) == expected["unet"]
    assert epsilons(vae.encoder, vae.decoder) == expected["vae"]
    assert epsilons(text_encoder) == expected["text_encoder"]


@pytest.mark.parametrize("config", ["UNET", "VAE", "TEXT_ENCODER"])
@pytest.mark.parametrize("mode", ["harmless", "unknown"])
def test_fields_that_do_not_change_the_network_are_ignored(config, mode):
    fields = {"harmless": {"sample_size": 96, "dropout": 0.1}, "unknown": {"_of_tomorrow": 1}}
    changed = {**getattr(tiny, config), **fields[mode]}
    read = {"UNET": UNetConfig, "VAE": VaeConfig, "TEXT_ENCODER": ClipTextConfig}[config]
    assert read.from_dict(changed) == read.from_dict(getattr(tiny, config))


@pytest.mark.parametrize(
    ("read", "config", "field", "value", "shown"),
    [
        (UNetConfig, tiny.UNET, "class_embed_type", "projection", "'projection'"),
        (UNetConfig, tiny.UNET, "in_channels", [4], "[4]"),
        (UNetConfig, tiny.UNET, "act_fn", "gelu", "'gelu'; only 'silu' or 'swish'"),
        (UNetConfig, tiny.UNET, "resnet_time_scale_shift", "scale_shift", "'scale_shift'"),
        (UNetConfig, tiny.UNET, "down_block_types", ["AttnDownBlock2D"] * 4, "'AttnDownBlock2D'"),
        (UNetConfig, tiny.UNET, "attention_head_dim", [8, 8], "2 entries"),
        (UNetConfig, tiny.UNET, "attention_head_dim", 5, "5, which does not divide"),
        (UNetConfig, tiny.UNET, "norm_num_groups", None, "None"),
        (UNetConfig, tiny.UNET, "norm_num_groups", 24, "24, which does not"),
        (UNetConfig, tiny.UNET, "block_out_channels", "wide", "'wide'"),
        (VaeConfig, tiny.VAE, "use_quant_conv", False, "False"),
        (VaeConfig, tiny.VAE, "up_block_types", ["AttnUpDecoderBlock2D"] * 4, "'AttnUp"),
        (VaeConfig, tiny.VAE, "down_block_types", ["DownEncoderBlock2D"], "1 entries"),
        (ClipTextConfig, tiny.TEXT_ENCODER, "hidden_act", "relu", "'relu'"),
        (ClipTextConfig, tiny.TEXT_ENCODER, "hidden_size", "768", "'768'"),
        (ClipTextConfig, tiny.TEXT_ENCODER, "num_attention_heads", 5, "5, which does not divide"),
    ],
)
def test_another_network_is_refused_by_field_and_value(read, config, field, value, shown):
    with pytest.raises(CheckpointError, match=field) as caught:
        read.from_dict({**config, field: value})
    assert shown in str(caught.value)


def test_configuration_lists_give_each_level_its_own_size(expected):
    unet = UNet(UNetConfig.from_dict(tiny.UNET_LISTS))
    weights = tiny.weights("unet_lists")
    parameters = dict(unet.parameters_and_names())
    assert parameters.keys() == weights.keys()
    for key, parameter in parameters.items():
        assert parameter.shape == weights[key].shape
        parameter.set_data(ms.Tensor(weights[key]))
    latents, context = tensor("unet_odd", (1, 4, 9, 13)), tensor("unet_odd_context", (1, 77, 32))
    output = compiled(unet)(latents, ms.Tensor(np.array([500.5], np.float32)), context).asnumpy()
    assert difference(output, expected["unet_lists"]) < TOLERANCE


def test_models_are_built_without_drawing_weights():
    vae = Vae(VaeConfig.from_dict(tiny.VAE))
    text_encoder = ClipTextModel(ClipTextConfig.from_dict(tiny.TEXT_ENCODER))
    for cell in (vae.encoder, vae.decoder, text_encoder):
        assert all(not p.asnumpy().any() for p in cell.get_parameters())
