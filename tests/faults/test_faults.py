"""Faults that cost time and no job, each injected for real. Others stand in tests/acceptance."""

import os
import resource
import signal
import sqlite3
import time

import pytest
from redis import Redis

from storage.jobs import Job, State
from tests.faults.mill import Mill, spec
from tests.faults.s3_proxy import first_writes
from tests.postgres import Postgres


def is_stepping(job: Job) -> bool:
    return job.progress_done > 0


def outcomes(jobs: list[Job]) -> set[tuple[State, int]]:
    return {(job.state, job.attempt) for job in jobs}


ONCE = {(State.SUCCEEDED, 1)}


def test_a_bad_object_store_and_a_forgetful_broker_cost_no_attempt(mill: Mill) -> None:
    mill.start_worker()
    # Answers of every bad kind: the upload alone is repeated, the device has run once.
    for faults in (["503"] * 5, ["cut before"] * 4, ["cut after"] * 4, ["slow"]):
        mill.proxy.choose = first_writes(*faults)
        (job_id,) = mill.submit(spec())
        assert outcomes([mill.wait(job_id)]) == ONCE, faults
    # Away for longer than the lease: renewals go on meanwhile.
    mill.proxy.refusing = True
    ids = mill.submit(*[spec() for _ in range(3)])
    time.sleep(4)
    assert {mill.ledger.job(job_id).state for job_id in ids} <= {State.RUNNING, State.QUEUED}
    mill.proxy.refusing = False
    assert outcomes(mill.wait_for(ids)) == ONCE

    # The broker forgets everything while much is queued, and every invitation comes five times.
    ids = mill.submit(*[spec() for _ in range(100)])
    with Redis(unix_socket_path=mill.broker.url.removeprefix("redis+socket://")) as client:
        client.flushall()
    for _ in range(5 * 4):
        mill.app.send_task("latentmill.work", args=[], queue="latentmill.default")
    assert outcomes(mill.wait_for(ids)) == ONCE


def test_a_job_that_kills_its_process_fails_and_its_neighbours_succeed(mill: Mill) -> None:
    """All are taken together and have as many attempts: running alone tells them apart."""
    ids = mill.submit(
        *[spec(steps=100, max_attempts=3) for _ in range(3)], spec("dies", max_attempts=3)
    )
    deadline = time.monotonic() + 60
    while any(mill.ledger.job(i).state in (State.QUEUED, State.RUNNING) for i in ids):
        worker = mill.start_worker("--slots", "4")
        while worker.poll() is None and time.monotonic() < deadline:
            jobs = [mill.ledger.job(job_id) for job_id in ids]
            if all(job.state not in (State.QUEUED, State.RUNNING) for job in jobs):
                break
            time.sleep(0.05)
        assert time.monotonic() < deadline
    *mates, killer = (mill.ledger.job(job_id) for job_id in ids)
    assert (killer.state, killer.error_code, killer.attempt) == (State.FAILED, "worker_lost", 3)
    assert {mate.state for mate in mates} == {State.SUCCEEDED}


def test_a_worker_that_takes_up_its_own_lost_job_neither_sticks_nor_does_it_twice(
    mill: Mill,
) -> None:
    """All of it froze past its leases: it reaps them itself, with the old attempts still there."""
    worker = mill.start_worker("--slots", "4")
    ids = mill.submit(*[spec(steps=150, max_attempts=5) for _ in range(3)])
    for job_id in ids:
        mill.wait(job_id, is_stepping)
    worker.send_signal(signal.SIGSTOP)
    time.sleep(4)
    worker.send_signal(signal.SIGCONT)
    jobs = mill.wait_for([*ids, *mill.submit(spec())])
    assert {job.state for job in jobs} == {State.SUCCEEDED}
    assert all(len(job.steps) == 1 for job in jobs)
    worker.terminate()
    assert worker.wait(30) == 0


def test_killed_between_the_upload_and_the_commit_the_rerun_is_harmless(mill: Mill) -> None:
    worker = mill.start_worker()

    def kill(method: str, path: str) -> None:
        if method == "PUT" and "/jobs/" in path:
            worker.kill()
            worker.wait()

    mill.proxy.after = kill
    (job_id,) = mill.submit(spec())
    worker.wait(20)
    mill.start_worker()
    job = mill.wait(job_id)
    assert (job.state, job.attempt) == (State.SUCCEEDED, 2)
    assert len(job.steps) == 1


