"""Kandinsky's models give what diffusers' give on torch, and the comparison notices a wrong one."""

import json
from contextlib import contextmanager
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import tiny_kandinsky
from make_kandinsky import inputs
from make_published import configurations, summary

from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.errors import CheckpointError
from worker.diffusion.layers import GroupNorm, LayerNorm
from worker.diffusion.models.clip_text import ClipTextConfig, ClipTextModelWithProjection
from worker.diffusion.models.clip_vision import ClipVisionConfig, ClipVisionModelWithProjection
from worker.diffusion.models.kandinsky_unet import KandinskyUNet, KandinskyUNetConfig
from worker.diffusion.models.load import (
    load_image_encoder,
    load_kandinsky_unet,
    load_movq,
    load_prior,
    load_text_encoder,
    vae_fingerprint,
)
from worker.diffusion.models.movq import Movq, MovqConfig
from worker.diffusion.models.prior import Prior, PriorConfig

#: Absolute, for outputs of order one. A changed layer moves some output at least 30 times as far.
TOLERANCE = 1e-4
NOTICED = 30 * TOLERANCE


@pytest.fixture(scope="module")
def expected():
    return np.load(Path(tiny_kandinsky.__file__).with_name("kandinsky.npz"))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoder")
    return Checkpoint.open(tiny_kandinsky.write_decoder(folder, None))


@pytest.fixture(scope="module")
def prior_checkpoint(tmp_path_factory):
    return Checkpoint.open(tiny_kandinsky.write_prior(tmp_path_factory.mktemp("prior")))


@pytest.fixture(scope="module")
def unet(decoder):
    return load_kandinsky_unet(decoder)


@pytest.fixture(scope="module")
def movq(decoder):
    return load_movq(decoder)


@pytest.fixture(scope="module")
def prior(prior_checkpoint):
    return load_prior(prior_checkpoint)


@pytest.fixture(scope="module")
def image_encoder(prior_checkpoint):
    return load_image_encoder(prior_checkpoint)


def run(model, name):
    outputs = model(*(ms.Tensor(array) for array in inputs()[name]))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return tuple(output.asnumpy() for output in outputs)


def difference(a, b):
    assert a.shape == b.shape
    return np.abs(a - b).max()


def test_the_unet_denoises_rows_of_different_timesteps(unet, expected):
    assert difference(run(unet, "unet")[0], expected["unet"]) < TOLERANCE


def test_the_prior_predicts_rows_of_different_masks_and_timesteps(prior, expected):
    (output,) = run(prior, "prior")
    assert difference(output, expected["prior"]) < TOLERANCE
    embedding = prior.image_embedding(output)
    assert difference(embedding, expected["image_embedding"]) < TOLERANCE


def test_the_image_encoder_projects_the_token_of_the_class(image_encoder, expected):
    (output,) = run(image_encoder, "image_encoder")
    assert difference(output, expected["image_encoder"]) < TOLERANCE


def test_the_text_encoder_gives_its_last_state_and_the_projected_text(prior_checkpoint, expected):
    encoder = load_text_encoder(prior_checkpoint, form=ClipTextModelWithProjection)
    states, embedding = run(encoder, "text")
    assert difference(states, expected["text_states"]) < TOLERANCE
    assert difference(embedding, expected["text_embeds"]) < TOLERANCE


def test_the_movq_encodes_and_decodes(movq, expected):
    assert difference(run(movq.encode, "movq_encode")[0], expected["movq_encode"]) < TOLERANCE
    assert difference(run(movq.decode, "movq_decode")[0], expected["movq_decode"]) < TOLERANCE


@contextmanager
def changed(cell, key):
    """Changes a weight in place: a compiled model goes on reading the memory it was given."""
    values = dict(cell.parameters_and_names())[key].asnumpy()
    before = values.copy()
    values[...] = 1.1 * np.roll(before, 1, axis=-1 if before.shape[0] == 1 else 0)
    try:
        yield
    finally:
        values[...] = before


def assert_noticed(cell, key, model, name):
    (output,) = run(model, name)
    with changed(cell, key):
        assert difference(run(model, name)[0], output) > NOTICED


