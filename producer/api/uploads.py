"""What a request brings along: JSON, or a form with a file, neither ever larger than allowed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from storage.errors import InvalidSpec, TooLarge
from storage.inputs import MOST_FROM_WEB, Kept, keep_file
from storage.objects import Objects
from storage.picture import most_bytes

#: Bytes of a request that is no form.
MOST_JSON = 2 * 2**20
#: Bytes of a form beside its files.
_FORM = 4 * 2**20
#: Pictures decoded at once: each may need a quarter of a gigabyte for a moment.
_decoding = asyncio.Semaphore(2)


class BodyLimit:
    """Cuts off requests with more bytes than are allowed, as they come in."""

    def __init__(self, app: ASGIApp, *, most_form: int) -> None:
        self._app, self._most_form = app, most_form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        form = headers.get(b"content-type", b"").startswith(b"multipart/form-data")
        most, seen = self._most_form if form else MOST_JSON, 0
        too_large = TooLarge(f"the request has more than {most:,} bytes")

        async def counted() -> Message:
            nonlocal seen
            length = headers.get(b"content-length", b"")
            if length.isdigit() and int(length) > most:
                raise too_large
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise too_large
            return message

        await self._app(scope, counted, send)


def most_form(max_pixels: int) -> int:
    """Bytes of a form with a picture."""
    return min(most_bytes(max_pixels), MOST_FROM_WEB) + _FORM


def is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith("multipart/form-data")


@asynccontextmanager
async def read_form(request: Request) -> AsyncIterator[tuple[str, UploadFile | None]]:
    """The text of the field `spec`, and the file `image`, which lies on disk if it is large."""
    options = {"max_files": 1, "max_fields": 10, "max_part_size": MOST_JSON}
    async with request.form(**options) as form:
        spec, image = form.get("spec"), form.get("image")
        if not isinstance(spec, str):
            raise InvalidSpec("spec: the form needs a field `spec` with the spec as JSON")
        if image is not None and not isinstance(image, UploadFile):
            raise InvalidSpec("image: the form's field `image` must be a file")
        unknown = sorted(set(form) - {"spec", "image"})
        if unknown:
            raise InvalidSpec(f"{unknown[0][:100]}: no such field: a form has `spec` and `image`")
        yield spec, image


def with_picture(text: str, key: str) -> dict[str, Any]:
    """A spec's values, its first step beginning from an uploaded picture."""
    try:
        values: dict[str, Any] = json.loads(text)
        first = values["steps"][0]
        named = first.get("image") is not None
        first["image"] = key
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise InvalidSpec('spec: must be of the form {"steps": [{"kind": …}, …]}') from None
    if named:
        raise InvalidSpec("steps.0.image: the picture is uploaded, so none can be named")
    return values


async def keep_upload(file: UploadFile, objects: Objects, max_pixels: int) -> Kept:
    """Check an uploaded picture and bring it to the bucket; raises InvalidImage."""
    async with _decoding:
        return await run_in_threadpool(keep_file, file.file, objects, max_pixels)
