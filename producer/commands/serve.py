"""`serve`: the HTTP API and its web page."""

import importlib.util
from typing import Annotated

import typer

from producer.client import Client
from storage.errors import NotConfigured

#: Where the page is unless somebody says otherwise.
PORT = 8420


def serve(
    host: Annotated[str, typer.Option(help="The address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = PORT,
) -> None:
    """Serve the HTTP API and the web page until stopped (SIGTERM, Ctrl-C)."""
    require_api()
    from producer.api.logs import log_json_lines
    from producer.api.server import make_server

    log_json_lines()
    client = Client()
    try:
        make_server(client, host, port).run()
    finally:
        client.ledger.close()


def require_api() -> None:
    """Raises NotConfigured where the server is not installed."""
    if not is_installed():
        raise NotConfigured(
            "the API needs packages that are not installed: pip install 'latentmill[api]'"
        )


def is_installed() -> bool:
    wanted = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
    return all(importlib.util.find_spec(name) is not None for name in wanted)
