"""A row that was put away and taken up again ends as if it had gone on."""

import numpy as np
import pytest

from tests.diffusion.test_denoise import make_row, predict
from worker.diffusion.denoise import step
from worker.diffusion.saved_row import restore_row, save_row
from worker.diffusion.schedulers import SCHEDULERS


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_a_row_saved_at_any_step_ends_bit_for_bit_the_same(scheduler):
    whole = make_row(3, scheduler, guided=True)
    states = []
    while not whole.done:
        step([whole], predict)
        states.append({name: value.copy() for name, value in save_row(whole).items()})
    for state in states:
        row = make_row(3, scheduler, guided=True)
        restore_row(row, state)
        while not row.done:
            step([row], predict)
        np.testing.assert_array_equal(row.latent, whole.latent)
        np.testing.assert_equal(save_row(row), save_row(whole))


def test_another_beginning_is_refused_and_moves_nothing():
    row = make_row(3, "DDIMScheduler", guided=True)
    step([row], predict)
    other = make_row(3, "PNDMScheduler", guided=True)
    before = other.latent
    with pytest.raises(ValueError, match="another plan"):
        restore_row(other, save_row(row))
    assert other.latent is before
    assert other.position == 0
