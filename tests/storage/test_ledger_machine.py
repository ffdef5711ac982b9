"""The ledger against a model of it: whatever happens in whatever order, no job is lost.

Time does not pass here: leases are long over or far from it, and so are retries.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete

from storage.database import Database
from storage.errors import Canceled, ClaimLost
from storage.ledger import Claim, Ledger, Selection, State, StepRecord
from storage.tables import attempts, jobs, steps
from tests.storage.specs import a_chain

ENDED = {State.SUCCEEDED, State.FAILED, State.CANCELED}


@dataclass
class Known:
    """What the model knows of a job."""

    steps: int
    max_attempts: int
    state: State = State.QUEUED
    attempt: int = 0
    charged: int = 0
    finished: int = 0
    lease_over: bool = False
    canceling: bool = False
    delayed: bool = False
    ends: list[State] = field(default_factory=list)

    def end(self, state: State) -> None:
        self.state, self.canceling, self.lease_over = state, False, False
        if state in ENDED:
            self.ends.append(state)

    def again(self, may: bool = True) -> State:
        """An attempt came to nothing."""
        state = State.CANCELED if self.canceling else State.QUEUED
        self.end(state if may else State.FAILED)
        return self.state


class LedgerMachine(RuleBasedStateMachine):
    """Every rule does the same to the ledger and to the model, and compares the answers."""

    database: Database
    ledger: Ledger
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Known] = {}
        with self.database.writing() as connection:
            for table in (attempts, steps, jobs):
                connection.execute(delete(table))

    @initialize()
    def begin(self) -> None:
        self.submit(length=2, most=2, count=3, batch="b")

    @rule(length=st.integers(1, 2), most=st.integers(1, 2), count=st.integers(1, 2),
          batch=st.sampled_from([None, "b"]))  # fmt: skip
    def submit(self, length: int, most: int, count: int, batch: str | None) -> None:
        spec = a_chain(length).model_copy(update={"max_attempts": most})
        for submitted in self.ledger.submit([spec] * count, batch=batch):
            assert submitted.id not in self.known
            self.known[submitted.id] = Known(steps=length, max_attempts=most)

    @rule(target=claims, over=st.booleans(), prefer=st.sampled_from([(), ("demo",), ("x",)]))
    def claim(self, over: bool, prefer: tuple[str, ...]) -> Any:
        found = self.ledger.claim(
            worker="w", pool="default", lease_seconds=-60 if over else 600, prefer=prefer
        )
        ready = [k for k in self.known.values() if k.state is State.QUEUED and not k.delayed]
        if found is None:
            assert not ready
            return multiple()
        job = self.known[found.job_id]
        assert job in ready
        assert len(found.steps) == job.finished
        job.attempt, job.charged = job.attempt + 1, job.charged + 1
        job.state, job.lease_over = State.RUNNING, over
        assert found.attempt == job.attempt
        return found

    def write(self, claim: Claim, call: Callable[[Claim], Any]) -> tuple[Known | None, Any]:
        """Let an owner write; the job, unless it has another owner now."""
        job = self.known[claim.job_id]
        if job.state is State.RUNNING and job.attempt == claim.attempt:
            return job, call(claim)
        with pytest.raises(ClaimLost):
            call(claim)
        return None, None

    @rule(claim=claims, write=st.sampled_from(["renew", "finish_step", "succeed"]))
    def go_on(self, claim: Claim, write: str) -> None:
        getattr(self, write)(claim)

    @rule(
        claim=claims,
        end=st.sampled_from(["give_back", "end_canceled", "fail", "retry_now", "retry_later"]),
    )
    def come_to_nothing(self, claim: Claim, end: str) -> None:
        getattr(self, end)(claim)

    def renew(self, claim: Claim) -> None:
        job, reason = self.write(claim, lambda c: self.ledger.renew(c, 600))
        if job is not None:
            job.lease_over = False
            assert isinstance(reason, Canceled) == job.canceling

    def finish_step(self, claim: Claim) -> None:
        job = self.known[claim.job_id]
        record = StepRecord(index=min(job.finished, job.steps - 1))
        owned, reason = self.write(claim, lambda c: self.ledger.finish_step(c, record))
        if owned is not None:
            owned.finished = min(owned.finished + 1, owned.steps)
            assert isinstance(reason, Canceled) == owned.canceling

    def succeed(self, claim: Claim) -> None:
        job = self.known[claim.job_id]
        owned = job.state is State.RUNNING and job.attempt == claim.attempt
        if owned and job.finished < job.steps:
            with pytest.raises(ValueError, match="cannot succeed"):
                self.ledger.succeed(claim)
        elif self.write(claim, self.ledger.succeed)[0] is not None:
            job.end(State.SUCCEEDED)

    def fail(self, claim: Claim, retry_in: float | None = None) -> None:
        def call(claim: Claim) -> State:
            return self.ledger.fail(claim, code="x", message="y", retry_in=retry_in)

        job, state = self.write(claim, call)
        if job is not None:
            may = retry_in is not None and job.charged < job.max_attempts
            assert state is job.again(may)
            job.delayed = state is State.QUEUED and bool(retry_in)

    def retry_now(self, claim: Claim) -> None:
        self.fail(claim, 0.0)

    def retry_later(self, claim: Claim) -> None:
        self.fail(claim, 600.0)

    def give_back(self, claim: Claim) -> None:
        job, state = self.write(claim, self.ledger.give_back)
        if job is not None:
            job.charged -= 1
            assert state is job.again()

    def end_canceled(self, claim: Claim) -> None:
        job, _ = self.write(claim, self.ledger.end_canceled)
        if job is not None:
            job.end(State.CANCELED)

    def some(self, *states: State) -> bool:
        return any(job.state in states for job in self.known.values())

    @precondition(lambda self: any(job.lease_over for job in self.known.values()))
    @rule()
    def reap(self) -> None:
        expired = {i for i, k in self.known.items() if k.state is State.RUNNING and k.lease_over}
        assert set(self.ledger.reap()) == expired
        for job_id in expired:
            job = self.known[job_id]
            job.again(job.charged < job.max_attempts)

    @precondition(lambda self: self.some(State.QUEUED, State.RUNNING))
    @rule(batch=st.booleans(), pick=st.integers(0, 99))
    def cancel(self, batch: bool, pick: int) -> None:
        chosen = Selection(batch="b") if batch else Selection(ids=(self.pick(pick),))
        for answer in self.ledger.cancel(chosen):
            job = self.known[answer.id]
            if job.state is State.QUEUED:
                job.end(State.CANCELED)
                assert answer.outcome == "canceled"
            elif job.state is State.RUNNING:
                job.canceling = True
                assert answer.outcome == "leaving"
            else:
                assert answer.outcome == "ended"
            assert answer.state is job.state

    @precondition(lambda self: self.some(State.FAILED, State.CANCELED))
    @rule(pick=st.integers(0, 99))
    def retry(self, pick: int) -> None:
        job_id = self.pick(pick)
        job = self.known[job_id]
        may = job.state in (State.FAILED, State.CANCELED)
        assert self.ledger.retry(Selection(ids=(job_id,))) == ([job_id] if may else [])
        if may:
            assert job.ends.pop() is job.state
            job.state, job.charged = State.QUEUED, 0

    @invariant()
    def the_ledger_says_the_same(self) -> None:
        shown = {job.id: job for job in self.ledger.jobs(limit=1000)}
        assert shown.keys() == self.known.keys(), "no job is lost, none appears"
        for job_id, known in self.known.items():
            job = shown[job_id]
            assert (job.state, job.attempt, job.charged) == (
                known.state, known.attempt, known.charged,
            )  # fmt: skip
            assert [step.index for step in job.steps] == list(range(known.finished))
            # One owner, one open attempt; every claim has left its trace.
            open_ = [attempt.number for attempt in job.attempts if attempt.ended_at is None]
            assert open_ == ([known.attempt] if known.state is State.RUNNING else [])
            assert [attempt.number for attempt in job.attempts] == [*range(1, known.attempt + 1)]
            assert (job.lease_until is not None) == (known.state is State.RUNNING)
            assert (job.finished_at is not None) == (known.state in ENDED)
            if known.state not in ENDED:
                assert job.cancel_requested == known.canceling
            assert known.ends == ([known.state] if known.state in ENDED else [])

    def pick(self, number: int) -> str:
        return sorted(self.known)[number % len(self.known)]


@contextmanager
def machine_on(url: str) -> Iterator[type[LedgerMachine]]:
    database, ledger = Database(url), Ledger.open(url)
    yield type("Machine", (LedgerMachine,), {"database": database, "ledger": ledger})
    ledger.close()
    database.close()


def test_whatever_happens_in_whatever_order_no_job_is_lost(ledger_url: str) -> None:
    bounded = settings(
        max_examples=35,
        stateful_step_count=50,
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    with machine_on(ledger_url) as machine:
        run_state_machine_as_test(machine, settings=bounded)  # type: ignore[no-untyped-call]
