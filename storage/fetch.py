"""Fetching the picture that a URL names: see storage.web for what keeps that harmless."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urljoin

from urllib3.response import BaseHTTPResponse

from storage import web
from storage.addresses import Exceptions
from storage.errors import InputUnavailable, InvalidImage
from storage.web import Deadline, Target, asking, shown

__all__ = ["check", "fetch", "shown"]

REDIRECTS = 3
#: Seconds for all of it.
SECONDS = 30.0
CHUNK = 2**16
_MOVED = (301, 302, 303, 307, 308)
#: Answers that may be others later, beside those from 500 on.
_LATER = (408, 425, 429)


def fetch(url: str, exceptions: Exceptions, most: int) -> bytes:
    """The bytes behind a URL, at most so many.

    Raises InvalidImage for what will not do, InputUnavailable for what may pass.
    """
    deadline = Deadline(SECONDS)
    for _ in range(REDIRECTS + 1):
        target = check(url, exceptions)
        with _explained(), asking(target, deadline, headers={"Accept": "image/*"}) as response:
            location = response.headers.get("Location")
            if response.status in _MOVED and location:
                url = urljoin(url, location)
                continue
            return _body(target, response, most, deadline)
    raise InvalidImage(f"image: {shown(url)} redirects more than {REDIRECTS} times")


def check(url: str, exceptions: Exceptions) -> Target:
    """Look up a URL's host; raises InvalidImage for what must not be reached."""
    with _explained():
        return web.check(url, exceptions)


@contextmanager
def _explained() -> Iterator[None]:
    """Errors of ours, naming the field."""
    try:
        yield
    except web.Refused as error:
        raise InvalidImage(f"image: {error}") from None
    except web.Unreachable as error:
        raise InputUnavailable(f"image: {error}") from None


def _body(target: Target, response: BaseHTTPResponse, most: int, deadline: Deadline) -> bytes:
    if response.status != 200:
        sentence = f"image: {target} answered {response.status} {response.reason or ''}".rstrip()
        passing = response.status >= 500 or response.status in _LATER
        raise InputUnavailable(sentence) if passing else InvalidImage(sentence)
    too_large = InvalidImage(f"image: {target} has more than {most:,} bytes")
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) > most:
        raise too_large
    data = bytearray()
    while chunk := response.read1(CHUNK):
        data += chunk
        if len(data) > most:
            raise too_large
    if deadline.left <= 0:  # what was cut off may look like an end
        raise TimeoutError
    return bytes(data)
