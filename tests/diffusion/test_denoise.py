"""Rows share a step and do not notice each other."""

import numpy as np
import pytest

from worker.diffusion.denoise import Row, split, step
from worker.diffusion.noise import make_generator
from worker.diffusion.schedulers import make_scheduler

PUBLISHED = {"_class_name": "DDIMScheduler", "clip_sample": False, "steps_offset": 1}


def make_row(seed: int, scheduler: str, guided: bool, size: int = 2) -> Row:
    generator = make_generator(seed)
    latent, context = (
        generator.standard_normal(s, dtype=np.float32) for s in [(2, size, size), (3, 2)]
    )
    plan = make_scheduler({**PUBLISHED, "skip_prk_steps": True}, scheduler).plan(4)
    negative = generator.standard_normal((3, 2), dtype=np.float32) if guided else None
    return Row(latent, plan, generator, context, negative, guidance_scale=3.0)


def predict(latents, timesteps, contexts):
    """Stands for a model: each place's output depends on that place alone."""
    assert len(latents) in (1, 2, 4, 8, 16)
    mean = contexts.mean(axis=(1, 2)) + timesteps / 1000
    return np.tanh(latents) + mean[:, None, None, None]


def make_rows() -> list[Row]:
    kinds = ["DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"]
    return [make_row(i, kinds[i % 3], guided=i % 4 > 0) for i in range(13)]


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
    unwanted, wanted = predict(
        np.stack([row.latent] * 2),
        np.repeat(row.plan.timesteps[:1], 2),
        np.stack([row.negative_embedding, row.embedding]),
    )
    expected = make_row(3, "DDIMScheduler", guided=False)
    step([expected], lambda *_: (unwanted + 3.0 * (wanted - unwanted))[None])
    step([row], predict)
    np.testing.assert_allclose(row.latent, expected.latent, rtol=1e-6)


def test_a_failing_model_moves_no_row():
    rows = make_rows()
    before = [row.latent for row in rows]
    calls = []

    def fail_late(*arrays):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("device lost")
        return predict(*arrays)

    with pytest.raises(RuntimeError):
        step(rows, fail_late)
    assert all(row.latent is latent for row, latent in zip(rows, before, strict=True))
    assert {row.position for row in rows} == {0}


@pytest.mark.parametrize(
    ("count", "calls"),
    [
        (1, [(1, 1)]),
        (2, [(2, 2)]),
        (3, [(3, 4)]),
        (5, [(4, 4), (1, 1)]),
        (6, [(6, 8)]),
        (9, [(8, 8), (1, 1)]),
        (12, [(12, 16)]),
        (35, [(16, 16), (16, 16), (3, 4)]),
    ],
)
def test_places_go_into_few_compiled_sizes_with_little_waste(count, calls):
    assert list(split(count)) == calls
