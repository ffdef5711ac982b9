"""The ledger's tables. A change here needs a migration; a test compares the two."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TextClause,
    and_,
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
    Column("batch", String(200)),
    #: Whose API key asked for it. Empty: nobody's, as of whoever reaches the ledger itself.
    Column("owner", String(100), nullable=False, server_default=""),
    Column("webhook_url", Text),
    #: Its place among jobs of equal priority: see storage.fairness. NULL: not yet, or not again.
    Column("turn", BigInteger),
    #: What the step that comes next needs on the device.
    Column("next_model", String(400)),
    Column("deadline", Double),
    #: A running job's owner shall let it go; a queued job never has this mark.
    Column("cancel_requested", Boolean, nullable=False),
    #: The bucket may hold carries of it.
    Column("carries", Boolean, nullable=False),
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
IS_RUNNING = text("state = 'running'")
IS_READY = text("state = 'queued' AND turn IS NOT NULL")
IS_DELAYED = text("state = 'queued' AND turn IS NULL")
HAS_DEADLINE = text("deadline IS NOT NULL")
HAS_HAD_ITS_TURN = text("attempt > 0 AND turn IS NOT NULL")
IS_LITTERED = text("carries AND finished_at IS NOT NULL")
IS_IN_BATCH, IS_KEYED = text("batch IS NOT NULL"), text("key IS NOT NULL")
IS_OWNED, HAS_ERROR = text("owner <> ''"), text("error_code IS NOT NULL")


def _partial(
    name: str,
    where: ColumnElement[bool] | TextClause,
    *columns: ColumnElement[Any],
    unique: bool = False,
) -> None:
    Index(name, *columns, postgresql_where=where, sqlite_where=where, unique=unique)


#: What claim walks, in its order: the best job stands first.
_partial("ix_jobs_ready", IS_READY, jobs.c.pool, jobs.c.priority.desc(), jobs.c.turn, jobs.c.id)
#: The same for one model.
_partial(
    "ix_jobs_ready_model",
    IS_READY,
    jobs.c.pool,
    jobs.c.next_model,
    jobs.c.priority.desc(),
    jobs.c.turn,
    jobs.c.id,
)
#: Which of them has been due for longest.
_partial("ix_jobs_ready_since", IS_READY, jobs.c.pool, jobs.c.priority, jobs.c.run_at)
#: The last of a batch.
_partial(
    "ix_jobs_ready_batch",
    and_(IS_READY, IS_IN_BATCH),
    jobs.c.batch,
    jobs.c.pool,
    jobs.c.priority,
    jobs.c.turn,
)
_partial("ix_jobs_delayed", IS_DELAYED, jobs.c.pool, jobs.c.run_at)
_partial("ix_jobs_deadline", HAS_DEADLINE, jobs.c.state, jobs.c.deadline)
_partial("ix_jobs_turn", HAS_HAD_ITS_TURN, jobs.c.pool, jobs.c.priority, jobs.c.turn)
_partial("ix_jobs_littered", IS_LITTERED, jobs.c.id)
_partial("ix_jobs_batch", IS_IN_BATCH, jobs.c.batch, jobs.c.id)
_partial("ix_jobs_lease", IS_RUNNING, jobs.c.lease_until)
_partial("uq_jobs_owner_key", IS_KEYED, jobs.c.owner, jobs.c.key, unique=True)
_partial("ix_jobs_owner", IS_OWNED, jobs.c.owner, jobs.c.id)
_partial("ix_jobs_owner_state", IS_OWNED, jobs.c.owner, jobs.c.state, jobs.c.id)
_partial("ix_jobs_error_code_state", HAS_ERROR, jobs.c.error_code, jobs.c.state)
Index("ix_jobs_state", jobs.c.state, jobs.c.id)

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
    Column("figures", Text, nullable=False),
)
