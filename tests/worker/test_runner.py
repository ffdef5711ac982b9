"""The runner: how a claimed job ends when something around it fails.

The ledger and the bucket are real, on both databases; the device loop is a fake that fails on
request, as devices do not.
"""

import io
import json
import threading
import time
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from storage.errors import BadOutput, DeviceFailed, LatentmillError, ObjectsUnavailable
from storage.jobs import Claim, Job, Selection, State
from storage.ledger import Ledger
from storage.models import load_models
from storage.objects import Objects
from storage.repeat import Repeat
from storage.settings import Settings
from storage.spec import parse_spec
from worker.delivery import png
from worker.device_loop import DeviceLoop
from worker.housekeeping import report_progress
from worker.meter import Meter
from worker.rendering import Latent, Rendered, Request
from worker.runner import Runner, Running, Stopping


class FakeLoop:
    """Answers each request at once with a grey picture, or with the error that comes next."""

    device, version = "fake", "0"

    def __init__(self, *errors: Exception | None) -> None:
        self.meter = Meter()
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
                picture=Image.linear_gradient("L").convert("RGB") if request.picture else None,
                latent=latent if request.following else None,
                width=64,
                height=64,
                scheduler="PNDMScheduler",
                options={"num_inference_steps": 50, "guidance_scale": 7.5, "strength": 0.8},
                model_revision=None,
                vae_fingerprint="v",
                seconds=0.1,
                resumed_at=0,
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


def run(
    ledger: Ledger,
    objects: object,
    loop: FakeLoop,
    claim: Claim,
    leave: Any = None,
    settings: Settings | None = None,
) -> Job:
    settings = settings or Settings()
    runner = Runner(
        settings, ledger, cast(Objects, objects), load_models(settings), cast(DeviceLoop, loop),
        patience=0.5,
    )  # fmt: skip
    running = Running(claim)
    if leave is not None:
        running.stop(leave)
    progress = Repeat("progress", 0.1, lambda: report_progress(ledger, [running]))
    progress.start()
    runner.run(running)
    progress.stop()
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


def test_a_worker_loads_what_is_registered_and_nothing_else(
    ledger: Ledger, objects: Objects
) -> None:
    ledger.submit([parse_spec({"steps": [{**STEP, "model": "owner/repository"}]})])
    loop = FakeLoop()
    job = run(ledger, objects, loop, taken(ledger))
    assert (job.state, job.error_code, loop.requests) == (State.FAILED, "unknown_model", [])
    assert "'owner/repository' is not known" in str(job.error)


def test_a_picture_that_a_url_names_is_kept_and_stands_for_it(
    ledger: Ledger, objects: Objects, s3: dict[str, str]
) -> None:
    data = png(Image.new("RGB", (16, 8), "red"))
    objects.put("batches/b/cat.png", data, "image/png")
    url = f"s3://{s3['s3_bucket']}/batches/b/cat.png"
    ledger.submit([parse_spec({"steps": [{**NEXT, "image": url}]})])
    loop = FakeLoop()
    job = run(ledger, objects, loop, taken(ledger), settings=Settings(**s3))
    assert job.state is State.SUCCEEDED
    (request,) = loop.requests
    assert isinstance(request.source, Image.Image)
    assert request.source.size == (16, 8)
    key = job.steps[0].details["input"]
    assert objects.get(key) == data
    made = Image.open(io.BytesIO(objects.get(str(job.artifact))))
    said = json.loads(made.info["latentmill"])
    assert said["inputs"] == [said["spec"]["steps"][0]["image"]] == [key]
    assert said["options"]["num_inference_steps"] == 50
    assert "Steps: 50" in made.info["parameters"]


def test_an_input_that_must_not_be_read_fails_for_good(ledger: Ledger, objects: Objects) -> None:
    ledger.submit([parse_spec({"steps": [{**NEXT, "image": "https://127.0.0.1/cat.png"}]})])
    job = run(ledger, objects, FakeLoop(), taken(ledger))
    assert (job.state, job.error_code) == (State.FAILED, "invalid_image")
    assert "not on the public internet" in str(job.error)


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


def test_a_job_whose_carry_is_gone_begins_anew(
    ledger: Ledger, objects: Objects, claim: Claim
) -> None:
    job = run(ledger, objects, FakeLoop(None, Stopping("stop")), claim)
    carry = job.steps[0].carry
    assert carry is not None
    objects.delete(carry)
    loop = FakeLoop()
    job = run(ledger, objects, loop, taken(ledger))
    assert job.state is State.SUCCEEDED
    assert [request.step.prompt for request in loop.requests] == ["a cat", "a dog"]


def test_a_canceled_job_leaves_after_its_step_and_takes_its_carries_along(
    ledger: Ledger, objects: Objects, claim: Claim
) -> None:
    ledger.cancel(Selection(ids=(claim.job_id,)))
    loop = FakeLoop()
    job = run(ledger, objects, loop, claim)
    assert (job.state, len(loop.requests), len(job.steps)) == (State.CANCELED, 1, 1)
    carry = job.steps[0].carry
    assert carry is not None
    assert not objects.exists(carry)
    assert ledger.littered() == []


class SlowLoop(FakeLoop):
    """Takes a step each time that its watch is looked at, until it is told to let the row go."""

    def submit(self, request: Request) -> "Future[Rendered]":
        future: Future[Rendered] = Future()

        def step() -> None:
            done = 0
            while request.watch.leave is None:
                done += 1
                request.watch.report(done, 10**6)
                time.sleep(0.01)
            future.set_exception(request.watch.leave)

        threading.Thread(target=step).start()
        return future


@pytest.mark.parametrize(
    ("late", "state", "code"),
    [
        (False, State.CANCELED, "canceled"),
        (True, State.FAILED, "deadline_exceeded"),
    ],
)
def test_a_running_job_leaves_soon_when_it_is_canceled_or_late(
    ledger: Ledger, objects: Objects, late: bool, state: State, code: str
) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=1) if late else None
    ledger.submit([parse_spec({"steps": [STEP], "deadline": deadline})])
    claim = taken(ledger)
    if not late:
        threading.Timer(0.5, ledger.cancel, [Selection(ids=(claim.job_id,))]).start()
    begun = time.monotonic()
    job = run(ledger, objects, SlowLoop(), claim)
    assert (job.state, job.error_code) == (state, code)
    assert time.monotonic() - begun < 4, "the lease's renewal is not waited for"
