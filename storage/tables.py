"""The ledger's tables. A change here needs a migration; a test compares the two."""

from sqlalchemy import (
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

#: Ids compare byte by byte on every database, so that they sort by age and by prefix.
Id = String(26).with_variant(String(26, collation="C"), "postgresql")

jobs = Table(
    "jobs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("state", String(10), nullable=False),
    Column("pool", String(100), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("run_at", Double, nullable=False),
    Column("key", String(200)),
    Column("spec", Text, nullable=False),
    #: Claims so far: the fencing token of every later write, so it only ever grows.
    Column("attempt", Integer, nullable=False),
    #: Claims that count against max_attempts: a job given back in order gets its own back.
    Column("charged", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("worker", String(200)),
    Column("lease_until", Double),
    Column("step", Integer, nullable=False),
    Column("progress_done", Integer, nullable=False),
    Column("progress_total", Integer, nullable=False),
    Column("error_code", String(100)),
    Column("error", Text),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
)

#: As literals: with a bound parameter no database sees that a partial index serves the query.
IS_QUEUED, IS_RUNNING = text("state = 'queued'"), text("state = 'running'")
#: What claim walks, in its order: the best job stands first.
Index(
    "ix_jobs_ready",
    jobs.c.pool,
    jobs.c.priority.desc(),
    jobs.c.run_at,
    jobs.c.id,
    postgresql_where=IS_QUEUED,
    sqlite_where=IS_QUEUED,
)
Index("ix_jobs_lease", jobs.c.lease_until, postgresql_where=IS_RUNNING, sqlite_where=IS_RUNNING)
Index("ix_jobs_state", jobs.c.state, jobs.c.id)
KEYED = text("key IS NOT NULL")
Index("uq_jobs_key", jobs.c.key, unique=True, postgresql_where=KEYED, sqlite_where=KEYED)

labels = Table(
    "job_labels",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("value", String(200), nullable=False),
)
Index("ix_job_labels_name_value", labels.c.name, labels.c.value, labels.c.job_id)

steps = Table(
    "steps",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("artifact", String(1024)),
    Column("carry", String(1024)),
    Column("carry_kind", String(10)),
    Column("details", Text, nullable=False),
    Column("finished_at", Double, nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("worker", String(200), nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("error_code", String(100)),
    Column("error", Text),
)

workers = Table(
    "workers",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("device", String(100), nullable=False),
    Column("pool", String(100), nullable=False),
    Column("slots", Integer, nullable=False),
    Column("loaded", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
)
