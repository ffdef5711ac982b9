"""Batches and their rows."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def an_id() -> sa.types.TypeEngine[str]:
    return sa.String(26).with_variant(sa.String(26, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", an_id(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("submitted_at", sa.Double()),
        sa.Column("total", sa.Integer()),
        sa.Column("pilot", sa.Text()),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    op.create_index("ix_batches_name", "batches", ["name", "id"])
    op.create_table(
        "batch_rows",
        sa.Column("batch_id", an_id(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("entry", sa.String(1024)),
        sa.Column("variant", sa.String(400), nullable=False),
        sa.Column("file", sa.Text()),
        sa.Column("cells", sa.Text()),
        sa.Column("job_id", an_id()),
        sa.Column("outcome", sa.String(10), nullable=False),
        sa.Column("code", sa.String(100)),
        sa.Column("reason", sa.Text()),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name="fk_batch_rows_batch_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_batch_rows_job_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("batch_id", "number", name="pk_batch_rows"),
    )
    op.create_index("ix_batch_rows_job_id", "batch_rows", ["batch_id", "job_id"])
    op.create_index(
        "uq_batch_rows_name", "batch_rows", ["batch_id", "entry", "variant"], unique=True
    )
