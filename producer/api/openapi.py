"""The API's description, with what FastAPI cannot see by itself."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from producer.api.problems import Problem
from storage.spec import Spec

_TEMPLATE = "#/components/schemas/{model}"


def describe_api(app: FastAPI) -> None:
    """Give the app a description that knows the spec, and the problem documents."""

    def description() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _describe(app)
        return app.openapi_schema

    app.openapi = description  # type: ignore[method-assign]


def _describe(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    _, more = models_json_schema(
        [(Spec, "validation"), (Problem, "validation")], ref_template=_TEMPLATE
    )
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(more["$defs"])
    # Invalid requests are problem documents here as well.
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return found
