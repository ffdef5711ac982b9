"""Stable Diffusion 2.x equals the reference, and its attention does not overflow in float16."""

from contextlib import contextmanager
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import tiny_sd2
from make_pipelines import arguments
from make_sd2 import CASES

from worker.diffusion import CheckpointError, Pipeline
from worker.diffusion.layers import MultiHeadAttention
from worker.diffusion.models import UNetConfig

REFERENCE = Path(tiny_sd2.__file__).parent
WORST, MEAN = 1 / 255, 2e-4


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    folder = tiny_sd2.write_stable_diffusion_2(tmp_path_factory.mktemp("stable-diffusion-2"))
    return Pipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def expected():
    return np.load(REFERENCE / "sd2.npz")


def errors(pipe, given, expected):
    """The worst and the mean difference of two pictures in 0..1."""
    (result,) = pipe(**given, output_type="np")
    assert result.shape == expected.shape
    difference = np.abs(result - expected.astype(np.float32))
    return float(difference.max()), float(difference.mean())


@pytest.mark.parametrize("name", CASES)
def test_the_picture_equals_the_references(pipe, expected, name):
    worst, mean = errors(pipe, arguments(CASES[name]), expected[name])
    assert worst <= WORST
    assert mean <= MEAN


@pytest.mark.parametrize(
    "change",
    [
        {"negative_prompt": "a photo of a dog"},
        {"prompt": "a painting of a cat"},
        {"guidance_scale": 7.0},
        {"seed": 2},
        {"strength": 0.8},
        {"scheduler": {"class": "DDIMScheduler", "prediction_type": "epsilon"}},
        {"scheduler": {"class": "DDIMScheduler", "rescale_betas_zero_snr": True}},
    ],
    ids=str,
)
def test_the_comparison_notices_any_other_argument(pipe, expected, change):
    worst, mean = errors(pipe, arguments(CASES["image_06"]) | change, expected["image_06"])
    assert worst > 10 * WORST
    assert mean > 10 * MEAN


@contextmanager
def changed(parameter, change):
    """Changes a weight in place: a compiled model goes on reading the memory it was given."""
    values = parameter.asnumpy()
    before = values.copy()
    values[...] = change(before)
    try:
        yield
    finally:
        values[...] = before


@pytest.mark.parametrize(
    "key",
    [
        "down_blocks.0.attentions.0.proj_in.weight",
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v.weight",
        "mid_block.attentions.0.proj_out.weight",
        "up_blocks.2.attentions.1.transformer_blocks.0.attn1.to_out.0.weight",
    ],
)
def test_the_comparison_notices_a_wrong_layer(pipe, expected, key):
    parameter = dict(pipe.unet.parameters_and_names())[key]
    with changed(parameter, lambda weight: np.roll(weight, 1, axis=0)):
        worst, mean = errors(pipe, arguments(CASES["image_06"]), expected["image_06"])
    assert worst > 10 * WORST
    assert mean > 10 * MEAN


def test_each_level_has_its_own_number_of_heads(pipe):
    config = pipe.unet.config
    assert config.attention_head_dim == (1, 2, 3)
    levels = [block.attentions[0].transformer_blocks[0] for block in pipe.unet.down_blocks[:2]]
    assert [level.attn1.attend.heads for level in levels] == [1, 2]
    assert pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2.attend.heads == 3


def test_prompts_are_padded_with_the_token_of_the_special_tokens_map(pipe):
    assert pipe.encode_prompt.tokenizer("")[-1] == 0
    assert pipe.scheduler().prediction_type == "v_prediction"


def test_all_attention_of_the_unet_is_upcast_where_the_checkpoint_asks_for_it(pipe):
    cells = [cell for _, cell in pipe.unet.cells_and_names()]
    attention = [cell for cell in cells if isinstance(cell, MultiHeadAttention)]
    assert len(attention) == 14
    assert all(cell.upcast for cell in attention)
    with pytest.raises(CheckpointError, match="upcast_attention is 1, which is no true or false"):
        UNetConfig.from_dict({**tiny_sd2.UNET, "upcast_attention": 1})


@pytest.mark.parametrize("upcast", [True, False])
def test_float16_scores_overflow_unless_they_are_upcast(upcast):
    generator = np.random.default_rng(1)
    sizes = (400, 400, 1)
    q, k, v = ((s * generator.standard_normal((1, 5, 128))).astype(np.float16) for s in sizes)
    attend = MultiHeadAttention(heads=2, head_channels=64, upcast=upcast)
    result = attend(*(ms.Tensor(x) for x in (q, k, v)))
    assert result.dtype == ms.float16
    exact = attend(*(ms.Tensor(x.astype(np.float32)) for x in (q, k, v))).asnumpy()
    assert np.isfinite(exact).all()
    if upcast:
        np.testing.assert_allclose(result.asnumpy(), exact, atol=2e-3)
    else:
        assert not np.isfinite(result.asnumpy()).all()
