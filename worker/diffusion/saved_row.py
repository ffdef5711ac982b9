"""A row's state between two steps, as arrays: it can go on later, elsewhere, bit for bit."""

import hashlib
from collections.abc import Mapping

import numpy as np

from worker.diffusion.denoise import NOTHING, Row, go_on


def save_row(row: Row) -> dict[str, np.ndarray]:
    """All that a row has gathered since its start: sample, solver's memory, random numbers."""
    generator = row.generator.bit_generator.state
    numbers = [generator[name] for name in ("buffer_pos", "has_uint32", "uinteger")]
    return {
        "begun": beginning(row),
        "position": np.array([row.position], np.int64),
        "latent": row.latent,
        **({} if row.before is None else {"before": row.before.latent}),
        **({} if row.saved is NOTHING else {"saved": row.saved}),
        **{f"history.{i}": estimate for i, estimate in enumerate(row.history)},
        "generator.counter": generator["state"]["counter"],
        "generator.key": generator["state"]["key"],
        "generator.buffer": generator["buffer"],
        "generator.numbers": np.array(numbers, np.uint64),
    }


def restore_row(row: Row, state: Mapping[str, np.ndarray]) -> None:
    """Takes a row at its start to where `save_row` found another with the same beginning.

    Raises ValueError where the beginnings differ; then the row has not moved.
    """
    if not np.array_equal(state["begun"], beginning(row)):
        raise ValueError("the saved row began with another plan or in another shape")
    if "before" in state and row.then is not None:
        row.latent, row.position = np.array(state["before"]), len(row.plan)
        go_on(row, row.then)
    row.position = int(state["position"][0])
    row.latent = np.array(state["latent"])
    row.saved = np.array(state["saved"]) if "saved" in state else NOTHING
    count = sum(name.startswith("history.") for name in state)
    row.history = [np.array(state[f"history.{i}"]) for i in range(count)]
    buffer_pos, has_uint32, uinteger = (int(n) for n in state["generator.numbers"])
    row.generator.bit_generator.state = {
        "bit_generator": "Philox",
        "state": {"counter": state["generator.counter"], "key": state["generator.key"]},
        "buffer": state["generator.buffer"],
        "buffer_pos": buffer_pos,
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }


def beginning(row: Row) -> np.ndarray:
    """SHA-256 of what a row's steps depend on beside its state: plans, shapes and guidance."""
    parts = [(r.plan, r.latent.shape, r.guidance_scale) for r in (row.before, row) if r]
    if row.then is not None:
        parts.append((row.then.plan, row.then.shape, row.then.guidance_scale))
    digest = hashlib.sha256()
    for plan, shape, guidance_scale in parts:
        digest.update(repr((shape, guidance_scale)).encode())
        tables = (plan.timesteps, plan.input_scale, plan.estimate, plan.update, plan.save)
        for table in (*tables, plan.remember, plan.noise):
            digest.update(np.ascontiguousarray(table).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)
