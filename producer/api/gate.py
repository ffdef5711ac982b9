"""Who asks, and what they may: keys, scopes, requests a minute, and where browsers come from."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from storage.errors import Forbidden, LimitExceeded, Unauthorized
from storage.keys import Key, Keys, Scope

#: Seconds after which a revoked key no longer opens anything.
REMEMBERED = 5.0
#: Tokens remembered; wrong ones count too.
_MOST = 10_000
_LOCAL = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Whose request it is. Without a key: the user of this machine, who may do everything."""

    key: Key | None

    @property
    def owner(self) -> str:
        """Whose the jobs are that this request enters."""
        return self.key.owner if self.key else ""

    @property
    def sees(self) -> str | None:
        """Whose jobs are shown; None: everybody's."""
        return None if self.allows(Scope.ADMIN) else self.owner

    def allows(self, scope: Scope) -> bool:
        return self.key is None or self.key.scope.allows(scope)


class Gate:
    """Finds the caller of a request.

    `local`: the server is bound to loopback. Then it also serves without a key, as long as there
    never was one; and a web page of some other site cannot use it by way of a browser, since
    requests that name another host or origin are refused (DNS rebinding).
    """

    def __init__(self, keys: Keys, *, local: bool) -> None:
        self._keys, self._local = keys, local
        self._known: dict[str, tuple[float, Key | None]] = {}
        self._rates: dict[str, Rate] = {}
        self._keyless = (0.0, False)

    async def caller(self, token: str | None) -> Caller:
        """Raises Unauthorized, or LimitExceeded when the key has used up its requests."""
        if token is None:
            if self._local and await self._has_no_keys():
                return Caller(key=None)
            raise Unauthorized("a key is needed: send it as `Authorization: Bearer lm_…`")
        key = await self._find(token)
        if key is None:
            raise Unauthorized("this key is not known here, or was revoked")
        if key.max_per_minute is not None:
            rate = self._rates.setdefault(key.id, Rate())
            rate.take(key.max_per_minute, time.monotonic())
        return Caller(key=key)

    def check_browser(self, request: Request) -> None:
        """Raises Forbidden for what a browser sends in another site's name."""
        if not self._local:
            return
        host = request.headers.get("host", "")
        if _name(host) not in _LOCAL:
            raise Forbidden(f"this server only answers to localhost, not to {host[:100]!r}")
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise Forbidden(f"requests from pages of {origin[:100]!r} are refused")

    async def _find(self, token: str) -> Key | None:
        now = time.monotonic()
        known = self._known.get(token)
        if known is not None and now < known[0]:
            return known[1]
        key = await run_in_threadpool(self._keys.find, token)
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[token] = now + REMEMBERED, key
        return key

    async def _has_no_keys(self) -> bool:
        until, keyless = self._keyless
        if time.monotonic() >= until:
            keyless = not await run_in_threadpool(self._keys.exist)
            self._keyless = time.monotonic() + REMEMBERED, keyless
        return keyless


class Rate:
    """Requests of one key: a bucket that fills up steadily, and holds a minute's worth.

    Each server process counts for itself.
    """

    def __init__(self) -> None:
        #: When the bucket will be full again.
        self._full_at = 0.0

    def take(self, per_minute: int, now: float) -> None:
        """Take one request out; raises LimitExceeded."""
        if per_minute == 0:
            raise LimitExceeded("this key allows no requests")
        each = 60.0 / per_minute
        full_at = max(self._full_at, now) + each
        if full_at - now > 60.0 + 1e-9:
            raise LimitExceeded(
                f"this key allows {per_minute} requests a minute", retry_after=full_at - now - 60.0
            )
        self._full_at = full_at


_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="key",
    description="A key that `latentmill keys add` made. On loopback, none is needed while there"
    " are no keys.",
)


def _needs(scope: Scope) -> Callable[..., Awaitable[Caller]]:
    async def caller(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Caller:
        gate: Gate = request.app.state.mill.gate
        gate.check_browser(request)
        found = await gate.caller(bearer.credentials if bearer else None)
        request.state.owner = found.owner
        if not found.allows(scope):
            raise Forbidden(f"this needs a key of scope {scope}, this one's is {found.key.scope}")  # type: ignore[union-attr]
        return found

    return caller


Reader = Annotated[Caller, Depends(_needs(Scope.READ))]
Submitter = Annotated[Caller, Depends(_needs(Scope.SUBMIT))]
Admin = Annotated[Caller, Depends(_needs(Scope.ADMIN))]


def _name(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
