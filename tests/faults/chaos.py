"""Seeded random faults while jobs run: `make chaos`, or

    python -m tests.faults.chaos --jobs 1000 --seed 1 --database postgres --report report.json

Ends by itself: with status 0 when every job that was accepted has one end and no result was
committed twice, else with 1.
"""

import argparse
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError
from redis import Redis
from redis.exceptions import RedisError

from storage.embedded.seaweed import running_seaweed
from storage.errors import LedgerUnavailable, Unavailable
from storage.jobs import Job, Selection, State
from storage.ledger import Ledger
from storage.objects import Objects
from storage.settings import Settings
from storage.spec import Spec, parse_spec
from tests.faults.mill import ENDED, STEP, Broker, Mill, running_mill, spec
from tests.faults.s3_proxy import no_fault, running_proxy
from tests.postgres import Postgres, running_postgres

WORKERS = 2
#: Seconds from the last fault until everything must have ended.
SETTLE = 240.0


class Chaos:
    """What goes wrong, one fault at a time, in an order that the seed decides."""

    def __init__(self, mill: Mill, seed: int, postgres: Postgres | None) -> None:
        self.mill, self.random, self.postgres = mill, random.Random(seed), postgres
        self.injected: Counter[str] = Counter()
        self.faults = [
            self.kill_a_worker, self.kill_a_worker, self.stop_a_worker, self.freeze_a_worker,
            self.kill_the_broker, self.flush_the_broker, self.invite_five_times,
            self.spoil_the_store, self.refuse_the_store, self.block_the_ledger,
        ]  # fmt: skip

    def one(self) -> None:
        fault = self.random.choice(self.faults)
        self.injected[fault.__name__] += 1
        fault()
        self.keep_workers()

    def keep_workers(self) -> None:
        """As a supervisor does."""
        for _ in range(WORKERS - len(self._alive())):
            self.mill.start_worker("--slots", "4", wait=False)

    def kill_a_worker(self) -> None:
        self.random.choice(self._alive()).kill()

    def stop_a_worker(self) -> None:
        worker = self.random.choice(self._alive())
        worker.terminate()
        try:
            worker.wait(30)
        except subprocess.TimeoutExpired:
            worker.send_signal(signal.SIGUSR2)  # its log says where it hangs
            self.injected["stuck in stopping"] += 1
            time.sleep(0.5)
            worker.kill()

    def freeze_a_worker(self) -> None:
        worker = self.random.choice(self._alive())
        worker.send_signal(signal.SIGSTOP)
        time.sleep(4.0)  # past its leases
        worker.send_signal(signal.SIGCONT)

    def kill_the_broker(self) -> None:
        self.mill.broker.kill()
        time.sleep(self.random.uniform(0, 1.5))
        self.mill.broker.start()

    def flush_the_broker(self) -> None:
        """Without what lies there for nobody else to know of."""
        with suppress(RedisError), _redis(self.mill) as redis:
            redis.delete("latentmill.default", "unacked", "unacked_index")

    def invite_five_times(self) -> None:
        for _ in range(20):
            self.mill.app.send_task("latentmill.work", args=[], queue="latentmill.default")

    def spoil_the_store(self) -> None:
        kinds, numbers = (
            ["503", "cut before", "cut after", "slow"],
            random.Random(self.random.random()),
        )
        self.mill.proxy.choose = lambda *_: (
            numbers.choice(kinds) if numbers.random() < 0.3 else None
        )
        time.sleep(2.0)
        self.mill.proxy.choose = no_fault

    def refuse_the_store(self) -> None:
        self.mill.proxy.refusing = True
        time.sleep(self.random.uniform(1, 4))
        self.mill.proxy.refusing = False

    def block_the_ledger(self) -> None:
        if self.postgres is not None:
            self.postgres.restart()
            return
        other = sqlite3.connect(self.mill.ledger_url.removeprefix("sqlite:///"), timeout=60)
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        time.sleep(self.random.uniform(1, 4))
        other.execute("ROLLBACK")
        other.close()

    def _alive(self) -> list["subprocess.Popen[bytes]"]:
        alive = [worker for worker in self.mill.workers if worker.poll() is None]
        return alive or [self.mill.start_worker("--slots", "4")]


def submit(mill: Mill, jobs: int, seed: int, until: threading.Event) -> tuple[list[str], int]:
    """Enter jobs of several kinds, a third of them by Redis alone; their ids, and the messages."""
    numbers, ids, messages = random.Random(seed + 1), [], 0
    stranger = Celery("shop", broker=mill.broker.url, set_as_current=False)
    while len(ids) + messages < jobs:
        kind = numbers.random()
        if kind < 0.33:
            bad = numbers.random() < 0.1
            step = {**STEP, "model": "nobody"} if bad else STEP
            asked = [{"steps": [step], "max_attempts": 20}]
            # The same id makes it safe to send again what may have arrived.
            while not _send(stranger, asked, f"chaos-{seed}-message-{messages}"):
                time.sleep(0.2)
            messages += 1
            continue
        broken = kind > 0.97
        wanted = spec(steps=numbers.choice([1, 1, 1, 20]), max_attempts=20)
        chain = [{**STEP}, {**STEP, "kind": "img2img", "strength": 1.0}]
        if kind > 0.85:
            wanted = parse_spec({"steps": chain, "max_attempts": 20})
        if broken:
            wanted = spec(max_attempts=1, prompt="out of memory")
        # The key makes it safe to ask again when the answer was lost.
        wanted = wanted.model_copy(update={"key": f"chaos-{seed}-{len(ids)}"})
        while not (entered := _submit(mill, wanted)):
            time.sleep(0.2)
        ids += entered
        if numbers.random() < 0.05:
            _cancel(mill, numbers.choice(ids))
        if not until.is_set():
            time.sleep(0.02)
    return ids, messages


