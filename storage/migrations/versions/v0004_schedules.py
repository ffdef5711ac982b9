"""Schedules and their firings."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    is_open = sa.text("state IN ('waiting', 'running')")
    op.create_table(
        "schedules",
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("cron", sa.String(200), nullable=False),
        sa.Column("timezone", sa.String(100), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("misfire", sa.String(10), nullable=False),
        sa.Column("overlap", sa.String(10), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("next_at", sa.Double()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_schedules"),
    )
    op.create_table(
        "schedule_firings",
        sa.Column("schedule", sa.String(80), nullable=False),
        sa.Column("due_at", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("batch", sa.String(200), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(200)),
        sa.Column("lease_until", sa.Double()),
        sa.Column("rows", sa.Integer()),
        sa.Column("jobs", sa.Integer()),
        sa.Column("refused", sa.Integer()),
        sa.Column("error_code", sa.String(100)),
        sa.Column("error", sa.Text()),
        sa.Column("started_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        sa.ForeignKeyConstraint(
            ["schedule"],
            ["schedules.name"],
            name="fk_schedule_firings_schedule",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("schedule", "due_at", name="pk_schedule_firings"),
    )
    op.create_index(
        "ix_schedule_firings_due_at",
        "schedule_firings",
        ["due_at"],
        postgresql_where=is_open,
        sqlite_where=is_open,
    )
