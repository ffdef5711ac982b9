"""Owners of jobs, API keys, events and webhook deliveries."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def an_id() -> sa.types.TypeEngine[str]:
    return sa.String(26).with_variant(sa.String(26, collation="C"), "postgresql")


def counted() -> sa.Column[int]:
    return sa.Column(
        "id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True, nullable=False
    )


def create_index(
    name: str, table: str, columns: list[Any], where: str, unique: bool = False
) -> None:
    predicate = sa.text(where)
    op.create_index(
        name, table, columns, unique=unique, postgresql_where=predicate, sqlite_where=predicate
    )


def upgrade() -> None:
    op.add_column("jobs", sa.Column("owner", sa.String(100), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("webhook_url", sa.Text()))
    op.drop_index("uq_jobs_key", "jobs")
    create_index("uq_jobs_owner_key", "jobs", ["owner", "key"], "key IS NOT NULL", unique=True)
    create_index("ix_jobs_owner", "jobs", ["owner", "id"], "owner <> ''")
    create_index("ix_jobs_owner_state", "jobs", ["owner", "state", "id"], "owner <> ''")
    create_index(
        "ix_jobs_error_code_state", "jobs", ["error_code", "state"], "error_code IS NOT NULL"
    )
    op.create_table(
        "api_keys",
        sa.Column("id", an_id(), nullable=False),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("scope", sa.String(10), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("hint", sa.String(20), nullable=False),
        sa.Column("webhook_secret", sa.String(100), nullable=False),
        sa.Column("max_queued", sa.Integer()),
        sa.Column("max_pixels", sa.BigInteger()),
        sa.Column("max_per_minute", sa.Integer()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("revoked_at", sa.Double()),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )
    op.create_index("uq_api_keys_hash", "api_keys", ["hash"], unique=True)
    op.create_index("ix_api_keys_owner", "api_keys", ["owner"])
    postgres = op.get_bind().dialect.name == "postgresql"
    this = "CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT)" if postgres else "0"
    op.create_table(
        "events",
        counted(),
        sa.Column("transaction", sa.BigInteger(), nullable=False, server_default=sa.text(this)),
        sa.Column("job_id", an_id(), nullable=False),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("batch", sa.String(200)),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.String(100)),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_transaction", "events", ["transaction", "id"])
    op.create_index("ix_events_job_id", "events", ["job_id", "transaction", "id"])
    op.create_index("ix_events_at", "events", ["at"])
    op.create_table(
        "deliveries",
        counted(),
        sa.Column("job_id", an_id(), nullable=False),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("error_code", sa.String(100)),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("delivered", sa.Boolean(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("ended_at", sa.Double()),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sqlite_autoincrement=True,
    )
    create_index("ix_deliveries_due", "deliveries", ["due_at"], "ended_at IS NULL")
    op.create_index("ix_deliveries_job_id", "deliveries", ["job_id"])
    op.create_index("ix_deliveries_ended_at", "deliveries", ["ended_at"])
