"""A proxy before a real object store that answers badly when told to."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

#: From a request's method and path to what goes wrong with it: None, "503", "slow", "cut before"
#: (nothing arrives at the store) or "cut after" (the store has it, but nobody is told).
Choice = Callable[[str, str], str | None]

SLOW = 2.0


def no_fault(method: str, path: str) -> str | None:
    return None


def first_writes(*faults: str) -> Choice:
    """The next writes of results go wrong in these ways, one each."""
    left, lock = list(faults), threading.Lock()

    def choose(method: str, path: str) -> str | None:
        with lock:
            return left.pop(0) if left and method == "PUT" and "/jobs/" in path else None

    return choose


class Proxy:
    """Listens on `url`; set `choose` to make trouble, `refusing` to be away altogether."""

    def __init__(self, store: str) -> None:
        self.choose: Choice = no_fault
        self.refusing = False
        #: Called when the store has answered and nobody has been told yet.
        self.after: Callable[[str, str], None] = lambda method, path: None
        target = urlsplit(store)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                self.connection.settimeout(30)

            def answer(self) -> None:
                fault = "cut before" if proxy.refusing else proxy.choose(self.command, self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if fault == "cut before":
                    self.close_connection = True
                    return
                if fault == "503":
                    self.send_response(503)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if fault == "slow":
                    time.sleep(SLOW)
                store = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
                try:
                    store.putrequest(
                        self.command, self.path, skip_host=True, skip_accept_encoding=True
                    )
                    for name, value in self.headers.items():
                        if name.lower() != "expect":
                            store.putheader(name, value)
                    store.endheaders(body)
                    answer = store.getresponse()
                    data = answer.read()
                finally:
                    store.close()
                proxy.after(self.command, self.path)
                if fault == "cut after":
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Requests are in `passed`."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:
                """Clients that are killed cut their connections: that is what this is for."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def running_proxy(store: str) -> Iterator[Proxy]:
    proxy = Proxy(store)
    thread = threading.Thread(target=proxy.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
        thread.join()