@pytest.mark.parametrize(
    "key",
    [
        "add_embedding.image_proj.weight",
        "add_embedding.image_norm.weight",
        "encoder_hid_proj.image_embeds.weight",
        "encoder_hid_proj.norm.bias",
        "time_embedding.linear_1.weight",
        "down_blocks.0.resnets.0.time_emb_proj.weight",
        "down_blocks.0.downsamplers.0.conv1.weight",
        "down_blocks.1.attentions.0.add_k_proj.weight",
        "down_blocks.1.attentions.0.to_v.weight",
        "down_blocks.2.resnets.0.norm2.weight",
        "down_blocks.3.attentions.0.group_norm.weight",
        "mid_block.attentions.0.add_v_proj.bias",
        "mid_block.resnets.1.conv2.weight",
        "up_blocks.0.upsamplers.0.conv2.weight",
        "up_blocks.2.attentions.1.to_out.0.weight",
        "up_blocks.3.resnets.1.conv_shortcut.weight",
        "conv_out.weight",
    ],
)
def test_a_wrong_layer_of_the_unet_is_noticed(unet, key):
    assert_noticed(unet, key, unet, "unet")


@pytest.mark.parametrize(
    "key",
    [
        "positional_embedding",
        "prd_embedding",
        "embedding_proj.weight",
        "encoder_hidden_states_proj.bias",
        "proj_in.weight",
        "time_embedding.linear_2.weight",
        "transformer_blocks.0.attn1.to_k.weight",
        "transformer_blocks.0.norm3.bias",
        "transformer_blocks.1.ff.net.0.proj.weight",
        "norm_out.weight",
    ],
)
def test_a_wrong_layer_of_the_prior_is_noticed(prior, key):
    assert_noticed(prior, key, prior, "prior")


def test_the_prior_sees_no_padding(prior):
    noisy, timesteps, states, text, mask = inputs()["prior"]
    padded = np.where(mask[:, :, None] == 0, states + 1, states)
    shown = np.where(mask[:, :, None] == 1, states + 1, states)

    def output(states):
        given = (noisy, timesteps, states, text, mask)
        return prior(*(ms.Tensor(array) for array in given)).asnumpy()

    assert difference(output(padded), output(states)) == 0
    assert difference(output(shown), output(states)) > NOTICED


@pytest.mark.parametrize(
    "key",
    [
        "vision_model.embeddings.class_embedding",
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.embeddings.position_embedding.weight",
        "vision_model.pre_layrnorm.bias",
        "vision_model.encoder.layers.1.self_attn.v_proj.weight",
        "vision_model.post_layernorm.weight",
        "visual_projection.weight",
    ],
)
def test_a_wrong_layer_of_the_image_encoder_is_noticed(image_encoder, key):
    assert_noticed(image_encoder, key, image_encoder, "image_encoder")


@pytest.mark.parametrize(
    "key",
    [
        "encoder.down_blocks.3.attentions.0.to_q.weight",
        "encoder.down_blocks.0.downsamplers.0.conv.weight",
        "encoder.mid_block.attentions.0.group_norm.weight",
        "quant_conv.weight",
    ],
)
def test_a_wrong_layer_of_the_movq_encoder_is_noticed(movq, key):
    assert_noticed(movq.encoder, key, movq.encode, "movq_encode")


@pytest.mark.parametrize(
    "key",
    [
        "post_quant_conv.weight",
        "decoder.conv_in.weight",
        "decoder.mid_block.resnets.0.norm1.conv_y.weight",
        "decoder.mid_block.attentions.0.spatial_norm.conv_b.weight",
        "decoder.up_blocks.0.attentions.1.to_v.weight",
        "decoder.up_blocks.1.resnets.0.norm2.norm_layer.weight",
        "decoder.up_blocks.2.upsamplers.0.conv.weight",
        "decoder.conv_norm_out.conv_y.bias",
    ],
)
def test_a_wrong_layer_of_the_movq_decoder_is_noticed(movq, key):
    assert_noticed(movq.decoder, key, movq.decode, "movq_decode")


