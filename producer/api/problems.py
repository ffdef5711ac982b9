"""Errors as problem documents (RFC 9457), with the codes of storage.errors."""

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from storage import errors
from storage.errors import LatentmillError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
#: The first that fits counts.
_STATUS: tuple[tuple[type[LatentmillError], int], ...] = (
    (errors.Unauthorized, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.KeyConflict, 409),
    (errors.NotReady, 409),
    (errors.TooLarge, 413),
    (errors.InvalidSpec, 422),
    (errors.InvalidImage, 422),
    (errors.UnknownModel, 422),
    (errors.LimitExceeded, 429),
    (errors.Unavailable, 503),
    (errors.NotConfigured, 503),
)
#: Codes of what HTTP itself finds wrong.
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "invalid_request"}
#: Seconds after which what is away may be back.
_RETRY = 5


class Problem(BaseModel):
    """What went wrong, as of RFC 9457."""

    type: str = Field(examples=["urn:latentmill:error:invalid_spec"])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["steps.0.strength: Input should be less than or equal to 1"])
    code: str = Field(examples=["invalid_spec"], description="Stable: for programs to match on.")


def problem(
    status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    body = {
        "type": f"urn:latentmill:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    return JSONResponse(body, status, media_type=MEDIA_TYPE, headers=headers)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: the problems that a request can lead to."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def explain(error: LatentmillError) -> JSONResponse:
    """The problem document of an error."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 413:
        headers["Connection"] = "close"  # else all the rest would be read, and thrown away
    if isinstance(error, errors.LimitExceeded):
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    elif status == 503 or isinstance(error, errors.NotReady):
        headers["Retry-After"] = str(_RETRY)
    return problem(status, error.code, str(error), headers)


def add_problems(app: FastAPI) -> None:
    """Answer every error of the app's handlers with a problem document."""

    async def ours(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, LatentmillError)
        if error.code in ("not_configured", "error"):
            logger.error("%s", error)
        return explain(error)

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        said = "; ".join(_sentence(item) for item in error.errors())
        return problem(422, "invalid_request", said)

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = _CODES.get(error.status_code, "invalid_request")
        return problem(error.status_code, code, str(error.detail), error.headers)

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s", request.method, request.url.path, exc_info=error)
        return problem(500, "internal_error", "this is a fault of the server; its log says more")

    app.add_exception_handler(LatentmillError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


def _sentence(item: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in item["loc"][1:])
    return f"{place}: {item['msg']}" if place else str(item["msg"])
