"""How the API stands many submissions: `python -m benchmarks.api`.

A server process of its own on one core takes submissions at a steady rate, each with an
Idempotency-Key, while watchers follow all events. A submission's time counts from when it was due,
not from when it was sent, so a server that falls behind shows it. In the end every submission must
be in the ledger once, and each watcher must have seen each job once.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2

from storage.embedded.stack import running_stack
from storage.ledger import Ledger
from storage.settings import require
from tests.postgres import running_postgres

SPEC = {"steps": [{"kind": "text2img", "model": "demo", "prompt": "a red circle"}]}
PORT = 8421
CONNECTIONS = 64


async def submit_all(numbers: "asyncio.Queue[tuple[int, float]]", took: list[float]) -> None:
    """Submit over one connection; adds the seconds since each was due."""
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    body = json.dumps(SPEC)
    while True:
        number, due = await numbers.get()
        head = (
            f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\n"
            f"Idempotency-Key: load-{number}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write((head + body).encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].split()[0])
        await reader.readexactly(length)
        assert answer.startswith(b"HTTP/1.1 202"), answer
        took.append(time.perf_counter() - due)
        numbers.task_done()


async def watch(seen: list[bytes]) -> None:
    """Keep every event's id."""
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    writer.write(f"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\n\r\n".encode())
    await reader.readuntil(b"retry: 2000")
    seen.append(b"open")
    while line := await reader.readline():
        if line.startswith(b"id: "):
            seen.append(line)


async def load(rate: int, seconds: float, watchers: int) -> dict[str, object]:
    seen: list[list[bytes]] = [[] for _ in range(watchers)]
    took: list[float] = []
    numbers: asyncio.Queue[tuple[int, float]] = asyncio.Queue()
    count = int(rate * seconds)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(watch(each)) for each in seen]
        tasks += [group.create_task(submit_all(numbers, took)) for _ in range(CONNECTIONS)]
        while not all(seen):
            await asyncio.sleep(0.05)
        begun = time.perf_counter()
        for number in range(count):
            due = begun + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            numbers.put_nowait((number, due))
        await numbers.join()
        whole = time.perf_counter() - begun
        until = time.perf_counter() + 10
        while time.perf_counter() < until and any(len(each) <= count for each in seen):
            await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
    times = sorted(each * 1000 for each in took)
    return {
        "submitted": count,
        "per_second": round(count / whole, 1),
        "p50_ms": round(statistics.median(times), 1),
        "p99_ms": round(times[int(len(times) * 0.99)], 1),
        "max_ms": round(times[-1], 1),
        "watchers": watchers,
        "seen_by_all": all(len(set(each)) == len(each) == count + 1 for each in seen),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--watchers", type=int, default=50)
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = stack.enter_context(running_stack(folder / "home"))
        env = {**os.environ, "LATENTMILL_HOME": str(settings.home)}
        url = require(settings, "database_url")
        if options.postgres:
            server = stack.enter_context(running_postgres())
            url = stack.enter_context(server.database(template=server.upgraded))
            env["LATENTMILL_DATABASE_URL"] = url
        log = stack.enter_context((folder / "log").open("w"))
        command = ["taskset", "-c", "0", sys.executable, "-m", "producer", "serve"]
        process = subprocess.Popen([*command, "--port", str(PORT)], stderr=log, env=env)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        wait_for_server()
        before = cpu_seconds(process.pid)
        found = asyncio.run(load(options.rate, options.seconds, options.watchers))
        ledger = Ledger.open(url)
        found["in_ledger"] = sum(ledger.counts().values())
        ledger.close()
        found["server_cpu_s"] = round(cpu_seconds(process.pid) - before, 1)
        print(json.dumps(found))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for_server() -> None:
    for _ in range(600):
        with contextlib.suppress(httpx2.HTTPError):
            if httpx2.get(f"http://127.0.0.1:{PORT}/healthz").status_code == 200:
                return
        time.sleep(0.1)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()
