"""The bundled checkpoint's pictures equal the reference's."""

import numpy as np
import pytest
from make_bundled import CHECKPOINT, cases
from make_pipelines import HERE, arguments

from worker.diffusion import Pipeline

WORST, MEAN = 2 / 255, 1e-3


@pytest.fixture(scope="module")
def pictures():
    pipe = Pipeline.from_pretrained(CHECKPOINT)
    return {name: pipe(**arguments(case), output_type="np")[0] for name, case in cases().items()}


@pytest.mark.parametrize("name", ["text", "image"])
def test_pictures_equal_the_references(pictures, name):
    expected = np.load(HERE / "bundled.npz")[name].astype(np.float32)
    difference = np.abs(pictures[name] - expected)
    assert difference.max() <= WORST
    assert difference.mean() <= MEAN


def test_the_two_pictures_differ_by_far_more_than_is_allowed(pictures):
    assert np.abs(pictures["text"] - pictures["image"]).mean() > 30 * MEAN


def test_it_is_small_enough_to_ship():
    size = sum(file.stat().st_size for file in CHECKPOINT.rglob("*") if file.is_file())
    assert size <= 25e6
