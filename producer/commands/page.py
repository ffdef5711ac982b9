"""The web page of the embedded stack: a server of its own, and the key that opens it."""

import os
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from producer.commands.serve import PORT, is_installed
from storage.embedded.files import write_private
from storage.errors import Unavailable
from storage.keys import Keys, Scope
from storage.ledger import Ledger
from storage.settings import PREFIX, Settings, require

__all__ = ["PORT", "environment", "page_key", "running_page"]

#: The key of the stack's owner, in the stack's home; nobody else may read it.
KEY_FILE = "api-key"
#: Seconds until the server must answer.
_START = 60.0
_SERVICES = {
    f"{PREFIX}{field}"
    for field in ("DATABASE_URL", "REDIS_URL", "S3_ENDPOINT_URL", "S3_BUCKET", "S3_REGION",
                  "S3_ACCESS_KEY", "S3_SECRET_KEY")
}  # fmt: skip


def environment(home: Path) -> dict[str, str]:
    """For processes of a home's stack: services of the environment would be stronger."""
    env = {name: value for name, value in os.environ.items() if name not in _SERVICES}
    return {**env, f"{PREFIX}HOME": str(home)}


def page_key(settings: Settings) -> str:
    """The token of the home's own key, which is made when the stack starts for the first time."""
    file = settings.home / KEY_FILE
    ledger = Ledger.open(require(settings, "database_url"))
    try:
        keys = Keys(ledger.database)
        token = file.read_text().strip() if file.exists() else ""
        if not token or keys.find(token) is None:
            token = keys.add("local", Scope.ADMIN).token
            write_private(file, token)
        return token
    finally:
        ledger.close()


@contextmanager
def running_page(settings: Settings, port: int) -> Iterator[str | None]:
    """Serve the page; its URL with the key, or None where the server is not installed.

    The key stands behind a #: browsers keep that part to themselves, so no log shows it.
    """
    from storage.embedded.process import running_process

    if not is_installed():
        yield None
        return
    key, port = page_key(settings), _free(port)
    log = settings.home / "logs" / "serve.log"
    command = [sys.executable, "-P", "-m", "producer", "serve", "--port", str(port)]
    with running_process(command, log, environment(settings.home)) as process:
        url, until = f"http://127.0.0.1:{port}", time.monotonic() + _START
        while not _answers(f"{url}/healthz"):
            if process.poll() is not None or time.monotonic() > until:
                raise Unavailable(f"the web page's server did not start: see {log}")
            time.sleep(0.1)
        yield f"{url}/#key={key}"


def _answers(url: str) -> bool:
    try:
        with closing(urllib.request.urlopen(url, timeout=1)) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _free(port: int) -> int:
    """This port, or any if somebody has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
        except OSError:
            pass
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
