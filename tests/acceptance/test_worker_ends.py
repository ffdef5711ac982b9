"""Workers that stop, vanish or fall behind: no job is lost, and none is done twice."""

import signal
import time

from storage.jobs import Job, Selection, State
from storage.objects import carry_key
from tests.acceptance.conftest import Mill
from worker.carry import ROW

LONG = {"kind": "text2img", "prompt": "a red house", "num_inference_steps": 250}
SHORT = {**LONG, "num_inference_steps": 6}
IMPATIENT = {"lease_seconds": 10, "renew_seconds": 1, "poll_seconds": 0.5}


def is_stepping(job: Job) -> bool:
    return job.progress_done > 0


def test_an_orderly_stop_gives_the_job_back_uncharged(mill: Mill) -> None:
    job_id = mill.submit(LONG)
    with mill.worker(**IMPATIENT) as worker:
        mill.wait(job_id, is_stepping)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    job = mill.ledger.job(job_id)
    assert (job.state, job.charged) == (State.QUEUED, 0)
    assert job.attempts[-1].error_code == "given_back"
    assert not [w for w in mill.ledger.workers(60) if w.name.endswith(f"-{worker.pid}")]

    with mill.worker(**IMPATIENT):
        job = mill.wait(job_id)
        whole = mill.wait(mill.submit(LONG))
    assert (job.state, job.attempt, job.charged) == (State.SUCCEEDED, 2, 1)
    # It went on where it was, and ended as if it had never stopped.
    assert job.steps[0].details["resumed_at"] > 0
    assert whole.steps[0].details["resumed_at"] == 0
    pictures = [mill.picture(each.artifact).tobytes() for each in (job, whole)]
    assert pictures[0] == pictures[1]
    assert not mill.objects.exists(carry_key(job_id, 0, ROW))


def test_a_killed_workers_job_is_done_by_another(mill: Mill) -> None:
    job_id = mill.submit(LONG)
    with mill.worker(**IMPATIENT) as worker:
        mill.wait(job_id, is_stepping)
        worker.kill()
        worker.wait()
    with mill.worker(**IMPATIENT):
        begun = time.monotonic()
        mill.wait(job_id, lambda job: job.attempt == 2)
        assert time.monotonic() - begun < 45
        job = mill.wait(job_id)
    assert (job.state, job.attempt) == (State.SUCCEEDED, 2)
    assert [a.error_code for a in job.attempts] == ["worker_lost", None]


def test_a_worker_that_froze_past_its_lease_writes_nothing_more(mill: Mill) -> None:
    job_id = mill.submit(LONG)
    with mill.worker(**IMPATIENT) as frozen:
        mill.wait(job_id, is_stepping)
        frozen.send_signal(signal.SIGSTOP)
        with mill.worker(**IMPATIENT):
            mill.wait(job_id, lambda job: job.attempt == 2 and is_stepping(job))
            frozen.send_signal(signal.SIGCONT)
            job = mill.wait(job_id)
    assert (job.state, job.attempt) == (State.SUCCEEDED, 2)
    assert [a.error_code for a in job.attempts] == ["worker_lost", None]
    assert len(job.steps) == 1


def test_a_broker_that_forgot_everything_costs_only_time(mill: Mill) -> None:
    jobs = [mill.submit(SHORT) for _ in range(5)]
    with mill.app.connection_for_write() as connection:
        connection.default_channel.client.flushall()
    with mill.worker(**IMPATIENT):
        ended = [mill.wait(job) for job in jobs]
    assert {job.state for job in ended} == {State.SUCCEEDED}
    assert {job.attempt for job in ended} == {1}


def test_each_invitation_five_times_has_one_effect_a_job(mill: Mill) -> None:
    jobs = [mill.submit(SHORT) for _ in range(3)]
    for _ in range(12):
        mill.app.send_task("latentmill.work", args=[], queue="latentmill.default")
    with mill.worker(**IMPATIENT):
        ended = [mill.wait(job) for job in jobs]
    assert {(job.state, job.attempt) for job in ended} == {(State.SUCCEEDED, 1)}


def test_a_canceled_job_leaves_the_device_and_the_next_one_has_it(mill: Mill) -> None:
    job_id = mill.submit({**LONG, "num_inference_steps": 900})
    with mill.worker(**{**IMPATIENT, "renew_seconds": 2}):
        mill.wait(job_id, is_stepping)
        begun = time.monotonic()
        (answer,) = mill.ledger.cancel(Selection(ids=(job_id,)))
        job = mill.wait(job_id)
        assert time.monotonic() - begun < 10
        after = mill.wait(mill.submit(SHORT))
    assert answer.outcome == "leaving"
    assert (job.state, job.error_code) == (State.CANCELED, "canceled")
    assert 0 < job.progress_done < job.progress_total
    assert after.state is State.SUCCEEDED


def test_a_job_of_higher_priority_takes_a_running_ones_place(mill: Mill) -> None:
    with mill.worker(**IMPATIENT):
        jobs = [mill.submit(LONG), mill.submit(LONG)]
        for job_id in jobs:
            mill.wait(job_id, is_stepping)
        urgent = mill.wait(mill.submit(SHORT, priority=5))
        first, second = (mill.ledger.job(job_id) for job_id in jobs)
        assert (urgent.state, second.attempts[0].error_code) == (State.SUCCEEDED, "given_back")
        assert (first.state, first.attempt) == (State.RUNNING, 1)
        second = mill.wait(jobs[1])
    assert (second.state, second.attempt, second.charged) == (State.SUCCEEDED, 2, 1)
    assert second.steps[0].details["resumed_at"] > 0
