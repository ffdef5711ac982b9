"""Fair turns, times, cancelation, and what a job leaves in the bucket."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

QUEUED = "state = 'queued'"
READY = f"{QUEUED} AND turn IS NOT NULL"


def create_index(name: str, columns: list[Any], where: str) -> None:
    predicate = sa.text(where)
    op.create_index(name, "jobs", columns, postgresql_where=predicate, sqlite_where=predicate)


def upgrade() -> None:
    for column in (
        sa.Column("batch", sa.String(200)),
        # Jobs that wait have none yet: the next claim gives it to them.
        sa.Column("turn", sa.BigInteger()),
        sa.Column("next_model", sa.String(400)),
        sa.Column("deadline", sa.Double()),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("carries", sa.Boolean(), nullable=False, server_default=sa.false()),
    ):
        op.add_column("jobs", column)
    descending: sa.ColumnClause[int] = sa.literal_column("priority DESC")
    op.drop_index("ix_jobs_ready", "jobs")
    create_index("ix_jobs_ready", ["pool", descending, "turn", "id"], READY)
    create_index("ix_jobs_ready_model", ["pool", "next_model", descending, "turn", "id"], READY)
    create_index("ix_jobs_ready_since", ["pool", "priority", "run_at"], READY)
    create_index(
        "ix_jobs_ready_batch",
        ["batch", "pool", "priority", "turn"],
        f"{READY} AND batch IS NOT NULL",
    )
    create_index("ix_jobs_delayed", ["pool", "run_at"], f"{QUEUED} AND turn IS NULL")
    create_index("ix_jobs_deadline", ["state", "deadline"], "deadline IS NOT NULL")
    create_index("ix_jobs_turn", ["pool", "priority", "turn"], "attempt > 0 AND turn IS NOT NULL")
    create_index("ix_jobs_littered", ["id"], "carries AND finished_at IS NOT NULL")
    create_index("ix_jobs_batch", ["batch", "id"], "batch IS NOT NULL")
    fill()


def fill() -> None:
    """What the new columns say of jobs that are there already."""
    jobs = sa.table(
        "jobs", *map(sa.column, ("id", "state", "spec", "step", "attempt", "next_model", "carries"))
    )
    connection = op.get_bind()
    # Jobs that failed under their worker kept their carries.
    left = sa.and_(jobs.c.state != "succeeded", jobs.c.attempt > 0)
    connection.execute(sa.update(jobs).where(left).values(carries=sa.true()))
    open_ = jobs.c.state.in_(("queued", "running"))
    for job_id, spec, step in connection.execute(
        sa.select(jobs.c.id, jobs.c.spec, jobs.c.step).where(open_)
    ).all():
        try:
            model = json.loads(spec)["steps"][step]["model"]
        except (ValueError, LookupError, TypeError):
            continue  # the claim will say what is wrong with it
        connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(next_model=model))
