"""A seed gives the same numbers everywhere and for ever."""

import numpy as np
import pytest

from worker.diffusion.errors import PipelineInputError
from worker.diffusion.noise import draw, make_generator

# Drawn by numpy 1.26 on x86_64.
SEED_0 = np.float32([-0.24822916, -0.026767015, -1.9444163, 0.524578])
SEED_2_63 = np.float32([0.27526277, 0.32157257, -0.3237944, -0.04395759])


def test_a_seed_has_always_given_these_numbers():
    first = draw(make_generator(0), (1, 1, 4)).ravel()
    np.testing.assert_array_equal(first, SEED_0)
    large = draw(make_generator(2**63), (1, 1, 4)).ravel()
    np.testing.assert_array_equal(large, SEED_2_63)


def test_draws_are_those_of_one_row_in_the_order_they_are_asked_for():
    generator, other = make_generator(7), np.random.Generator(np.random.Philox(7))
    for _ in range(2):
        drawn = draw(generator, (4, 2, 3))
        assert drawn.dtype == np.float32
        expected = other.standard_normal((1, 4, 2, 3), dtype=np.float32)[0]
        np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize("seed", [-1, 1.0, "1", None, True])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(PipelineInputError, match="it must be a whole number of 0 or more"):
        make_generator(seed)