def _send(stranger: Celery, args: list[Any], task_id: str) -> bool:
    try:
        stranger.send_task(
            "latentmill.submit", args=args, task_id=task_id, queue="latentmill-submit", retry=False
        )
    except (KombuError, RedisError, OSError):
        return False
    return True


def _submit(mill: Mill, wanted: Spec) -> list[str]:
    try:
        return mill.submit(wanted)
    except LedgerUnavailable:
        return []


def _cancel(mill: Mill, job_id: str) -> None:
    with suppress(LedgerUnavailable):
        mill.ledger.cancel(Selection(ids=(job_id,)))


def report(mill: Mill, ids: list[str], messages: int) -> dict[str, Any]:
    """What became of all that was accepted."""
    jobs: list[Job] = []
    while page := mill.ledger.jobs(limit=500, before=jobs[-1].id if jobs else None):
        jobs += page
    states = Counter(job.state for job in jobs)
    found = {job.id for job in jobs}
    entered = len(found - set(ids))
    ended = [job for job in jobs if job.state in ENDED]
    twice = [
        job.id for job in jobs
        if job.state is State.SUCCEEDED
        and (sum(a.ended_at is not None and a.error_code is None for a in job.attempts) != 1
             or len(job.steps) != len(job.spec.steps))
    ]  # fmt: skip
    objects = Objects.open(Settings(**mill.s3))
    missing = [
        job.id for job in jobs
        if job.state is State.SUCCEEDED and not objects.exists(str(job.artifact))
    ]  # fmt: skip
    disorder = [
        job.id for job in jobs
        if [s.index for s in job.steps] != list(range(len(job.steps)))
        or sorted(s.finished_at or 0 for s in job.steps) != [s.finished_at for s in job.steps]
    ]  # fmt: skip
    return {
        "accepted": len(ids) + messages,
        "by message": messages,
        **{str(state): states[state] for state in (State.SUCCEEDED, State.FAILED, State.CANCELED)},
        "lost": len(set(ids) - found) + (messages - entered) + len(jobs) - len(ended),
        "committed twice": len(twice),
        "without their result": len(missing),
        "steps out of order": len(disorder),
        "attempts": sum(job.attempt for job in jobs),
        "reasons of failure": dict(
            sorted(Counter(str(j.error_code) for j in jobs if j.state is State.FAILED).items())
        ),
    }


def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    with ExitStack() as stack:
        postgres = None
        if options.database == "postgres":
            postgres = stack.enter_context(running_postgres())
            url = stack.enter_context(postgres.database(template=postgres.upgraded))
        else:
            url = f"sqlite:///{folder / 'ledger.sqlite3'}"
            ledger = Ledger.open(url)
            ledger.upgrade()
            ledger.close()
        s3 = stack.enter_context(running_seaweed(folder / "s3", folder / "s3.log"))
        proxy = stack.enter_context(running_proxy(s3["s3_endpoint_url"]))
        broker = Broker(folder)
        broker.start()
        stack.callback(broker.stop)
        mill = stack.enter_context(running_mill(folder, url, broker, proxy, s3))
        chaos = Chaos(mill, options.seed, postgres)
        for _ in range(WORKERS):
            mill.start_worker("--slots", "4")

        begun, calm = time.monotonic(), threading.Event()
        accepted: list[tuple[list[str], int]] = []
        asking = threading.Thread(
            target=lambda: accepted.append(submit(mill, options.jobs, options.seed, calm))
        )
        asking.start()
        while time.monotonic() < begun + options.seconds:
            time.sleep(chaos.random.uniform(0.2, 1.5))
            with suppress(Unavailable):
                chaos.one()
        calm.set()
        chaos.keep_workers()
        asking.join(SETTLE)
        (ids, messages) = accepted[0]
        deadline = time.monotonic() + SETTLE
        while time.monotonic() < deadline:
            counts = mill.ledger.counts()
            if sum(counts[state] for state in ENDED) >= len(ids) + messages:
                break
            chaos.keep_workers()
            time.sleep(0.5)
        return {
            "seed": options.seed,
            "database": options.database,
            "seconds": round(time.monotonic() - begun),
            **report(mill, ids, messages),
            "faults": sum(chaos.injected.values()),
            "injected": dict(sorted(chaos.injected.items())),
        }


def _redis(mill: Mill) -> Redis:
    return Redis(unix_socket_path=mill.broker.url.removeprefix("redis+socket://"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=90.0, help="of faults")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--report", type=Path, help="write it here too, as JSON")
    options = parser.parse_args()
    # The broker's socket needs a short path.
    with tempfile.TemporaryDirectory(prefix="chaos-", dir="/tmp") as name:
        found = run(Path(name), options)
    text = json.dumps(found, indent=2)
    print(text)
    if options.report:
        options.report.write_text(text + "\n")
    wrong = ("lost", "committed twice", "without their result", "steps out of order")
    return int(any(found[each] for each in wrong))


if __name__ == "__main__":
    sys.exit(main())
