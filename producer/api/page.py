"""The web page: a few static files, held in memory and served by the API's process."""

import hashlib
import mimetypes
from collections.abc import Awaitable, Callable
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import FastAPI, Request, Response

#: Scripts, styles and connections of this server alone; pictures also from memory. No inline
#: scripts, and no text that becomes HTML.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Kept by browsers, and asked for again each time: an update shows at once.
    "Cache-Control": "no-cache",
}
_ENDINGS = (".html", ".js", ".css", ".svg")


def mount_page(app: FastAPI) -> None:
    """Serve `index.html` at `/` and the other files of producer/web at `/web/…`."""
    for name, data in _read(files("producer") / "web"):
        path = "/" if name == "index.html" else f"/web/{name}"
        app.add_api_route(
            path, _answer(name, data), methods=["GET", "HEAD"], include_in_schema=False
        )


def _read(folder: Traversable, below: str = "") -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            found += _read(entry, f"{below}{entry.name}/")
        elif entry.name.endswith(_ENDINGS):
            found.append((f"{below}{entry.name}", entry.read_bytes()))
    return found


def _answer(name: str, data: bytes) -> Callable[[Request], Awaitable[Response]]:
    tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    headers = {**HEADERS, "ETag": tag}
    kind = mimetypes.guess_type(name)[0]

    async def answer(request: Request) -> Response:
        known = request.headers.get("if-none-match", "")
        if tag in (each.strip().removeprefix("W/") for each in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=kind, headers=headers)

    return answer
