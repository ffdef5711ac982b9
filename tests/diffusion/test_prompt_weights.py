"""Weights in prompts: how they are read, and what they do to an embedding."""

import numpy as np
import pytest
import tiny

from worker.diffusion import Pipeline, PipelineInputError
from worker.diffusion.prompt_weights import parse, weigh


def runs(prompt: str) -> list[tuple[str, float]]:
    """The plain text in pieces of one weight, rounded."""
    found: list[tuple[str, float]] = []
    for character, weight in zip(*parse(prompt), strict=True):
        if found and np.isclose(found[-1][1], weight):
            found[-1] = (found[-1][0] + character, weight)
        else:
            found.append((character, weight))
    return [(text, round(float(weight), 4)) for text, weight in found]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", []),
        ("a cat", [("a cat", 1.0)]),
        ("a (cat)", [("a ", 1.0), ("cat", 1.1)]),
        ("a ((cat))", [("a ", 1.0), ("cat", 1.21)]),
        ("a [cat]", [("a ", 1.0), ("cat", 0.9091)]),
        ("a (red cat:1.3) here", [("a ", 1.0), ("red cat", 1.3), (" here", 1.0)]),
        ("(a (b:2) c:0.5)", [("a ", 0.5), ("b", 1.0), (" c", 0.5)]),
        ("([a])", [("a", 1.0)]),
        ("(a : 1.5 )", [("a ", 1.5)]),
        ("(a:0)", [("a", 0.0)]),
        ("(ratio 3:4:2)", [("ratio 3:4", 2.0)]),
        (r"a \(cat\) \[x\] \\", [("a (cat) [x] \\", 1.0)]),
        ("12:30, (noon:1.2)", [("12:30, ", 1.0), ("noon", 1.2)]),
        ("猫 (犬:1.5)", [("猫 ", 1.0), ("犬", 1.5)]),
        ("a\n(b)", [("a\n", 1.0), ("b", 1.1)]),
    ],
)
def test_the_notation_becomes_text_and_weights(prompt, expected):
    assert runs(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("a (cat", "prompt has a '(' at character 3 that is never closed; write \\( where"),
        ("a [cat", "prompt has a '[' at character 3 that is never closed"),
        ("a cat)", "prompt has a ')' at character 6 that closes no '('; write \\)"),
        ("a cat:1.3)", "prompt has a ')' at character 10 that closes no '('"),
        ("(a]", "prompt has a ']' at character 3 that closes no '['"),
        ("[a:1.3)", "prompt has a ')' at character 7 that closes no '('"),
        ("(cat:much)", "prompt has the weight 'much' at character 6; it must be a number from 0"),
        ("(cat:11)", "prompt has the weight '11' at character 6; it must be a number from 0 to 10"),
        ("(cat:-1)", "prompt has the weight '-1'"),
        ("(cat:nan)", "prompt has the weight 'nan'"),
    ],
)
def test_what_is_malformed_is_named_with_its_place(prompt, sentence):
    with pytest.raises(PipelineInputError) as caught:
        parse(prompt)
    assert sentence in str(caught.value)


def test_weighing_keeps_the_mean():
    embedding = np.random.default_rng(0).standard_normal((77, 8), dtype=np.float32) + 0.1
    weights = np.linspace(0.5, 2.0, 77, dtype=np.float32)
    weighed = weigh(embedding, weights)
    assert weighed.mean() == pytest.approx(embedding.mean(), rel=1e-4)
    ratios = weighed / embedding / weights[:, None]
    np.testing.assert_allclose(ratios, ratios[0, 0], rtol=1e-4)
    assert weigh(embedding, np.ones(77, np.float32)) is embedding


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return Pipeline.from_pretrained(tiny.write_stable_diffusion(tmp_path_factory.mktemp("sd")))


def test_each_token_takes_the_weight_of_its_place(pipe):
    (plain,) = pipe.encode_prompt("a red cat")
    (weighted,) = pipe.encode_prompt("a (red:2) cat", True)
    starts = pipe.encode_prompt.tokenizer.starts("a red cat")
    rows = np.ones(77, np.float32)
    rows[1 : 1 + len(starts)] = [2.0 if 2 <= start < 5 else 1.0 for start in starts]
    assert (rows == 2.0).any()
    expected = plain * rows[:, None]
    np.testing.assert_allclose(weighted, expected * plain.mean() / expected.mean(), rtol=1e-5)


def test_brackets_are_text_unless_weighting_is_asked_for(pipe):
    given = {"num_inference_steps": 2, "seed": 1, "output_type": "latent"}
    (plain,) = pipe("a red cat", **given)
    (brackets,) = pipe("a (red:1.5) cat", **given)
    (weighted,) = pipe("a (red:1.5) cat", prompt_weighting=True, **given)
    (unweighted,) = pipe("a (red:1.0) cat", prompt_weighting=True, **given)
    np.testing.assert_array_equal(unweighted, plain)
    assert np.abs(weighted - plain).max() > 1e-2
    assert np.abs(brackets - weighted).max() > 1e-2
    (negative,) = pipe("a red cat", negative_prompt="(low:1.5)", prompt_weighting=True, **given)
    (other,) = pipe("a red cat", negative_prompt="low", prompt_weighting=True, **given)
    assert np.abs(negative - other).max() > 1e-3


def test_what_is_cut_off_is_said_without_the_notation(pipe):
    assert pipe.cut_off("(cat :1.5)" * 76, prompt_weighting=True) == "cat "
    assert pipe.cut_off("(cat :1.5)", prompt_weighting=True) == ""
