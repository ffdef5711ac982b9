"""The tables of what the HTTP API adds: keys, events and webhook deliveries."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from storage.tables import Id, metadata

__all__ = ["IS_OPEN", "api_keys", "deliveries", "events", "metadata"]

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner", String(100), nullable=False),
    Column("scope", String(10), nullable=False),
    #: SHA-256 of the token, in hex.
    Column("hash", String(64), nullable=False),
    #: How the token begins, so that people can tell keys apart.
    Column("hint", String(20), nullable=False),
    #: Signs the webhooks of the owner's jobs, so it has to be readable.
    Column("webhook_secret", String(100), nullable=False),
    Column("max_queued", Integer),
    Column("max_pixels", BigInteger),
    Column("max_per_minute", Integer),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
)
Index("uq_api_keys_hash", api_keys.c.hash, unique=True)
Index("ix_api_keys_owner", api_keys.c.owner)

#: What happened to jobs, in the order in which it was committed: see storage.events.
events = Table(
    "events",
    metadata,
    # BIGINT keeps no sequence of its own on SQLite.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    #: Set by the database; 0 on SQLite, which has one writer at a time.
    Column("transaction", BigInteger, nullable=False),
    Column("job_id", Id, nullable=False),
    Column("owner", String(100), nullable=False),
    Column("batch", String(200)),
    Column("kind", String(10), nullable=False),
    Column("step", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("error_code", String(100)),
    Column("at", Double, nullable=False),
    # Else an id could come back once the last events are pruned.
    sqlite_autoincrement=True,
)
Index("ix_events_transaction", events.c.transaction, events.c.id)
Index("ix_events_job_id", events.c.job_id, events.c.transaction, events.c.id)
Index("ix_events_at", events.c.at)

IS_OPEN = text("ended_at IS NULL")

#: One webhook call, tried until it is answered or given up.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("job_id", Id, nullable=False),
    Column("owner", String(100), nullable=False),
    Column("url", Text, nullable=False),
    #: What the job had come to when it ended.
    Column("state", String(10), nullable=False),
    Column("error_code", String(100)),
    Column("at", Double, nullable=False),
    #: Tries so far: the fencing token of whoever makes the last one.
    Column("attempt", Integer, nullable=False),
    #: Nobody tries it before; while one does, the end of its lease.
    Column("due_at", Double, nullable=False),
    Column("delivered", Boolean, nullable=False),
    Column("error", Text),
    Column("ended_at", Double),
    sqlite_autoincrement=True,
)
Index(
    "ix_deliveries_due",
    deliveries.c.due_at,
    postgresql_where=IS_OPEN,
    sqlite_where=IS_OPEN,
)
Index("ix_deliveries_job_id", deliveries.c.job_id)
Index("ix_deliveries_ended_at", deliveries.c.ended_at)
