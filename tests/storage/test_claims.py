import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, update

from storage.database import Database
from storage.errors import ClaimLost, LatentmillError
from storage.ledger import Claim, Ledger, State, StepRecord
from storage.tables import jobs
from tests.storage.specs import a_chain, a_spec, finish


def claim(ledger: Ledger, worker: str = "w1", lease: float = 30.0) -> Claim:
    found = ledger.claim(worker=worker, pool="default", lease_seconds=lease)
    assert found is not None
    return found


def reclaim_after_loss(ledger: Ledger) -> tuple[Claim, Claim]:
    """A claim whose lease ran out, and the claim of the worker that has the job now."""
    stale = claim(ledger, "frozen", lease=0.01)
    time.sleep(0.05)
    assert ledger.reap() == [stale.job_id]
    return stale, claim(ledger, "next")


def test_a_claim_takes_the_job_and_charges_an_attempt(ledger: Ledger) -> None:
    [submitted] = ledger.submit([a_spec()])

    taken = claim(ledger)

    job = ledger.job(submitted.id)
    assert taken.job_id == submitted.id
    assert taken.spec == job.spec
    assert (job.state, job.attempt, job.charged, job.worker) == (State.RUNNING, 1, 1, "w1")
    assert job.lease_until is not None
    assert job.started_at is not None
    assert 29 < job.lease_until - job.started_at < 31
    assert [(a.number, a.worker, a.ended_at) for a in job.attempts] == [(1, "w1", None)]


def test_nothing_to_claim_is_none(ledger: Ledger) -> None:
    assert ledger.claim(worker="w", pool="default", lease_seconds=30) is None


def test_a_claim_stays_within_its_pool(ledger: Ledger) -> None:
    ledger.submit([a_spec()], pool="other")
    assert ledger.claim(worker="w", pool="default", lease_seconds=30) is None
    assert ledger.claim(worker="w", pool="other", lease_seconds=30) is not None


def test_higher_priority_first_then_the_one_that_waits_longest(ledger: Ledger) -> None:
    low, high, first, second = (
        s.id
        for s in ledger.submit(
            [a_spec(priority=-5), a_spec(priority=9), a_spec(priority=3), a_spec(priority=3)]
        )
    )
    assert [claim(ledger).job_id for _ in range(4)] == [high, first, second, low]


def test_claimers_in_many_threads_take_every_job_once(ledger: Ledger) -> None:
    ids = {s.id for s in ledger.submit(a_spec() for _ in range(120))}

    def take_all(worker: int) -> list[str]:
        taken = []
        while found := ledger.claim(worker=f"w{worker}", pool="default", lease_seconds=30):
            taken.append(found.job_id)
        return taken

    with ThreadPoolExecutor(6) as threads:
        taken = [job_id for ids in threads.map(take_all, range(6)) for job_id in ids]

    assert len(taken) == len(ids)
    assert set(taken) == ids


_TAKE_ALL = """
import sys, time
from storage.ledger import Ledger, StepRecord
ledger = Ledger.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
while found := ledger.claim(worker=sys.argv[2], pool="default", lease_seconds=30):
    print(found.job_id, flush=True)
    ledger.finish_step(found, StepRecord(index=0))
    ledger.succeed(found)
    time.sleep(0.002)  # let the others have theirs
"""


def test_claimers_in_many_processes_take_every_job_once(ledger: Ledger, ledger_url: str) -> None:
    ids = {s.id for s in ledger.submit(a_spec() for _ in range(150))}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _TAKE_ALL, ledger_url, f"w{n}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    shares = [process.communicate(timeout=60)[0].split() for process in processes]

    taken = [job_id for share in shares for job_id in share]
    assert len(taken) == len(ids)
    assert set(taken) == ids
    assert ledger.counts()[State.SUCCEEDED] == len(ids)
    assert sum(bool(share) for share in shares) >= 2, "several took part"


def told(answers: list[LatentmillError | None]) -> None:
    """Progress of several claims is told together: who lost one hears of it in the answer."""
    for answer in answers:
        if answer is not None:
            raise answer


FENCED: dict[str, Callable[[Ledger, Claim], object]] = {
    "renew": lambda ledger, claim: ledger.renew(claim, 30),
    "progress": lambda ledger, claim: told(ledger.progress([(claim, 0, 1, 2)])),
    "finish_step": lambda ledger, claim: ledger.finish_step(claim, StepRecord(index=0)),
    "succeed": lambda ledger, claim: ledger.succeed(claim),
    "fail": lambda ledger, claim: ledger.fail(claim, code="x", message="y", retry_in=None),
    "fail_and_retry": lambda ledger, claim: ledger.fail(claim, code="x", message="", retry_in=0),
    "give_back": lambda ledger, claim: ledger.give_back(claim),
}


