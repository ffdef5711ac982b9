"""The runner: how a claimed job ends when something around it fails.

The ledger and the bucket are real, on both databases; the device loop is a fake that fails on
request, as devices do not.
"""

from concurrent.futures import Future
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from storage.errors import BadOutput, DeviceFailed, LatentmillError, ObjectsUnavailable
from storage.jobs import Claim, Job, State
from storage.ledger import Ledger
from storage.models import load_models
from storage.objects import Objects
from storage.settings import Settings
from storage.spec import parse_spec
from worker.device_loop import DeviceLoop, Latent, Rendered, Request
from worker.runner import Runner, Running, Stopping


class FakeLoop:
    """Answers each request at once with a grey picture, or with the error that comes next."""

    device, version = "fake", "0"

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.requests: list[Request] = []

    def submit(self, request: Request) -> "Future[Rendered]":
        self.requests.append(request)
        future: Future[Rendered] = Future()
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            future.set_exception(error)
            return future
        latent = Latent(values=np.full((4, 8, 8), 0.5, np.float32), fingerprint="v")
        future.set_result(
            Rendered(
                picture=Image.new("RGB", (64, 64), "grey") if request.picture else None,
                latent=latent if request.following else None,
                width=64,
                height=64,
                scheduler="PNDMScheduler",
                model_revision=None,
                vae_fingerprint="v",
                seconds=0.1,
                warnings=(),
            )
        )
        return future


class NoBucket:
    """A bucket that is away."""

    def __getattr__(self, name: str) -> Any:
        def away(*_: object) -> None:
            raise ObjectsUnavailable("the bucket is away")

        return away


STEP = {"kind": "text2img", "model": "demo", "prompt": "a cat"}
NEXT = {"kind": "img2img", "model": "demo", "prompt": "a dog"}


@pytest.fixture
def claim(ledger: Ledger) -> Claim:
    ledger.submit([parse_spec({"steps": [STEP, NEXT], "max_attempts": 2})])
    return taken(ledger)


def taken(ledger: Ledger) -> Claim:
    claim = ledger.claim(worker="w", pool="default", lease_seconds=30)
    assert claim is not None
    return claim


def run(ledger: Ledger, objects: object, loop: FakeLoop, claim: Claim, leave: Any = None) -> Job:
    settings = Settings()
    runner = Runner(
        settings, ledger, cast(Objects, objects), load_models(settings), cast(DeviceLoop, loop)
    )
    running = Running(claim)
    if leave is not None:
        running.stop(leave)
    runner.run(running)
    return ledger.job(claim.job_id)


def test_a_chain_records_each_step_and_removes_what_was_handed_over(
    ledger: Ledger, objects: Objects, claim: Claim
) -> None:
    job = run(ledger, objects, FakeLoop(), claim)
    assert job.state is State.SUCCEEDED
    carry = job.steps[0].carry
    assert carry is not None
    assert not objects.exists(carry)
    assert job.artifact is not None
    assert objects.exists(job.artifact)


@pytest.mark.parametrize("error", [DeviceFailed("no memory"), ValueError("a bug")])
def test_what_may_pass_is_tried_again_later_and_goes_on_from_the_last_step(
    ledger: Ledger, objects: Objects, claim: Claim, error: Exception
) -> None:
    job = run(ledger, objects, FakeLoop(None, error), claim)
    assert (job.state, len(job.steps)) == (State.QUEUED, 1)
    assert job.run_at > job.created_at
    assert job.attempts[0].error is not None
    carry = job.steps[0].carry
    assert carry is not None
    assert objects.exists(carry)


def test_a_second_attempt_begins_from_what_the_first_handed_over(
    ledger: Ledger, objects: Objects, claim: Claim
) -> None:
    run(ledger, objects, FakeLoop(None, Stopping("stop")), claim)
    loop = FakeLoop()
    job = run(ledger, objects, loop, taken(ledger))
    assert job.state is State.SUCCEEDED
    (request,) = loop.requests
    assert request.step.prompt == "a dog"
    assert isinstance(request.source, Latent)
    assert request.source.fingerprint == "v"
    assert np.all(request.source.values == 0.5)


def test_attempts_are_spent_and_then_it_has_failed_for_good(
    ledger: Ledger, objects: Objects, claim: Claim
) -> None:
    ledger.fail(claim, code="x", message="first", retry_in=0)
    job = run(ledger, objects, FakeLoop(DeviceFailed("no memory")), taken(ledger))
    assert (job.state, job.error_code, job.error) == (State.FAILED, "device_failed", "no memory")


def test_what_is_wrong_for_good_is_not_tried_again(
    ledger: Ledger, objects: Objects, claim: Claim
) -> None:
    error: LatentmillError = BadOutput("black")
    job = run(ledger, objects, FakeLoop(None, error), claim)
    assert (job.state, job.error_code, job.charged) == (State.FAILED, "bad_output", 1)
    carry = job.steps[0].carry
    assert carry is not None
    assert not objects.exists(carry)


def test_a_bucket_that_is_away_costs_an_attempt_and_no_half_step(
    ledger: Ledger, claim: Claim
) -> None:
    job = run(ledger, NoBucket(), FakeLoop(), claim)
    assert (job.state, job.steps) == (State.QUEUED, ())
    assert job.attempts[0].error_code == "objects_unavailable"


def test_a_lost_claim_writes_nothing(ledger: Ledger, objects: Objects, claim: Claim) -> None:
    ledger.give_back(claim)
    taken(ledger)
    before = ledger.job(claim.job_id)
    assert run(ledger, objects, FakeLoop(), claim) == before


def test_a_stop_that_came_before_the_step_reaches_the_device_loop(
    ledger: Ledger, objects: Objects, claim: Claim
) -> None:
    loop = FakeLoop(Stopping("stop"))
    job = run(ledger, objects, loop, claim, leave=Stopping("stop"))
    assert isinstance(loop.requests[0].watch.leave, Stopping)
    assert (job.state, job.charged) == (State.QUEUED, 0)
