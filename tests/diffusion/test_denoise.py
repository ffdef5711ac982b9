"""Rows share a step and do not notice each other."""

import numpy as np
import pytest

from worker.diffusion.calls import Calls
from worker.diffusion.denoise import Row, places, step
from worker.diffusion.noise import make_generator
from worker.diffusion.schedulers import SCHEDULERS, make_scheduler

PUBLISHED = {"_class_name": "DDIMScheduler", "clip_sample": False, "steps_offset": 1}


def make_row(seed: int, scheduler: str, guided: bool, size: int = 2) -> Row:
    generator = make_generator(seed)
    latent, context = (
        generator.standard_normal(s, dtype=np.float32) for s in [(2, size, size), (3, 2)]
    )
    plan = make_scheduler({**PUBLISHED, "skip_prk_steps": True}, scheduler).plan(4)
    conditions = [(context,)]
    if guided:
        conditions.insert(0, (generator.standard_normal((3, 2), dtype=np.float32),))
    return Row(latent, plan, generator, tuple(conditions), guidance_scale=3.0)


def model(latents, timesteps, contexts):
    """Stands for a model: each place's output depends on that place alone."""
    mean = contexts.mean(axis=(1, 2)) + timesteps / 1000
    return (np.tanh(latents) + mean[:, None, None, None],)


predict = Calls(model)


def make_rows() -> list[Row]:
    kinds = sorted(SCHEDULERS)
    return [make_row(i, kinds[i % len(kinds)], guided=i % 4 > 0) for i in range(13)]


def test_rows_at_different_positions_get_what_they_get_alone():
    together, alone = make_rows(), make_rows()
    for row in alone:
        while not row.done:
            step([row], predict)
    # Each step one more row joins, as they do in a device loop.
    for joined in range(1, 40):
        step([row for row in together[:joined] if not row.done], predict)
    for row, other in zip(together, alone, strict=True):
        assert row.done
        np.testing.assert_allclose(row.latent, other.latent, rtol=1e-5, atol=1e-6)


def test_latents_of_different_shapes_are_asked_for_apart():
    rows = [make_row(1, "DDIMScheduler", True, 2), make_row(2, "DDIMScheduler", True, 3)]
    step(rows, predict)
    assert [row.position for row in rows] == [1, 1]
    assert [row.latent.shape for row in rows] == [(2, 2, 2), (2, 3, 3)]


def test_guidance_leads_away_from_the_unwanted():
    row = make_row(3, "DDIMScheduler", guided=True)
    (unwanted,), (wanted,) = predict(list(places(row)))
    expected = make_row(3, "DDIMScheduler", guided=False)
    step([expected], lambda _: iter([(unwanted + 3.0 * (wanted - unwanted),)]))
    step([row], predict)
    np.testing.assert_allclose(row.latent, expected.latent, rtol=1e-6)


def test_a_predicted_variance_is_not_guided_and_otherwise_left_aside():
    def with_variance(share):
        def double(latents, timesteps, contexts):
            (output,) = model(latents, timesteps, contexts)
            variance = np.full_like(output, share)
            variance[::2] = 7  # the unwanted context's own
            return (np.concatenate([output, variance], axis=1),)

        return Calls(double)

    published = {**PUBLISHED, "_class_name": "DDPMScheduler", "variance_type": "learned_range"}
    for share, fixed in [(-1, "fixed_small"), (1, "fixed_large")]:
        row, expected = (make_row(5, "DDPMScheduler", guided=True) for _ in range(2))
        row.plan = make_scheduler(published).plan(4)
        expected.plan = make_scheduler({**published, "variance_type": fixed}).plan(4)
        for _ in range(4):
            step([row], with_variance(share))
            step([expected], predict)
        np.testing.assert_allclose(row.latent, expected.latent, rtol=1e-4, atol=1e-5)
    row, expected = (make_row(5, "DDIMScheduler", guided=True) for _ in range(2))
    step([row], with_variance(0))
    step([expected], predict)
    np.testing.assert_array_equal(row.latent, expected.latent)


def test_a_failing_model_moves_no_row():
    rows = make_rows()
    before = [row.latent for row in rows]
    calls = []

    def fail_late(asked):
        for answer in predict(asked):
            calls.append(1)
            if len(calls) > 5:
                raise RuntimeError("device lost")
            yield answer

    with pytest.raises(RuntimeError):
        step(rows, fail_late)
    assert all(row.latent is latent for row, latent in zip(rows, before, strict=True))
    assert {row.position for row in rows} == {0}
