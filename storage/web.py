"""Requests to URLs that users give, so that nobody can use them to reach what is not public.

Each host is looked up once, all of its addresses are checked, and the connection goes to one of
those that were checked: a name that changes in between changes nothing. No redirect is followed
here: whoever does checks its target anew.
"""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Url, parse_url

from storage.addresses import Exceptions, is_public

#: Seconds for a connection.
CONNECT_SECONDS = 5.0
_PORTS = {"https": 443, "http": 80}


class Refused(Exception):
    """The URL will not do: a sentence that begins with it."""


class Unreachable(Exception):
    """The URL's server does not answer, or not as it should: that may pass."""


class Deadline:
    """So many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._at - time.monotonic()

    def __str__(self) -> str:
        return f"it took longer than {self.seconds:g} s"


@dataclass(frozen=True)
class Target:
    """One request that was found harmless."""

    url: Url
    host: str
    port: int
    addresses: tuple[str, ...]

    def __str__(self) -> str:
        """For messages: what follows a question mark may be a secret."""
        return shown(self.url.url)


def shown(url: str) -> str:
    """A URL for messages: what follows a question mark may be a secret, and so may a user."""
    plain = url.partition("?")[0].partition("#")[0]
    scheme, _, rest = plain.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"[:200]


def check(url: str, exceptions: Exceptions) -> Target:
    """Look up a URL's host; raises Refused for what must not be reached, or Unreachable."""
    try:
        parsed = parse_url(url)
    except LocationParseError:
        raise Refused(f"{shown(url)} is not a URL") from None
    host = (parsed.host or "").strip("[]").rstrip(".")
    if parsed.scheme not in _PORTS or not host:
        raise Refused(f"{shown(url)} is not of the form https://host/path")
    if parsed.auth is not None:
        raise Refused(f"{shown(url)} must not hold a user name or a password")
    port = parsed.port or _PORTS[parsed.scheme]
    addresses = _look_up(url, host, port)
    for address in map(ip_address, addresses):
        named = exceptions.name(host, address)
        if not (named or is_public(address)):
            raise Refused(
                f"{shown(url)} is not on the public internet;"
                " LATENTMILL_ALLOW_PRIVATE_URLS can name its host or network"
            )
        if parsed.scheme == "http" and not named:
            raise Refused(f"{shown(url)} must begin with https://")
    return Target(parsed, host, port, addresses)


@contextmanager
def asking(
    target: Target,
    deadline: Deadline,
    *,
    method: str = "GET",
    headers: Mapping[str, str],
    body: bytes | None = None,
) -> Iterator[BaseHTTPResponse]:
    """The beginning of a server's answer; whatever happens, the connection ends in time.

    Raises Refused for a certificate that cannot be trusted, else Unreachable.
    """
    connection = _connect(target, deadline)
    # A server may send a byte now and then for ever: no timeout of a single read would end that.
    cut = threading.Timer(deadline.left, _cut, [connection.sock])
    cut.daemon = True
    cut.start()
    try:
        connection.request(
            method,
            target.url.request_uri,
            body=body,
            headers={
                "Host": target.url.netloc or target.host,
                "Accept-Encoding": "identity",
                "User-Agent": "latentmill",
                "Connection": "close",
                **headers,
            },
            preload_content=False,
            decode_content=False,
        )
        response = connection.getresponse()
        with contextlib.closing(response):
            yield response
    except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        why = str(deadline if deadline.left <= 0 else error)
        raise Unreachable(f"{target} could not be read: {why}") from None
    finally:
        cut.cancel()
        connection.close()


def _look_up(url: str, host: str, port: int) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, socket.EAI_FAIL):
            raise Refused(f"{shown(url)}: there is no host {host!r}") from None
        raise Unreachable(f"{shown(url)}: {host!r} could not be looked up") from None
    except (UnicodeError, OverflowError, OSError):
        raise Refused(f"{shown(url)}: {host!r} cannot be looked up") from None
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def _connect(target: Target, deadline: Deadline) -> HTTPConnection:
    """A connection to one of the addresses that were checked."""
    why: object = deadline
    for address in target.addresses:
        if deadline.left <= 0:
            break
        timeout = min(deadline.left, CONNECT_SECONDS)
        connection = (
            HTTPSConnection(
                address, target.port, timeout=timeout, server_hostname=target.host,
                ssl_context=ssl.create_default_context(),
            )
            if target.url.scheme == "https"
            else HTTPConnection(address, target.port, timeout=timeout)
        )  # fmt: skip
        try:
            connection.connect()
            return connection
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise Refused(
                f"{target}: its certificate cannot be trusted: {error.verify_message}"
            ) from None
        except (HTTPError, OSError) as error:
            connection.close()
            why = error
    raise Unreachable(f"{target} could not be reached: {why}")


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # The plain socket's: a TLS one's would make its reader see what was never decrypted.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