def test_a_broker_that_is_killed_again_and_again_loses_nothing(mill: Mill) -> None:
    worker = mill.start_worker()
    (long,) = mill.submit(spec(steps=400))
    mill.wait(long, is_stepping)
    ids = []
    for _ in range(3):
        mill.broker.kill()
        ids += mill.submit(spec(), spec())  # they enter the ledger all the same
        mill.broker.start()
        ids += mill.submit(spec())
    assert outcomes(mill.wait_for([long, *ids])) == ONCE
    (idle,) = mill.submit(spec())  # and afterwards no worker is stuck
    assert outcomes([mill.wait(idle)]) == ONCE
    assert worker.poll() is None


def test_an_out_of_memory_fails_its_job_alone(mill: Mill) -> None:
    mill.start_worker("--slots", "4")
    ids = mill.submit(*[spec() for _ in range(7)], spec("out of memory", max_attempts=1))
    *mates, failed = mill.wait_for(ids)
    assert outcomes(mates) == ONCE
    assert (failed.state, failed.error_code) == (State.FAILED, "device_failed")


def test_a_worker_without_file_handles_recovers(mill: Mill) -> None:
    worker = mill.start_worker()
    _, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (3, hard))
    ids = mill.submit(*[spec(max_attempts=20) for _ in range(10)])
    time.sleep(2)
    assert worker.poll() is None
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (1024, hard))
    assert {job.state for job in mill.wait_for(ids)} == {State.SUCCEEDED}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_database_that_is_locked_for_long_costs_no_job(mill: Mill) -> None:
    mill.start_worker()
    ids = mill.submit(*[spec(steps=20) for _ in range(6)])
    other = sqlite3.connect(mill.ledger_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    time.sleep(5)  # longer than a lease
    other.execute("ROLLBACK")
    other.close()
    jobs = mill.wait_for(ids)
    assert {job.state for job in jobs} == {State.SUCCEEDED}
    assert all(len(job.steps) == 1 for job in jobs)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_database_that_crashes_costs_no_job(mill: Mill, postgres: Postgres) -> None:
    worker = mill.start_worker()
    ids = mill.submit(*[spec(steps=20) for _ in range(12)])
    for _ in range(3):
        time.sleep(0.3)
        postgres.restart()
    jobs = mill.wait_for(ids)
    assert {job.state for job in jobs} == {State.SUCCEEDED}
    assert all(len(job.steps) == 1 for job in jobs)
    assert worker.poll() is None


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@pytest.mark.parametrize("days", [1, pytest.param(-1, marks=pytest.mark.slow)])
def test_a_host_whose_clock_is_wrong_takes_nothing_from_the_others(mill: Mill, days: int) -> None:
    mill.start_worker()
    (long,) = mill.submit(spec(steps=250))
    mill.wait(long, is_stepping)
    mill.start_worker("--clock", str(days * 86_400))
    ids = mill.submit(*[spec(steps=20) for _ in range(6)])
    assert outcomes(mill.wait_for([long, *ids])) == ONCE
    workers = {mill.ledger.job(job_id).attempts[0].worker for job_id in ids}
    assert len(workers) == 2  # the wrong one works as well


def test_a_frozen_worker_and_a_killed_one_cost_an_attempt_each(mill: Mill) -> None:
    frozen, killed = mill.start_worker("--slots", "1"), mill.start_worker("--slots", "1")
    ids = mill.submit(spec(steps=300), spec(steps=300))
    for job_id in ids:
        mill.wait(job_id, is_stepping)
    frozen.send_signal(signal.SIGSTOP)
    os.kill(killed.pid, signal.SIGKILL)
    mill.start_worker()
    for job_id in ids:
        mill.wait(job_id, lambda job: job.attempt == 2)
    frozen.send_signal(signal.SIGCONT)
    jobs = mill.wait_for(ids)
    assert outcomes(jobs) == {(State.SUCCEEDED, 2)}
    assert [a.error_code for a in jobs[0].attempts] == ["worker_lost", None]
