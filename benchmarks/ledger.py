"""What the ledger costs with many jobs in it, on both databases.

    python -m benchmarks.ledger [--jobs 100000]

Specs with inputs in S3 enter from an iterator; then claims are timed one by one, as an idle worker
makes them, with all of those jobs queued. Times hold one process and the database's server.
"""

import argparse
import gc
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from storage.jobs import Selection
from storage.ledger import Ledger
from storage.spec import Img2Img, Spec
from tests.postgres import running_postgres

CLAIMS = 300


def specs(count: int, **around: Any) -> Iterator[Spec]:
    for number in range(count):
        image = f"s3://pictures/{number:08}.jpg"
        step = Img2Img(model="demo", image=image, prompt=f"apple {number}", strength=0.6)
        yield Spec(steps=(step,), **around)


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def claims(ledger: Ledger, prefer: tuple[str, ...] = ()) -> dict[str, float]:
    """Milliseconds of a claim."""

    def claim() -> None:
        taken = ledger.claim(worker="bench", pool="default", lease_seconds=600, prefer=prefer)
        assert taken is not None

    each = [1000 * timed(claim) for _ in range(CLAIMS)]
    ranks = statistics.quantiles(each, n=100)
    return {"p50": round(ranks[49], 1), "p99": round(ranks[98], 1)}


def measure(url: str, jobs: int) -> dict[str, Any]:
    ledger = Ledger.open(url)
    gc.freeze()  # as the command does
    cpu = time.process_time()
    seconds = timed(lambda: ledger.submit(specs(jobs), batch="many"))
    cpu = time.process_time() - cpu
    found: dict[str, Any] = {
        "submit s": round(seconds, 1),
        "submit s of CPU": round(cpu, 1),
        "memory MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "claim ms": claims(ledger),
        "claim ms, two other models preferred": claims(ledger, ("one", "two")),
    }
    later = datetime.now(UTC) + timedelta(hours=1)
    ledger.submit(specs(jobs * 4 // 5, priority=5, run_at=later), batch="later")
    found["claim ms, behind 4/5 of higher priority that are not due"] = claims(ledger)
    chosen = Selection(batch="many")
    found["cancel s"] = round(timed(lambda: ledger.cancel(chosen)), 1)
    found["retry s"] = round(timed(lambda: ledger.retry(chosen)), 1)
    ledger.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, running_postgres() as server:
        sqlite = f"sqlite:///{Path(folder) / 'ledger.sqlite3'}"
        with closing(Ledger.open(sqlite)) as ledger:
            ledger.upgrade()
        with server.database(server.upgraded) as postgres:
            for name, url in (("sqlite", sqlite), ("postgres", postgres)):
                # Each in a process of its own: memory is counted by its peak.
                if (child := os.fork()) == 0:
                    print(
                        json.dumps({"database": name, "jobs": jobs, **measure(url, jobs)}),
                        flush=True,
                    )
                    os._exit(0)
                os.waitpid(child, 0)


if __name__ == "__main__":
    main()
