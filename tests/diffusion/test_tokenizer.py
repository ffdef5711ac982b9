"""Prompts become the ids that the reference's tokenizer gives them."""

import json
from pathlib import Path

import numpy as np
import pytest
from make_tokenizer import VARIANTS, write_variant

from worker.diffusion.errors import CheckpointError
from worker.diffusion.tokenizer import Tokenizer

REFERENCE = Path(__file__).parents[1] / "reference"
TEXTS = json.loads((REFERENCE / "tokenizer.json").read_text("utf-8"))


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_variant(folder, request.param)
    return request.param, Tokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_variant(folder, VARIANTS[0])
    return Tokenizer.from_pretrained(folder)


def test_ids_equal_the_reference_for_each_text(variant):
    name, tokenizer = variant
    expected = np.load(REFERENCE / "tokenizer.npz")[name]
    assert len(TEXTS) == len(expected) >= 200
    wrong = [t for t, ids in zip(TEXTS, expected, strict=True) if tokenizer(t) != ids.tolist()]
    assert wrong == []


def test_an_empty_text_is_start_end_and_padding(variant):
    name, tokenizer = variant
    padding = 0 if name == "padded_with_exclamation" else 576
    assert tokenizer("") == [575, 576] + [padding] * 75


def test_a_long_text_keeps_its_end_token(tokenizer):
    ids = tokenizer("cat " * 100)
    assert len(ids) == 77
    assert ids[0] == 575
    assert ids[-1] == 576


def test_what_is_cut_off_is_the_rest_of_the_text_as_written(tokenizer):
    assert tokenizer.cut_off("cat " * 75) == ""
    assert tokenizer.cut_off("Cat " * 75 + "A  Zürich DOG") == "A  Zürich DOG"
    assert tokenizer.cut_off("") == ""


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_a_damaged_file_is_refused_by_name(tmp_path, name):
    write_variant(tmp_path, VARIANTS[0])
    (tmp_path / name).write_text("{ no file like this")
    with pytest.raises(CheckpointError, match=name):
        Tokenizer.from_pretrained(tmp_path)


def test_a_role_needs_a_token(tmp_path):
    write_variant(tmp_path, VARIANTS[0])
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": {"content": ""}}')
    with pytest.raises(CheckpointError, match="pad_token is ''"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_folder_without_vocabulary_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"vocab\.json is missing"):
        Tokenizer.from_pretrained(tmp_path)