@pytest.mark.parametrize("write", FENCED.values(), ids=FENCED)
def test_a_worker_that_lost_its_job_to_another_writes_nothing(
    ledger: Ledger, write: Callable[[Ledger, Claim], object]
) -> None:
    ledger.submit([a_spec()])
    stale, current = reclaim_after_loss(ledger)
    before = ledger.job(stale.job_id)

    with pytest.raises(ClaimLost, match=f"attempt 1 of job {stale.job_id} by frozen is over"):
        write(ledger, stale)

    assert ledger.job(stale.job_id) == before
    ledger.finish_step(current, StepRecord(index=0))
    write(ledger, current)


@pytest.mark.parametrize("write", FENCED.values(), ids=FENCED)
def test_a_worker_whose_job_was_taken_back_writes_nothing_while_it_waits(
    ledger: Ledger, write: Callable[[Ledger, Claim], object]
) -> None:
    ledger.submit([a_spec()])
    stale = claim(ledger, lease=0.01)
    time.sleep(0.05)
    ledger.reap()

    with pytest.raises(ClaimLost):
        write(ledger, stale)
    assert ledger.job(stale.job_id).state is State.QUEUED


@pytest.mark.parametrize("write", FENCED.values(), ids=FENCED)
def test_after_a_give_back_the_next_claim_is_told_from_the_one_before(
    ledger: Ledger, write: Callable[[Ledger, Claim], object]
) -> None:
    ledger.submit([a_spec()])
    given_back = claim(ledger)
    ledger.give_back(given_back)
    claim(ledger)

    with pytest.raises(ClaimLost):
        write(ledger, given_back)


def test_a_lease_that_is_renewed_is_not_reaped(ledger: Ledger) -> None:
    ledger.submit([a_spec()])
    taken = claim(ledger, lease=0.01)
    ledger.renew(taken, 30)
    time.sleep(0.05)

    assert ledger.reap() == []
    finish(ledger, taken)


def test_a_lost_worker_leaves_its_job_to_the_next_and_its_finished_steps(ledger: Ledger) -> None:
    ledger.submit([a_chain(3)])
    lost = claim(ledger, "lost", lease=0.3)
    record = StepRecord(
        index=0, carry="carry/x/0.png", carry_kind="image", details={"seconds": 1.5, "ä": [None]}
    )
    ledger.finish_step(lost, record)
    time.sleep(0.35)

    assert ledger.reap() == [lost.job_id]
    again = claim(ledger, "next")

    assert again.attempt == 2
    [kept] = again.steps
    assert kept.finished_at is not None
    assert (kept.index, kept.carry, kept.carry_kind) == (0, "carry/x/0.png", "image")
    assert kept.details == record.details
    first, second = ledger.job(lost.job_id).attempts
    assert (first.worker, first.error_code) == ("lost", "worker_lost")
    assert first.ended_at is not None
    assert (second.worker, second.ended_at) == ("next", None)


def test_a_job_that_loses_every_worker_fails_for_good(ledger: Ledger) -> None:
    [submitted] = ledger.submit([a_spec(max_attempts=2)])
    for _ in range(2):
        claim(ledger, lease=0.01)
        time.sleep(0.05)
        assert ledger.reap() == [submitted.id]

    job = ledger.job(submitted.id)
    assert (job.state, job.error_code, job.lease_until) == (State.FAILED, "worker_lost", None)
    assert job.error == "worker w1 stopped renewing its lease"
    assert job.finished_at is not None
    assert ledger.claim(worker="w", pool="default", lease_seconds=30) is None


def test_many_reapers_take_each_lost_job_back_once(ledger: Ledger) -> None:
    ids = sorted(s.id for s in ledger.submit(a_spec() for _ in range(30)))
    for _ in ids:
        claim(ledger, lease=0.01)
    time.sleep(0.05)

    with ThreadPoolExecutor(4) as threads:
        reaped = [i for ids in threads.map(lambda _: ledger.reap(), range(8)) for i in ids]

    assert sorted(reaped) == ids
    assert all(ledger.job(job_id).charged == 1 for job_id in ids)


def test_giving_back_charges_no_attempt(ledger: Ledger) -> None:
    [submitted] = ledger.submit([a_spec(max_attempts=1)])
    for _ in range(3):
        ledger.give_back(claim(ledger))
    job = ledger.job(submitted.id)
    assert (job.state, job.charged, job.worker) == (State.QUEUED, 0, None)
    assert [a.error_code for a in job.attempts] == ["given_back"] * 3

    finish(ledger, claim(ledger))
    assert ledger.job(submitted.id).state is State.SUCCEEDED