def test_every_norm_has_the_epsilon_of_the_reference(
    unet, movq, prior, image_encoder, prior_checkpoint
):
    text_encoder = load_text_encoder(prior_checkpoint, form=ClipTextModelWithProjection)
    cells = {
        "unet": [unet],
        "movq": [movq.encoder, movq.decoder],
        "prior": [prior],
        "text_encoder": [text_encoder],
        "image_encoder": [image_encoder],
    }
    expected = json.loads(tiny_kandinsky.SHAPES.read_text("utf-8"))
    for name, parts in cells.items():
        named = [pair for cell in parts for pair in cell.cells_and_names()]
        norms = {path: c.eps for path, c in named if isinstance(c, GroupNorm | LayerNorm)}
        assert norms == expected[f"{name} epsilons"]


def test_the_fingerprint_follows_the_weights_of_the_movq(decoder, tmp_path):
    other = Checkpoint.open(tiny_kandinsky.write_decoder(tmp_path, None))
    assert vae_fingerprint(other) == vae_fingerprint(decoder)
    file = tmp_path / "movq" / "diffusion_pytorch_model.safetensors"
    contents = bytearray(file.read_bytes())
    contents[-1] ^= 1
    file.write_bytes(contents)
    assert vae_fingerprint(other) != vae_fingerprint(decoder)


@pytest.mark.parametrize(
    ("read", "config", "field", "value", "shown"),
    [
        (KandinskyUNetConfig, "UNET", "addition_embed_type", "image_hint", "'image_hint'"),
        (KandinskyUNetConfig, "UNET", "encoder_hid_dim_type", None, "None"),
        (KandinskyUNetConfig, "UNET", "resnet_time_scale_shift", "default", "'default'"),
        (KandinskyUNetConfig, "UNET", "only_cross_attention", True, "True"),
        (KandinskyUNetConfig, "UNET", "down_block_types", ["DownBlock2D"] * 4, "'DownBlock2D'"),
        (KandinskyUNetConfig, "UNET", "attention_head_dim", 5, "5, which does not divide"),
        (MovqConfig, "MOVQ", "norm_type", "group", "'group'"),
        (MovqConfig, "MOVQ", "vq_embed_dim", 8, "8; only 4"),
        (MovqConfig, "MOVQ", "lookup_from_codebook", True, "True"),
        (MovqConfig, "MOVQ", "block_out_channels", [16, 16, 16, 16], "32, which does not divide"),
        (PriorConfig, "PRIOR", "norm_in_type", "layer", "'layer'"),
        (PriorConfig, "PRIOR", "added_emb_type", None, "None"),
        (PriorConfig, "PRIOR", "additional_embeddings", 2, "2; only 4"),
        (ClipVisionConfig, "IMAGE_ENCODER", "hidden_act", "relu", "'relu'"),
    ],
)
def test_another_network_is_refused_by_field_and_value(read, config, field, value, shown):
    named = "number of groups" if field == "block_out_channels" else field
    with pytest.raises(CheckpointError, match=named) as caught:
        read.from_dict({**getattr(tiny_kandinsky, config), field: value})
    assert shown in str(caught.value)


@pytest.mark.parametrize("field", ["addition_embed_type", "resnet_time_scale_shift"])
def test_a_unet_of_another_family_is_refused(field):
    config = {key: value for key, value in tiny_kandinsky.UNET.items() if key != field}
    with pytest.raises(CheckpointError, match=field):
        KandinskyUNetConfig.from_dict(config)


#: Components by what builds and reads them.
BUILT = {
    "kandinsky22/unet": (KandinskyUNet, KandinskyUNetConfig),
    "kandinsky22/movq": (Movq, MovqConfig),
    "kandinsky22-prior/prior": (Prior, PriorConfig),
    "kandinsky22-prior/text_encoder": (ClipTextModelWithProjection, ClipTextConfig),
    "kandinsky22-prior/image_encoder": (ClipVisionModelWithProjection, ClipVisionConfig),
}


@pytest.mark.parametrize("name", BUILT)
def test_a_published_configuration_leads_to_the_references_weights(name):
    build, read = BUILT[name]
    model = build(read.from_dict(dict(configurations())[name]))
    cells = [model.encoder, model.decoder] if build is Movq else [model]
    shapes = {key: p.shape for cell in cells for key, p in cell.parameters_and_names()}
    file = Path(tiny_kandinsky.__file__).with_name("published.json")
    assert summary(shapes) == json.loads(file.read_text("utf-8"))[name]
