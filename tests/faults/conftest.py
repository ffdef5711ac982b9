"""One broker for all of these tests, to be killed; a ledger of its own for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.faults.mill import Broker, Mill, running_mill
from tests.faults.s3_proxy import Proxy, no_fault, running_proxy
from tests.postgres import Postgres


@pytest.fixture(scope="session")
def _broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def broker(_broker: Broker) -> Broker:
    """Running, and empty."""
    with Redis(unix_socket_path=_broker.url.removeprefix("redis+socket://")) as client:
        client.flushall()
    return _broker


@pytest.fixture(scope="session")
def _proxy(s3: dict[str, str]) -> Iterator[Proxy]:
    with running_proxy(s3["s3_endpoint_url"]) as proxy:
        yield proxy


@pytest.fixture
def proxy(_proxy: Proxy) -> Iterator[Proxy]:
    """Without a fault."""
    yield _proxy
    _proxy.choose, _proxy.refusing = no_fault, False


@pytest.fixture
def _sqlite_ledger(tmp_path: Path, _sqlite_template: Path) -> str:
    file = tmp_path / "ledger.sqlite3"
    file.write_bytes(_sqlite_template.read_bytes())
    return f"sqlite:///{file}"


@pytest.fixture
def _postgres_ledger(postgres: Postgres) -> Iterator[str]:
    with postgres.database(template=postgres.upgraded) as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def database_url(request: pytest.FixtureRequest) -> str:
    """A ledger; `make chaos` tries every fault on both kinds."""
    url: str = request.getfixturevalue(f"_{request.param}_ledger")
    return url


@pytest.fixture
def mill(
    tmp_path: Path, database_url: str, broker: Broker, proxy: Proxy, s3: dict[str, str]
) -> Iterator[Mill]:
    with running_mill(tmp_path, database_url, broker, proxy, s3) as mill:
        yield mill
