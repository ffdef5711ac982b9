"""A server with as much of the hub's HTTP interface as its own client needs."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def running_hub(repositories: dict[str, Path]) -> Iterator[ThreadingHTTPServer]:
    """Serves each folder under its repository's name."""
    handler = type("Handler", (Hub,), {"repositories": repositories})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        if thread.is_alive():
            server.shutdown()
        server.server_close()
        thread.join()


class Hub(BaseHTTPRequestHandler):
    repositories: dict[str, Path]

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.split("?")[0]
        for name, folder in self.repositories.items():
            files = [p for p in folder.rglob("*") if p.is_file()]
            entries = [entry(file, folder) for file in files]
            if path.startswith(f"/api/models/{name}/tree/"):
                return self.send_json(entries)
            if path in (f"/api/models/{name}", f"/api/models/{name}/revision/main"):
                siblings = [{"rfilename": e["path"]} for e in entries]
                return self.send_json({"id": name, "sha": COMMIT, "siblings": siblings})
            if path.startswith(f"/{name}/resolve/"):
                file = folder / path.removeprefix(f"/{name}/resolve/").split("/", 1)[1]
                return self.send(file.read_bytes(), {"ETag": f'"{entry(file, folder)["oid"]}"'})
        return self.send(b"", {"X-Error-Code": "RepoNotFound"}, 404)

    def send_json(self, value: Any) -> None:
        self.send(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        headers = {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def entry(file: Path, folder: Path) -> dict[str, Any]:
    name = file.relative_to(folder).as_posix()
    oid = hashlib.sha1(file.read_bytes()).hexdigest()
    return {"type": "file", "path": name, "size": file.stat().st_size, "oid": oid}
