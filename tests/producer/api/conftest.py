"""The API served on a real socket."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from producer import Client
from producer.api.server import Server, make_server
from storage.keys import Keys


@contextmanager
def running(client: Client, host: str = "127.0.0.1") -> Iterator[str]:
    """A server of this client's services; its URL."""
    server: Server = make_server(client, host, 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def url(client: Client) -> Iterator[str]:
    with running(client) as found:
        yield found


@pytest.fixture
def web(url: str) -> Iterator[httpx2.Client]:
    """Somebody on this machine, without a key."""
    with httpx2.Client(base_url=url, timeout=10) as opened:
        yield opened


@pytest.fixture
def keys(client: Client) -> Keys:
    return Keys(client.ledger.database)
