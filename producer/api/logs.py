"""The server's log: one JSON line an event, with the job's id where it is about one."""

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producer.api.meter import Meter

logger = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """A record as one line; what a record was given as `extra={"fields": …}` stands beside."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class RequestLog:
    """Logs and measures each request. Never the query or headers: they may hold secrets."""

    def __init__(self, app: ASGIApp, *, meter: Meter) -> None:
        self._app, self._meter = app, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()
        status, stream = 500, False

        async def seen(message: Message) -> None:
            nonlocal status, stream
            if message["type"] == "http.response.start":
                status = message["status"]
                kind = dict(message["headers"]).get(b"content-type", b"")
                stream = kind.startswith(b"text/event-stream")
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            self._note(scope, status, time.monotonic() - begun, stream)

    def _note(self, scope: Scope, status: int, seconds: float, stream: bool) -> None:
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"]
        known = method if method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD") else "OTHER"
        if not stream:
            self._meter.requests.labels(known, route, str(status)).observe(seconds)
        state = scope.get("state", {})
        fields = {
            "method": method,
            "path": scope["path"][:300],
            "status": status,
            "ms": round(seconds * 1000, 1),
            "job": state.get("job_id"),
            "owner": state.get("owner"),
        }
        logger.info("request", extra={"fields": {k: v for k, v in fields.items() if v is not None}})


def log_json_lines() -> None:
    """Let this process log so, on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
