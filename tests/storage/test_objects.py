import hashlib
import os
import signal
import socket
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.embedded.seaweed import running_seaweed
from storage.errors import InvalidSpec, NotConfigured, NotFound, ObjectsUnavailable
from storage.objects import Objects, carry_key, input_key, result_key
from storage.settings import Settings

DATA = bytes(range(256)) * 100


@pytest.fixture
def key() -> str:
    return input_key(os.urandom(16), "png")


def test_what_is_put_comes_back_byte_for_byte(objects: Objects, key: str) -> None:
    assert not objects.exists(key)
    objects.put(key, DATA, "image/png")
    assert objects.get(key) == DATA
    assert objects.size(key) == len(DATA)
    assert objects.exists(key)


def test_a_second_put_replaces_the_first(objects: Objects, key: str) -> None:
    objects.put(key, b"long before", "text/plain")
    objects.put(key, b"after", "text/plain")
    assert objects.get(key) == b"after"


def test_an_object_may_be_empty(objects: Objects, key: str) -> None:
    objects.put(key, b"", "text/plain")
    assert objects.get(key) == b""


def test_what_is_deleted_is_gone_and_deleting_again_harms_nothing(
    objects: Objects, key: str
) -> None:
    objects.put(key, DATA, "image/png")
    objects.delete(key)
    objects.delete(key)
    for ask in (objects.get, objects.size):
        with pytest.raises(NotFound, match=key):
            ask(key)


def test_put_once_writes_once_whoever_comes_first(objects: Objects, key: str) -> None:
    bodies = [f"writer {n}".encode() for n in range(12)]

    with ThreadPoolExecutor(6) as threads:
        written = list(threads.map(lambda b: objects.put_once(key, b, "text/plain"), bodies))

    assert written.count(True) == 1
    assert objects.get(key) == bodies[written.index(True)]


def test_a_link_gives_the_object_to_whoever_has_it(objects: Objects, key: str) -> None:
    objects.put(key, DATA, "image/png")
    link = objects.url(key, seconds=60)

    with urllib.request.urlopen(link) as answer:
        assert answer.read() == DATA
        assert answer.headers["Content-Type"] == "image/png"
    with pytest.raises(urllib.error.HTTPError) as without_signature:
        urllib.request.urlopen(link.partition("?")[0])
    with without_signature.value as answer:
        assert answer.status == 403


def test_a_link_ends(objects: Objects, key: str) -> None:
    objects.put(key, DATA, "image/png")
    link = objects.url(key, seconds=1)
    time.sleep(2.1)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(link)
    with refused.value as answer:
        assert answer.status == 403


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "a.png",
        "inputs",
        "inputs/",
        "/inputs/a.png",
        "inputs//a.png",
        "inputs/../jobs/a.png",
        "inputs/.hidden",
        "other/a.png",
        "inputs/a b.png",
        "inputs/ä.png",
        "inputs/a\n",
        "inputs/" + "a" * 2000,
        "s3://bucket/inputs/a.png",
    ],
)
def test_keys_outside_the_layout_are_refused_before_anything_is_sent(
    objects: Objects, bad: str
) -> None:
    calls = (
        lambda: objects.get(bad),
        lambda: objects.put(bad, b"", "text/plain"),
        lambda: objects.put_once(bad, b"", "text/plain"),
        lambda: objects.delete(bad),
        lambda: objects.size(bad),
        lambda: objects.url(bad),
    )
    for call in calls:
        with pytest.raises(InvalidSpec, match=r"object key .*must be inputs/"):
            call()


def test_keys_follow_the_layout(objects: Objects) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    assert input_key(b"x", "PNG") == input_key(b"x", ".png") == f"inputs/{digest}.png"
    assert result_key("01h", 2, 3) == "jobs/01h/result.png"
    assert result_key("01h", 1, 3) == "jobs/01h/step-1.png"
    assert carry_key("01h", 0) == "carry/01h/0.safetensors"
    assert carry_key("01h", 0, "png") == "carry/01h/0.png"


def test_a_check_passes_and_leaves_nothing(objects: Objects) -> None:
    objects.check()


def test_wrong_credentials_are_called_so(s3: dict[str, str], key: str) -> None:
    wrong = Objects.open(Settings(**{**s3, "s3_secret_key": "geheim"}))
    for call in (wrong.check, lambda: wrong.get(key), lambda: wrong.exists(key)):
        with pytest.raises(NotConfigured, match="refuses these credentials") as caught:
            call()
        assert "geheim" not in str(caught.value)


def test_a_bucket_is_made_when_it_is_missing(s3: dict[str, str], key: str) -> None:
    new = Objects.open(Settings(**{**s3, "s3_bucket": f"b{os.urandom(6).hex()}"}))
    with pytest.raises(NotConfigured, match="does not exist"):
        new.get(key)

    new.ensure_bucket()
    new.ensure_bucket()

    new.check()


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://x", ""])
def test_an_endpoint_that_is_no_web_address_is_refused(endpoint: str) -> None:
    settings = Settings(s3_endpoint_url=endpoint, s3_bucket="b")
    with pytest.raises(NotConfigured, match="must begin with http"):
        Objects.open(settings)


def test_a_server_that_is_not_there_is_reported_soon(key: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
    away = Objects.open(
        Settings(s3_endpoint_url=endpoint, s3_bucket="b", s3_access_key="k", s3_secret_key="geheim")
    )
    begun = time.monotonic()
    with pytest.raises(ObjectsUnavailable, match="'b' at http://127") as caught:
        away.put(key, DATA, "image/png")
    assert time.monotonic() - begun < 10
    assert "geheim" not in str(caught.value)


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[Objects]:
    """A store of the test's own, to be stopped."""
    with running_seaweed(tmp_path / "s3", tmp_path / "log") as found:
        yield Objects.open(Settings(**found))


def test_a_server_that_stops_answering_is_reported_within_a_bounded_time(
    own_store: Objects, key: str, tmp_path: Path
) -> None:
    own_store.put(key, DATA, "image/png")
    pid = pid_of_weed(tmp_path)
    os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        with pytest.raises(ObjectsUnavailable):
            own_store.get(key)
        assert time.monotonic() - begun < 45
    finally:
        os.kill(pid, signal.SIGCONT)
    assert own_store.get(key) == DATA


def pid_of_weed(folder: Path) -> int:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"-dir={folder}".encode() in (process / "cmdline").read_bytes():
                return int(process.name)
        except OSError:
            continue
    raise AssertionError("no weed runs here")


def test_the_embedded_store_keeps_its_credentials_to_its_owner(
    own_store: Objects, tmp_path: Path
) -> None:
    assert stat.S_IMODE((tmp_path / "s3" / "credentials.json").stat().st_mode) == 0o600
    pid = pid_of_weed(tmp_path)
    assert b"SECRET" not in Path(f"/proc/{pid}/cmdline").read_bytes()
