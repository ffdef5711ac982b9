import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from storage.database import Database
from storage.errors import (
    Canceled,
    ClaimLost,
    DeadlineExceeded,
    InvalidSpec,
    LatentmillError,
    NotFound,
)
from storage.ledger import Claim, Ledger, Selection, State, StepRecord
from storage.tables import jobs
from tests.storage.specs import a_chain, a_spec, finish


def claim(ledger: Ledger, lease: float = 30.0) -> Claim:
    found = ledger.claim(worker="w", pool="default", lease_seconds=lease)
    assert found is not None
    return found


def chosen(*ids: str, **by: object) -> Selection:
    return Selection(ids=ids, **by)  # type: ignore[arg-type]


def outcomes(ledger: Ledger, selection: Selection) -> dict[str, str]:
    return {answer.id: answer.outcome for answer in ledger.cancel(selection)}


# Cancel


def test_canceling_says_of_each_job_what_it_came_to_and_may_be_repeated(ledger: Ledger) -> None:
    done, runs, waits = (s.id for s in ledger.submit(a_spec() for _ in range(3)))
    finish(ledger, claim(ledger))
    running = claim(ledger)

    first = outcomes(ledger, chosen(done, runs, waits.upper()))

    assert first == {done: "ended", runs: "leaving", waits: "canceled"}
    assert outcomes(ledger, chosen(done, runs, waits)) == {**first, waits: "ended"}
    job = ledger.job(waits)
    assert (job.state, job.error_code, job.finished_at is None) == ("canceled", "canceled", False)
    assert ledger.job(runs).cancel_requested
    assert ledger.claim(worker="w", pool="default", lease_seconds=30) is None

    ledger.end_canceled(running)

    job = ledger.job(runs)
    assert (job.state, job.error_code) == (State.CANCELED, "canceled")
    assert [attempt.error_code for attempt in job.attempts] == ["canceled"]
    with pytest.raises(ClaimLost):
        ledger.renew(running, 30)


def test_the_owner_of_a_running_job_hears_of_it_with_each_write(ledger: Ledger) -> None:
    ledger.submit([a_chain(2)])
    taken = claim(ledger)

    def heard() -> list[LatentmillError | None]:
        return [
            ledger.renew(taken, 30),
            *ledger.progress([(taken, 0, 1, 2)]),
            ledger.finish_step(taken, StepRecord(index=0)),
        ]

    assert heard() == [None, None, None]
    ledger.cancel(chosen(taken.job_id))
    assert [type(reason) for reason in heard()] == [Canceled] * 3


@pytest.mark.parametrize("end", ["give_back", "fail", "reap"])
def test_a_job_that_shall_be_canceled_is_not_queued_again(ledger: Ledger, end: str) -> None:
    ledger.submit([a_spec()])
    taken = claim(ledger, lease=-1 if end == "reap" else 30)
    ledger.cancel(chosen(taken.job_id))
    if end == "give_back":
        assert ledger.give_back(taken) is State.CANCELED
    elif end == "fail":
        assert ledger.fail(taken, code="x", message="y", retry_in=0) is State.CANCELED
    else:
        ledger.reap()
    job = ledger.job(taken.job_id)
    assert (job.state, job.error_code) == (State.CANCELED, "canceled")


def test_a_job_may_succeed_before_its_owner_hears_of_it(ledger: Ledger) -> None:
    ledger.submit([a_spec()])
    taken = claim(ledger)
    ledger.cancel(chosen(taken.job_id))
    finish(ledger, taken)
    assert ledger.job(taken.job_id).state is State.SUCCEEDED


