"""What the queue itself costs, without a device: pick-up of an idle worker, overhead a job.

Beside plain Celery tasks that do nothing, on the same Redis in the same run. `make bench-queue`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from celery import Celery
from redis import Redis

from storage.embedded.seaweed import running_seaweed
from storage.jobs import State
from storage.ledger import Ledger
from tests.faults.mill import Broker, Mill, running_mill, spec
from tests.faults.s3_proxy import Proxy
from tests.postgres import running_postgres

SLOTS = 4
PLAIN = """
import sys
from celery import Celery
app = Celery("plain", broker=sys.argv[1], set_as_current=False)
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=1)
@app.task(name="plain.nothing")
def nothing():
    pass
app.Worker(pool="threads", concurrency=int(sys.argv[2]), queues=["plain"], without_gossip=True,
           without_mingle=True, loglevel="ERROR", quiet=True).start()
"""


def pickup(mill: Mill, jobs: int) -> dict[str, float]:
    """Milliseconds from a submission to its claim, one job at a time on an idle worker."""
    waits = []
    for _ in range(jobs):
        (job_id,) = mill.submit(spec())
        job = mill.wait(job_id)
        waits.append((job.attempts[0].started_at - job.created_at) * 1000)
        time.sleep(0.02)
    cuts = statistics.quantiles(waits, n=20)
    return {"p50": round(cuts[9], 1), "p95": round(cuts[18], 1)}


def throughput(mill: Mill, jobs: int) -> float:
    """Jobs a second through the whole queue: submit, claim, picture, upload, records."""
    done, begun = mill.ledger.counts()[State.SUCCEEDED], time.monotonic()
    mill.submit(*[spec() for _ in range(jobs)])
    while mill.ledger.counts()[State.SUCCEEDED] < done + jobs:
        time.sleep(0.05)
    return jobs / (time.monotonic() - begun)


def plain_throughput(url: str, tasks: int) -> float:
    """Tasks a second of a plain Celery worker with as many threads, sending included."""
    app = Celery("asks", broker=url, set_as_current=False)
    worker = subprocess.Popen([sys.executable, "-W", "ignore", "-c", PLAIN, url, str(SLOTS)])
    try:
        with Redis(unix_socket_path=url.removeprefix("redis+socket://")) as redis:
            app.send_task("plain.nothing", queue="plain")
            while redis.llen("plain") or redis.hlen("unacked"):
                time.sleep(0.05)
            begun = time.monotonic()
            for _ in range(tasks):
                app.send_task("plain.nothing", queue="plain")
            while redis.llen("plain") or redis.hlen("unacked"):
                time.sleep(0.005)
            return tasks / (time.monotonic() - begun)
    finally:
        worker.kill()
        worker.wait()


def measure(folder: Path, database: str, jobs: int) -> dict[str, Any]:
    with ExitStack() as stack:
        if database == "postgres":
            postgres = stack.enter_context(running_postgres())
            url = stack.enter_context(postgres.database(template=postgres.upgraded))
        else:
            url = f"sqlite:///{folder / 'ledger.sqlite3'}"
            ledger = Ledger.open(url)
            ledger.upgrade()
            ledger.close()
        s3 = stack.enter_context(running_seaweed(folder / "s3", folder / "s3.log"))
        broker = Broker(folder)
        broker.start()
        stack.callback(broker.stop)
        direct = Proxy(s3["s3_endpoint_url"])
        direct.server.server_close()
        direct.url = s3["s3_endpoint_url"]  # nothing between the worker and the store
        plain = plain_throughput(broker.url, jobs)
        mill = stack.enter_context(running_mill(folder, url, broker, direct, s3))
        mill.start_worker("--slots", str(SLOTS))
        mill.wait_for(mill.submit(*[spec() for _ in range(10)]))
        waited = pickup(mill, min(jobs, 100))
        ours = throughput(mill, jobs)
        return {
            "database": database,
            "jobs": jobs,
            "slots": SLOTS,
            "pick-up ms": waited,
            "jobs a second": round(ours, 1),
            "plain Celery tasks a second": round(plain, 1),
            "overhead a job, ms": round(1000 / ours - 1000 / plain, 1),
            "load of the machine": round(os.getloadavg()[0], 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=500)
    options = parser.parse_args()
    for database in ("sqlite", "postgres"):
        with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as name:
            print(json.dumps(measure(Path(name), database, options.jobs), indent=2), flush=True)


if __name__ == "__main__":
    main()
