"""The embedded stack: broker, object store and ledger of one machine, found through its home."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from sqlalchemy import URL

from storage.embedded.files import write_private
from storage.embedded.lock import locked
from storage.embedded.seaweed import running_seaweed
from storage.embedded.valkey import running_valkey
from storage.ledger import Ledger
from storage.settings import STACK_FILE, Settings, load_settings

LEDGER_FILE = "ledger.sqlite3"


@contextmanager
def running_stack(home: Path) -> Iterator[Settings]:
    """Start all servers with their data in `home`, and stop them at the end of the block.

    Other processes find them through `home`/stack.json. SIGTERM and SIGINT end the block as
    SystemExit and KeyboardInterrupt do. Raises NotConfigured when a stack runs there already.
    """
    home = home.expanduser().absolute()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    logs = home / "logs"
    with locked(home), ExitStack() as stack:
        stack.enter_context(_signals_as_exceptions())
        found = {"database_url": _database(home)}
        found |= stack.enter_context(running_valkey(home / "valkey", logs / "valkey.log"))
        found |= stack.enter_context(running_seaweed(home / "seaweed", logs / "seaweed.log"))
        write_private(home / STACK_FILE, json.dumps(found, indent=2))
        stack.callback((home / STACK_FILE).unlink, missing_ok=True)
        yield load_settings(home=home, **found)


def _database(home: Path) -> str:
    url = URL.create("sqlite", database=str(home / LEDGER_FILE)).render_as_string()
    ledger = Ledger.open(url)
    try:
        ledger.upgrade()
    finally:
        ledger.close()
    return url


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """The first SIGTERM or SIGINT ends the block; a second does not cut its end short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