def test_a_batch_or_a_label_is_canceled_as_a_whole(ledger: Ledger) -> None:
    batch = [s.id for s in ledger.submit((a_spec() for _ in range(1200)), batch="b")]
    ledger.submit([a_spec(labels={"set": "a"})])
    [single] = ledger.submit([a_spec()])
    finish(ledger, claim(ledger))
    running = claim(ledger)

    assert outcomes(ledger, chosen(label=("set", "a"))) == {}, "it had ended"
    found = outcomes(ledger, chosen(batch="b"))

    assert set(found) == set(batch)
    assert running.job_id == single.id
    assert ledger.counts()[State.CANCELED] == len(batch)
    assert ledger.cancel(chosen(batch="b")) == []
    assert ledger.cancel(chosen(batch="other")) == []


def test_what_is_not_there_cancels_nothing(ledger: Ledger) -> None:
    [waits] = ledger.submit([a_spec()])
    with pytest.raises(NotFound):
        ledger.cancel(chosen(waits.id, "0" * 26))
    with pytest.raises(InvalidSpec, match="name their ids"):
        ledger.cancel(chosen())
    assert ledger.job(waits.id).state is State.QUEUED


# Deadlines


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_a_queued_job_fails_when_its_deadline_passes(ledger: Ledger) -> None:
    late, good = (s.id for s in ledger.submit([a_spec(deadline=in_seconds(-1)), a_spec()]))
    assert claim(ledger).job_id == good
    job = ledger.job(late)
    assert (job.state, job.error_code) == (State.FAILED, "deadline_exceeded")
    assert (job.attempt, job.finished_at is None) == (0, False)


def test_housekeeping_fails_what_is_late_even_before_its_time_to_run(ledger: Ledger) -> None:
    ledger.submit([a_spec(deadline=in_seconds(3600))])
    [late] = ledger.submit([a_spec(run_at=in_seconds(-20), deadline=in_seconds(-10))])
    assert (ledger.expire(), ledger.expire()) == (1, 0)
    assert ledger.job(late.id).error_code == "deadline_exceeded"


def test_the_owner_of_a_running_job_hears_that_its_deadline_passed(ledger: Ledger) -> None:
    ledger.submit([a_spec(deadline=in_seconds(1))])
    taken = claim(ledger)
    assert ledger.renew(taken, 30) is None
    time.sleep(1.1)
    assert ledger.expire() == 0, "its owner ends it"
    reason = ledger.renew(taken, 30)
    assert isinstance(reason, DeadlineExceeded)
    assert not reason.retryable


# Retry


def test_what_failed_is_tried_again_with_its_history_and_all_its_attempts(ledger: Ledger) -> None:
    [submitted] = ledger.submit([a_spec(max_attempts=2)])
    for _ in range(2):
        ledger.fail(claim(ledger), code="device_failed", message="no memory", retry_in=0)
    assert ledger.job(submitted.id).state is State.FAILED

    assert ledger.retry(chosen(submitted.id)) == [submitted.id]
    assert ledger.retry(chosen(submitted.id)) == [], "it waits already"

    job = ledger.job(submitted.id)
    assert (job.state, job.charged, job.attempt) == (State.QUEUED, 0, 2)
    assert (job.error_code, job.finished_at, job.worker) == (None, None, None)
    assert [attempt.error for attempt in job.attempts] == ["no memory"] * 2
    again = claim(ledger)
    assert again.attempt == 3
    finish(ledger, again)


def test_jobs_are_chosen_for_a_retry_by_code_label_and_batch(ledger: Ledger) -> None:
    specs = [a_spec(labels={"n": str(n)}) for n in range(4)]
    ids = [s.id for s in ledger.submit(specs, batch="b")]
    for code in ("x", "y", "x"):
        ledger.fail(claim(ledger), code=code, message="", retry_in=None)
    ledger.cancel(chosen(ids[3]))

    assert ledger.retry(chosen(error_code="x", label=("n", "0"))) == [ids[0]]
    assert ledger.retry(chosen(error_code="x")) == [ids[2]]
    assert ledger.retry(chosen(batch="b")) == [ids[1], ids[3]]
    assert ledger.counts()[State.QUEUED] == 4
    with pytest.raises(InvalidSpec):
        ledger.retry(chosen())


