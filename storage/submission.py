"""How specs enter the ledger: in bulk, each key once."""

import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy import insert as plain_insert
from ulid import ULID

from storage.clock import Now
from storage.database import insert
from storage.errors import KeyConflict
from storage.jobs import State, Submitted
from storage.spec import Spec, parse_spec
from storage.tables import KEYED, jobs, labels

#: Seeds that the ledger draws stay within what other tools accept.
_SEEDS = 2**32


def submit(connection: Connection, specs: Sequence[Spec], pool: str) -> list[Submitted]:
    """Enter specs, in their order; raises KeyConflict."""
    now = connection.execute(select(Now())).scalar_one()
    rows = [_row(spec, pool, now) for spec in specs]
    made = _insert(connection, rows)
    owners = _owners(connection, [r["key"] for r in rows if r["id"] not in made])
    found = []
    for spec, row in zip(specs, rows, strict=True):
        if row["id"] in made:
            found.append(Submitted(id=row["id"], created=True))
        else:
            job_id, stored = owners[row["key"]]
            _require_same(spec, stored, job_id)
            found.append(Submitted(id=job_id, created=False))
    named = [
        {"job_id": row["id"], "name": name, "value": value}
        for spec, row in zip(specs, rows, strict=True)
        if row["id"] in made
        for name, value in spec.labels.items()
    ]
    if named:
        connection.execute(plain_insert(labels), named)
    return found


def _row(spec: Spec, pool: str, now: float) -> dict[str, Any]:
    return {
        "id": str(ULID()).lower(),
        "state": State.QUEUED,
        "pool": pool,
        "priority": spec.priority,
        "run_at": now,
        "key": spec.key,
        "spec": _with_seeds(spec).model_dump_json(),
        "attempt": 0,
        "charged": 0,
        "max_attempts": spec.max_attempts,
        "step": 0,
        "progress_done": 0,
        "progress_total": 0,
        "created_at": now,
    }


def _insert(connection: Connection, rows: list[dict[str, Any]]) -> set[str]:
    """Insert what has no key, or a key that no job has yet; returns the ids that are new."""
    free = [row for row in rows if row["key"] is None]
    # In one order everywhere: two submissions of the same keys then wait instead of deadlocking.
    keyed = sorted((row for row in rows if row["key"] is not None), key=lambda row: row["key"])
    made = {row["id"] for row in free}
    if free:
        connection.execute(plain_insert(jobs), free)
    if keyed:
        statement = insert(connection, jobs).on_conflict_do_nothing(
            index_elements=[jobs.c.key], index_where=KEYED
        )
        made.update(connection.scalars(statement.returning(jobs.c.id), keyed))
    return made


def _owners(connection: Connection, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The job and its spec behind each key."""
    if not keys:
        return {}
    query = select(jobs.c.key, jobs.c.id, jobs.c.spec).where(jobs.c.key.in_(keys))
    return {key: (job_id, spec) for key, job_id, spec in connection.execute(query)}


def _require_same(asked: Spec, stored: str, job_id: str) -> None:
    there = parse_spec(stored)
    # A seed left open takes the one that was drawn the first time.
    steps = tuple(
        step.model_copy(update={"seed": known.seed}) if step.seed is None else step
        for step, known in zip(asked.steps, there.steps, strict=False)
    )
    if len(asked.steps) == len(there.steps) and asked.model_copy(update={"steps": steps}) == there:
        return
    differing = [n for n in Spec.model_fields if getattr(asked, n) != getattr(there, n)]
    raise KeyConflict(
        f"key: {asked.key!r} belongs to job {job_id}, whose {' and '.join(differing)} differ;"
        " a key stands for one spec"
    )


def _with_seeds(spec: Spec) -> Spec:
    steps = tuple(
        step.model_copy(update={"seed": secrets.randbelow(_SEEDS)}) if step.seed is None else step
        for step in spec.steps
    )
    return spec.model_copy(update={"steps": steps})