def test_a_failure_that_may_pass_waits_and_is_tried_again(ledger: Ledger) -> None:
    [submitted] = ledger.submit([a_spec(max_attempts=2)])

    state = ledger.fail(claim(ledger), code="objects_unavailable", message="S3", retry_in=0.3)

    assert state is State.QUEUED
    assert ledger.due("default") == 0
    assert ledger.claim(worker="w", pool="default", lease_seconds=30) is None
    job = ledger.job(submitted.id)
    assert (job.error_code, job.finished_at) == (None, None)
    assert job.attempts[0].error_code == "objects_unavailable"

    time.sleep(0.35)
    assert ledger.due("default") == 1
    assert ledger.fail(claim(ledger), code="x", message="y", retry_in=0.3) is State.FAILED


def test_a_failure_for_good_is_not_tried_again(ledger: Ledger) -> None:
    [submitted] = ledger.submit([a_spec(max_attempts=5)])

    state = ledger.fail(claim(ledger), code="invalid_image", message="too\0dark", retry_in=None)

    job = ledger.job(submitted.id)
    assert state is job.state is State.FAILED
    assert (job.error_code, job.error) == ("invalid_image", "too\N{REPLACEMENT CHARACTER}dark")
    assert job.attempts[0].error == job.error


def test_any_error_message_can_be_stored(ledger: Ledger) -> None:
    [submitted] = ledger.submit([a_spec()])
    odd = b"caf\xe9".decode(errors="surrogateescape") + "x" * 100_000
    ledger.fail(claim(ledger), code="internal_error", message=odd, retry_in=None)

    error = ledger.job(submitted.id).error
    assert error is not None
    assert error.startswith("caf?xxx")
    assert len(error) == 4000


def test_a_chain_s_steps_finish_in_order_and_once(ledger: Ledger) -> None:
    [submitted] = ledger.submit([a_chain(3)])
    taken = claim(ledger)

    with pytest.raises(ValueError, match="step 1"):
        ledger.finish_step(taken, StepRecord(index=1))
    for index in range(3):
        ledger.progress([(taken, index, 4, 10)])
        assert ledger.job(submitted.id).progress_done == 4
        ledger.finish_step(taken, StepRecord(index=index, artifact=f"jobs/x/step-{index}.png"))
        ledger.finish_step(taken, StepRecord(index=index, artifact="jobs/x/again.png"))
    before = ledger.job(submitted.id)
    ledger.succeed(taken)

    job = ledger.job(submitted.id)
    assert before.step == 3
    assert [(s.index, s.artifact) for s in job.steps] == [
        (n, f"jobs/x/step-{n}.png") for n in range(3)
    ]
    assert job.artifact == "jobs/x/step-2.png"
    assert (job.state, job.lease_until, job.attempts[0].error_code) == ("succeeded", None, None)
    assert job.finished_at is not None
    assert job.attempts[0].ended_at is not None


def test_a_chain_has_no_artifact_before_its_last_step(ledger: Ledger) -> None:
    [submitted] = ledger.submit([a_chain(2)])
    ledger.finish_step(claim(ledger), StepRecord(index=0, artifact="jobs/x/step-0.png"))
    assert ledger.job(submitted.id).artifact is None


def test_due_counts_what_could_run_now_and_no_further_than_it_needs(ledger: Ledger) -> None:
    ledger.submit([a_spec() for _ in range(3)])
    ledger.submit([a_spec()], pool="other")
    claim(ledger)
    assert ledger.due("default") == 2
    ledger.submit(a_spec() for _ in range(1100))
    assert ledger.due("default") == 1000


def test_a_spec_that_this_version_cannot_read_fails_and_holds_up_nobody(
    ledger: Ledger, ledger_url: str
) -> None:
    odd, good = (s.id for s in ledger.submit([a_spec(priority=1), a_spec()]))
    database = Database(ledger_url)
    with database.writing() as connection:
        connection.execute(
            update(jobs).where(jobs.c.id == odd).values(spec='{"steps": [], "new_field": 1}')
        )

    assert claim(ledger).job_id == good

    with database.reading() as connection:
        row = connection.execute(select(jobs).where(jobs.c.id == odd)).one()
    database.close()
    assert (row.state, row.error_code, row.lease_until) == ("failed", "invalid_spec", None)
    assert "new_field: no such field" in row.error