def test_a_retry_after_the_deadline_has_none_any_more(ledger: Ledger) -> None:
    [late] = ledger.submit([a_spec(deadline=in_seconds(-1))])
    ledger.expire()
    ledger.retry(chosen(late.id))
    assert claim(ledger).job_id == late.id


def test_a_canceled_job_that_waits_for_its_time_waits_again(ledger: Ledger) -> None:
    [later] = ledger.submit([a_spec(run_at=in_seconds(3600))])
    ledger.cancel(chosen(later.id))
    ledger.retry(chosen(later.id))
    assert ledger.job(later.id).state is State.QUEUED
    assert ledger.claim(worker="w", pool="default", lease_seconds=30) is None


def test_a_batch_that_is_tried_again_does_not_push_ahead(ledger: Ledger) -> None:
    again = {s.id for s in ledger.submit((a_spec() for _ in range(20)), batch="again")}
    ledger.cancel(chosen(batch="again"))
    ledger.submit((a_spec() for _ in range(20)), batch="other")
    ledger.retry(chosen(batch="again"))
    taken = {claim(ledger).job_id for _ in range(10)}
    assert 3 <= len(taken & again) <= 5


# Ends


def test_a_job_succeeds_only_with_all_of_its_steps(ledger: Ledger) -> None:
    ledger.submit([a_chain(2)])
    taken = claim(ledger)
    ledger.finish_step(taken, StepRecord(index=0))
    with pytest.raises(ValueError, match="with 1 of 2 steps"):
        ledger.succeed(taken)
    assert ledger.job(taken.job_id).state is State.RUNNING
    ledger.finish_step(taken, StepRecord(index=1))
    ledger.succeed(taken)


def test_ended_jobs_that_left_carries_are_told_and_live_ones_never(ledger: Ledger) -> None:
    ids = [s.id for s in ledger.submit([a_chain(2), a_chain(2), a_spec(max_attempts=1), a_spec()])]
    live, ended, _, clean = claim(ledger), claim(ledger), claim(ledger, lease=-1), claim(ledger)
    for taken in (live, ended):
        ledger.finish_step(taken, StepRecord(index=0, carry="carry/x/0.png", carry_kind="image"))
    assert ledger.littered() == []
    ledger.fail(ended, code="x", message="", retry_in=None)
    finish(ledger, clean)
    assert ledger.reap() == [ids[2]]

    assert ledger.littered() == [ids[1], ids[2]]
    ledger.tidied(ids)
    assert ledger.littered() == []
    ledger.fail(live, code="x", message="", retry_in=None)
    assert ledger.littered() == [ids[0]], "it ran when the others were tidied"


def test_steps_whose_carry_is_gone_are_forgotten(ledger: Ledger) -> None:
    ledger.submit([a_chain(2)])
    taken = claim(ledger)
    ledger.finish_step(taken, StepRecord(index=0, carry="carry/x/0.png", carry_kind="image"))
    ledger.forget_steps(taken)
    job = ledger.job(taken.job_id)
    assert (job.steps, job.step) == ((), 0)
    finish(ledger, taken)


def test_a_job_that_this_version_cannot_read_is_shown_with_the_reason(
    ledger: Ledger, ledger_url: str
) -> None:
    odd, good = (s.id for s in ledger.submit([a_spec(), a_spec()]))
    database = Database(ledger_url)
    with database.writing() as connection:
        values = {"spec": '{"steps": [], "new_field": 1}'}
        connection.execute(update(jobs).where(jobs.c.id == odd).values(values))
    database.close()

    shown = ledger.jobs()
    assert [job.id for job in shown] == [good, odd]
    assert ledger.job(odd) == shown[1]
    assert shown[1].spec is None
    assert "new_field: no such field" in (shown[1].unreadable or "")
    assert shown[1].artifact is None
    assert shown[0].unreadable is None
