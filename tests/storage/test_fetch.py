"""Fetching by URL: from a real server over TLS; only what names lead to is made up."""

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from storage import fetch as module
from storage.addresses import Exceptions
from storage.errors import InputUnavailable, InvalidImage
from storage.fetch import check, fetch, shown
from tests.web import make_certificate, name_hosts, running_web, send

DATA = b"a picture" * 1000
MOST = 20_000
HOME = Exceptions.parse(["pictures.test"])
HERE = {"pictures.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A header that never ends."""
    handler.send_response(200)
    handler.flush_headers()
    for _ in range(200):
        handler.wfile.write(b"x")
        time.sleep(0.05)


def cut_short(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "9000")
    handler.end_headers()
    handler.wfile.write(b"x" * 10)


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 4096)


ANSWERS = {
    "/cat.png": send(DATA),
    "/moved": send(b"", 302, Location="/cat.png"),
    "/round": send(b"", 301, Location="/round"),
    "/inside": send(b"", 302, Location="https://127.0.0.1/latest/meta-data"),
    "/plain": send(b"", 302, Location="http://pictures.example/cat.png"),
    "/gone": send(b"", 404),
    "/busy": send(b"", 503),
    "/zipped": send(b"\x1f\x8b rest", Content_Encoding="gzip"),
    "/large": send(b"x" * (MOST + 1)),
    "/endless": endless,
    "/drip": drip,
    "/cut": cut_short,
}


@pytest.fixture(scope="module")
def port(certificate: Path) -> Iterator[int]:
    with running_web(ANSWERS, certificate) as port:
        yield port


@pytest.fixture
def site(port: int, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the server, whose certificate is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    name_hosts(monkeypatch, HERE)
    return f"https://pictures.test:{port}"


@pytest.mark.parametrize("path", ["/cat.png", "/cat.png?size=1", "/moved"])
def test_what_a_url_names_is_read(site: str, path: str) -> None:
    assert fetch(site + path, HOME, MOST) == DATA


def test_an_encoded_answer_is_not_unpacked(site: str) -> None:
    assert fetch(f"{site}/zipped", HOME, MOST) == b"\x1f\x8b rest"


@pytest.mark.parametrize(
    ("path", "error", "sentence"),
    [
        ("/round", InvalidImage, "redirects more than 3 times"),
        ("/inside", InvalidImage, "127.0.0.1/latest/meta-data is not on the public internet"),
        ("/gone", InvalidImage, "/gone answered 404 Not Found"),
        ("/busy", InputUnavailable, "answered 503"),
        ("/large", InvalidImage, "more than 20,000 bytes"),
        ("/endless", InvalidImage, "more than 20,000 bytes"),
        ("/cut", InputUnavailable, "could not be read"),
    ],
)
def test_what_will_not_do_is_one_sentence(
    site: str, path: str, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        fetch(f"{site}{path}?token=secret", HOME, MOST)
    assert sentence in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_never_comes_to_an_end_is_left_in_time(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS", 1.0)
    begun = time.monotonic()
    with pytest.raises(InputUnavailable, match="took longer than 1 s"):
        fetch(f"{site}/drip", HOME, MOST)
    assert time.monotonic() - begun < 5


def test_a_name_is_looked_up_once_and_the_connection_goes_where_it_was_checked(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # From the second look-up on the name leads where nothing listens.
    asked = name_hosts(monkeypatch, HERE, {"pictures.test": ["127.0.0.9"]})
    assert fetch(f"{site}/cat.png", HOME, MOST) == DATA
    assert asked == ["pictures.test"]


def test_every_address_of_a_name_must_be_public(monkeypatch: pytest.MonkeyPatch) -> None:
    name_hosts(monkeypatch, {"two.example": ["93.184.215.14", "10.0.0.1"]})
    with pytest.raises(InvalidImage, match="not on the public internet"):
        check("https://two.example/", Exceptions())
    name_hosts(monkeypatch, {"one.example": ["93.184.215.14"]})
    assert check("https://one.example/", Exceptions()).addresses == ("93.184.215.14",)


def test_what_nobody_named_is_not_reached(site: str, port: int) -> None:
    for exceptions in (Exceptions(), Exceptions.parse(["other.test", "10.0.0.0/8"])):
        with pytest.raises(InvalidImage, match="LATENTMILL_ALLOW_PRIVATE_URLS can name"):
            fetch(f"{site}/cat.png", exceptions, MOST)
    assert fetch(f"{site}/cat.png", Exceptions.parse(["127.0.0.0/8"]), MOST) == DATA


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "0", "[::1]", "[::]",
     "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "169.254.169.254", "[64:ff9b::a9fe:a9fe]"],
)  # fmt: skip
def test_no_way_of_writing_an_address_leads_inside(host: str) -> None:
    with pytest.raises(InvalidImage):
        check(f"https://{host}/", Exceptions())


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://93.184.215.14/cat.png", "must begin with https://"),
        ("https://me:secret@93.184.215.14/cat.png", "must not hold a user name"),
        ("file:///etc/passwd", "is not of the form https://host/path"),
        ("gopher://93.184.215.14/", "is not of the form https://host/path"),
        ("https://93.184.215.14:99999/", "is not a URL"),
        ("https:///cat.png", "is not of the form"),
    ],
)
def test_a_url_of_another_kind_is_refused(url: str, sentence: str) -> None:
    with pytest.raises(InvalidImage) as caught:
        check(url, Exceptions())
    assert sentence in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_redirect_from_tls_to_none_is_refused(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name_hosts(monkeypatch, {**HERE, "pictures.example": ["93.184.215.14"]})
    with pytest.raises(InvalidImage, match="must begin with https://"):
        fetch(f"{site}/plain", HOME, MOST)


def test_a_host_that_was_named_needs_no_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    name_hosts(monkeypatch, HERE)
    with running_web(ANSWERS, None) as port:
        assert fetch(f"http://pictures.test:{port}/cat.png", HOME, MOST) == DATA


def test_a_certificate_that_nobody_vouches_for_is_refused(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_hosts(monkeypatch, HERE)
    with pytest.raises(InvalidImage, match="its certificate cannot be trusted: self-signed"):
        fetch(f"https://pictures.test:{port}/cat.png", HOME, MOST)


def test_a_certificate_of_another_host_is_refused(
    site: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_hosts(monkeypatch, {"wrong.test": ["127.0.0.1"]})
    with pytest.raises(InvalidImage, match="its certificate cannot be trusted: Hostname mismatch"):
        fetch(f"https://wrong.test:{port}/cat.png", Exceptions.parse(["wrong.test"]), MOST)


def test_where_nothing_listens_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    name_hosts(monkeypatch, HERE)
    with pytest.raises(InputUnavailable, match="could not be reached"):
        fetch("https://pictures.test:9/cat.png", HOME, MOST)


def test_a_url_is_shown_without_its_secrets() -> None:
    assert shown("https://me:pw@host:8/a/b?sig=secret#x") == "https://host:8/a/b"
