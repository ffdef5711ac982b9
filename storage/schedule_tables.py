"""The tables of schedules: what is submitted again and again, and each time that it was."""

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from storage.batch_tables import metadata

__all__ = ["IS_OPEN", "firings", "metadata", "schedules"]

schedules = Table(
    "schedules",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("cron", String(200), nullable=False),
    Column("timezone", String(100), nullable=False),
    Column("source", Text, nullable=False),
    #: JSON, in the form in which a recipe is read.
    Column("recipe", Text, nullable=False),
    Column("misfire", String(10), nullable=False),
    Column("overlap", String(10), nullable=False),
    Column("paused", Boolean, nullable=False),
    #: NULL: it never comes again.
    Column("next_at", Double),
    Column("created_at", Double, nullable=False),
)

#: One row for each due time: whoever enters it first has fired it.
firings = Table(
    "schedule_firings",
    metadata,
    Column(
        "schedule",
        String(80),
        ForeignKey("schedules.name", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("due_at", Double, primary_key=True, autoincrement=False),
    Column("state", String(10), nullable=False),
    #: The name of the batch that it makes.
    Column("batch", String(200), nullable=False),
    #: Claims so far: the fencing token of every later write.
    Column("attempt", Integer, nullable=False),
    Column("worker", String(200)),
    #: From then on, another worker may take it over.
    Column("lease_until", Double),
    Column("rows", Integer),
    Column("jobs", Integer),
    Column("refused", Integer),
    Column("error_code", String(100)),
    Column("error", Text),
    Column("started_at", Double),
    Column("finished_at", Double),
)

IS_OPEN = text("state IN ('waiting', 'running')")
Index(
    "ix_schedule_firings_due_at", firings.c.due_at, postgresql_where=IS_OPEN, sqlite_where=IS_OPEN
)
