"""A real HTTPS server with a certificate of its own, and names that lead to it."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

#: The names that the certificate holds.
HOSTS = ("pictures.test", "other.test")
Answer = Callable[[BaseHTTPRequestHandler], None]


def make_certificate(folder: Path) -> Path:
    """A key and a self-signed certificate for HOSTS, in one file."""
    file = folder / "server.pem"
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={names}",
        "-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    file.write_text("".join((folder / f).read_text() for f in ("key.pem", "certificate.pem")))
    return file


@contextmanager
def running_web(answers: dict[str, Answer], certificate: Path | None) -> Iterator[int]:
    """Serves each path by its function, on 127.0.0.1; the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers[self.path.partition("?")[0]](self)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Clients that hang up are what is tested."""

    server = Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        # The handshake belongs to the connection's own thread.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send(data: bytes, status: int = 200, **headers: str) -> Answer:
    """An answer with a body; underscores in the names of headers stand for hyphens."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def name_hosts(monkeypatch: pytest.MonkeyPatch, *rounds: dict[str, list[str]]) -> list[str]:
    """Let names have these addresses, in later look-ups those of later rounds; what was asked."""
    asked: list[str] = []
    known = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        names = rounds[min(asked.count(host), len(rounds) - 1)]
        if host not in names:
            return known(host, port, *args, **options)
        asked.append(host)
        kinds = {True: socket.AF_INET6, False: socket.AF_INET}
        return [
            (kinds[":" in address], socket.SOCK_STREAM, 6, "", (address, port))
            for address in names[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked
