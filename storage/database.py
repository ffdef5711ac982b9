"""The connection to the ledger's database: SQLite for one machine, Postgres for many."""

import itertools
import json
import random
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Insert,
    Table,
    Text,
    any_,
    create_engine,
    event,
    func,
    literal,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from storage.errors import LedgerUnavailable, NotConfigured

Values = Mapping[str, Any]

#: Seconds that a writer waits for the others' transactions (SQLite has one writer at a time).
BUSY_TIMEOUT = 30.0
_WRITES = "latentmill_writes"
#: What a statement of SQLite may have.
_PARAMETERS = 32_766


class Database:
    """Short transactions on one database; safe to use from several threads."""

    def __init__(self, url: str) -> None:
        self._url = _parse(url)
        self._engine = _engine(self._url)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._explained(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that commits at the end of the block and rolls back on any exception."""
        with self._explained(), self._engine.connect() as connection:
            connection = connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """One sentence for people instead of a driver's error; never with the password."""
        try:
            yield
        except PoolTimeout as error:
            raise self._unavailable(error) from None
        except DBAPIError as error:
            if _lacks_tables(error):
                raise NotConfigured(
                    f"the database {self} lacks the ledger's tables, or has them from another"
                    " version: run `latentmill migrate`"
                ) from None
            lost = isinstance(error, OperationalError | InterfaceError)
            damaged = type(error) is DatabaseError
            if lost or damaged or error.connection_invalidated:
                raise self._unavailable(error.orig) from None
            raise

    def _unavailable(self, cause: BaseException | None) -> LedgerUnavailable:
        reason = next(iter(str(cause).strip().splitlines()), "no reason given")
        if self._url.password:
            reason = reason.replace(str(self._url.password), "***")
        return LedgerUnavailable(f"the ledger at {self} cannot be used: {reason}")

    def __str__(self) -> str:
        # The query part may hold secrets as well.
        return self._url.set(query={}).render_as_string(hide_password=True)


def insert(connection: Connection, table: Table) -> "sqlite.Insert | postgresql.Insert":
    """An INSERT with ON CONFLICT, which both databases know and standard SQL does not."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def insert_many(connection: Connection, statement: Insert, rows: Sequence[Values]) -> int:
    """Insert rows of plain values that all have the same columns; says how many came in.

    SQLAlchemy's own way takes longer for each row than the database.
    """
    if not rows:
        return 0
    compiled = statement.compile(dialect=connection.dialect, column_keys=list(rows[0]))
    names = getattr(compiled, "positiontup", None)
    if names is None:
        return connection.exec_driver_sql(str(compiled), rows).rowcount
    values = itemgetter(*names)
    one = f"({', '.join('?' * len(names))})"
    # SQLite's driver waits for Python's other threads at each statement's end, so one takes many.
    most, entered = _PARAMETERS // len(names), 0
    for start in range(0, len(rows), most):
        some = rows[start : start + most]
        many = str(compiled).replace(one, ", ".join([one] * len(some)), 1)
        flat = tuple(itertools.chain.from_iterable(map(values, some)))
        entered += connection.exec_driver_sql(many, flat).rowcount
    return entered


def among(
    connection: Connection, column: ColumnElement[str], values: Sequence[str | None]
) -> ColumnElement[bool]:
    """Whether a column has one of many texts: one parameter, whatever their number."""
    if connection.dialect.name == "postgresql":
        return column == any_(literal(list(values), postgresql.ARRAY(Text)))
    each = func.json_each(json.dumps(values)).table_valued("value")
    return column.in_(select(each.c.value))


def storable(text: str) -> str:
    """Without what Postgres refuses: NUL, and halves of surrogate pairs (odd file names)."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _parse(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError:
        raise NotConfigured(
            "database_url: not a database URL: use sqlite:///path/to/file"
            " or postgresql://user@host/name"
        ) from None
    if url.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername != "sqlite":
        raise NotConfigured(
            f"database_url: {url.drivername!r} is not supported: use sqlite:///path/to/file"
            " or postgresql://user@host/name"
        )
    if url.database in (None, "", ":memory:"):
        raise NotConfigured(
            "database_url: an SQLite database in memory would be lost: use sqlite:///path/to/file"
        )
    return url


def _engine(url: URL) -> Engine:
    if url.drivername == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        url,
        # A server that was restarted leaves dead connections behind.
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": 5,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            "application_name": "latentmill",
        },
    )


def _prepare_sqlite(connection: DBAPIConnection, _: Any) -> None:
    assert isinstance(connection, sqlite3.Connection)
    # The driver must not begin transactions by itself: _begin_sqlite does.
    connection.isolation_level = None
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # Rows of a dataset enter its indexes in no order: 2 MB, the default, is too little for that.
    connection.execute("PRAGMA cache_size = -8192")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Readers beside the writer; a database is switched once, for good.

    SQLite does not wait for others here, whatever the timeout: processes that open a new database
    at the same moment would fail.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.005, 0.02))


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that writes takes the lock at once: one that begins by reading cannot wait
    # for it later.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _lacks_tables(error: DBAPIError) -> bool:
    message = str(error.orig)
    if isinstance(error, ProgrammingError):  # Postgres
        return "does not exist" in message
    return "no such table" in message or "has no column" in message or "no such column" in message
