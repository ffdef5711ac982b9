"""Real servers for every test that needs one: started once, given to each test empty."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from storage.embedded.seaweed import running_seaweed
from storage.embedded.valkey import running_valkey
from storage.ledger import Ledger
from storage.objects import Objects
from storage.settings import PREFIX, Settings
from tests.postgres import Postgres, running_postgres


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(f"{PREFIX}HOME", str(tmp_path / "no-home"))


@pytest.fixture(scope="session")
def _valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("valkey")
    with running_valkey(folder, folder / "log") as found:
        yield found["redis_url"]


@pytest.fixture
def redis_url(_valkey: str) -> str:
    """An empty broker."""
    with Redis(unix_socket_path=_valkey.removeprefix("redis+socket://")) as client:
        client.flushall()
    return _valkey


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Settings of an object store; its bucket is shared by all tests."""
    folder = tmp_path_factory.mktemp("seaweed")
    with running_seaweed(folder, folder / "log") as found:
        yield found


@pytest.fixture
def objects(s3: dict[str, str]) -> Objects:
    return Objects.open(Settings(**s3))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A database without tables."""
    return f"sqlite:///{tmp_path / 'ledger.sqlite3'}"


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """A database without tables."""
    with postgres.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """A database without tables, of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    ledger = Ledger.open(f"sqlite:///{file}")
    ledger.upgrade()
    ledger.close()
    return file


@pytest.fixture(params=["sqlite", "postgres"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with the ledger's tables, of each kind."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("_sqlite_template")
        file = tmp_path / "ledger.sqlite3"
        file.write_bytes(template.read_bytes())
        yield f"sqlite:///{file}"
    else:
        server: Postgres = request.getfixturevalue("postgres")
        with server.database(template=server.upgraded) as url:
            yield url


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """An empty ledger, on each kind of database."""
    opened = Ledger.open(ledger_url)
    yield opened
    opened.close()
