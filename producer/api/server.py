"""The server process: uvicorn around the app."""

import ipaddress
import socket

import uvicorn
from fastapi import FastAPI

from producer.api.app import make_app
from producer.client import Client
from storage.errors import NotConfigured
from storage.keys import Keys

#: Seconds that running requests have when the server is told to stop.
GRACE = 5
#: Seconds that an idle connection is kept: longer than clients and proxies keep theirs.
KEEP_ALIVE = 75


class Server(uvicorn.Server):
    """Ends the streams of those who watch before it waits for its requests to end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        assert isinstance(app, FastAPI)
        app.state.mill.feed.close()
        await super().shutdown(sockets)


def make_server(client: Client, host: str, port: int) -> Server:
    """A server that is ready to run; raises NotConfigured."""
    local = is_loopback(host)
    found, wanted = client.ledger.schema()
    if found != wanted:
        raise NotConfigured(
            f"the database is at revision {found or 'none'}, this version needs {wanted}:"
            " run `latentmill migrate`"
        )
    if not local and not Keys(client.ledger.database).exist():
        raise NotConfigured(
            f"without keys the API serves this machine only, not {host}: make one with"
            " `latentmill keys add OWNER`, or use --host 127.0.0.1"
        )
    # What is not configured must come to light now.
    _ = client.objects, client.broker, client.models
    return Server(
        uvicorn.Config(
            make_app(client, local=local),
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,
        )
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to this host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
