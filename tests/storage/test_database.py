import socket
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from storage.database import Database
from storage.errors import LedgerUnavailable, NotConfigured
from storage.ledger import Ledger
from tests.postgres import Postgres
from tests.storage.specs import a_spec


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_postgres_that_is_away_is_named_without_its_password() -> None:
    url = f"postgresql://mill:geheim@127.0.0.1:{free_port()}/jobs?application_name=s3cret"
    with pytest.raises(LedgerUnavailable) as caught:
        Ledger.open(url).counts()

    message = str(caught.value)
    assert "mill:***@127.0.0.1" in message
    assert "refused" in message
    assert "geheim" not in message
    assert "s3cret" not in message
    assert "\n" not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_an_sqlite_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match=r"missing/l.sqlite3.*unable to open"):
        Ledger.open(f"sqlite:///{tmp_path}/missing/l.sqlite3").counts()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "l.sqlite3"
    file.write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerUnavailable, match="not a database"):
        Ledger.open(f"sqlite:///{file}").counts()


def test_many_may_open_a_new_database_at_the_same_moment(tmp_path: Path) -> None:
    def opens(url: str, start: threading.Barrier) -> None:
        database = Database(url)
        start.wait()
        with database.writing() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS fruit (name TEXT)"))
        database.close()

    for number in range(30):
        start = threading.Barrier(4)
        url = f"sqlite:///{tmp_path}/{number}.sqlite3"
        with ThreadPoolExecutor(4) as threads:
            for opened in [threads.submit(opens, url, start) for _ in range(4)]:
                opened.result()


@pytest.mark.parametrize("method", ["counts", "reap", "jobs"])
def test_a_database_without_tables_says_what_to_run(empty_database_url: str, method: str) -> None:
    ledger = Ledger.open(empty_database_url)
    with pytest.raises(NotConfigured, match="run `latentmill migrate`"):
        getattr(ledger, method)()
    ledger.close()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "not a database URL"),
        ("nonsense:geheim", "not a database URL"),
        ("mysql://a:geheim@b/c", "'mysql' is not supported: use sqlite:///path/to/file or postg"),
        ("postgresql+asyncpg://a:geheim@b/c", "'postgresql.asyncpg' is not supported"),
        ("sqlite://", "would be lost"),
        ("sqlite:///:memory:", "would be lost"),
    ],
)
def test_a_url_that_cannot_serve_is_refused_in_one_sentence(url: str, sentence: str) -> None:
    with pytest.raises(NotConfigured, match=sentence) as caught:
        Ledger.open(url)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_usual_spelling_of_a_postgres_url_works(postgres_url: str, scheme: str) -> None:
    ledger = Ledger.open(postgres_url.replace("postgresql", scheme))
    assert ledger.schema()[0] is None
    ledger.close()


def test_sqlite_waits_for_another_writer_and_loses_nothing(sqlite_url: str) -> None:
    ledger = Ledger.open(sqlite_url)
    ledger.upgrade()
    other = sqlite3.connect(
        sqlite_url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False
    )
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(1.0, other.execute, ["COMMIT"]).start()

    begun = time.monotonic()
    ledger.submit([a_spec()])

    assert 0.5 < time.monotonic() - begun < 10
    assert len(ledger.jobs()) == 1
    other.close()
    ledger.close()


def test_sqlite_is_durable_and_keeps_its_references(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    with database.reading() as connection:
        modes = [
            connection.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    database.close()
    assert modes == ["wal", 2, 1, 30_000]


def test_what_fails_within_a_transaction_leaves_nothing(ledger: Ledger, ledger_url: str) -> None:
    database = Database(ledger_url)
    with pytest.raises(RuntimeError), database.writing() as connection:  # noqa: PT012
        connection.execute(
            text(
                "INSERT INTO workers VALUES ('w', 'cpu', 'p', 1, '[]', 0, 0, '{}')",
            )
        )
        raise RuntimeError
    database.close()
    assert ledger.workers(seen_within=1e12) == []


def test_postgres_restarted_between_two_calls_is_not_noticed(postgres: Postgres) -> None:
    with postgres.database(template=postgres.upgraded) as url:
        ledger = Ledger.open(url)
        [submitted] = ledger.submit([a_spec()])
        postgres.restart()
        assert ledger.job(submitted.id).id == submitted.id
        ledger.close()
