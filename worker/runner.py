"""The life of one claimed job: fetch, run its steps in order, store and record each, finish."""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from storage.errors import Canceled, ClaimLost, LatentmillError, NotFound, Unavailable
from storage.inputs import check_input, is_url, read_input
from storage.jobs import CarryKind, Claim, State, StepRecord
from storage.ledger import Ledger
from storage.models import Model, find_model
from storage.objects import Objects, result_key
from storage.picture import load_picture
from storage.settings import Settings
from storage.spec import Img2Img, Spec, Step
from worker import carry
from worker.checkpoint_source import locate_lora
from worker.delivery import describe, png
from worker.device_loop import DeviceLoop
from worker.output_gate import check_output
from worker.patience import PATIENCE, Value, patiently
from worker.rendering import Latent, Rendered, Request, Watch

logger = logging.getLogger(__name__)

#: Retries wait a random time up to base * 2**attempt, at most the cap (full jitter), in seconds.
RETRY_BASE, RETRY_CAP = 2.0, 300.0


class Stopping(LatentmillError):
    """The worker stops in order: the job goes back, uncharged."""

    code = "stopping"


@dataclass
class Running:
    """A claimed job in flight, as the threads around it see it."""

    claim: Claim
    watch: Watch = field(default_factory=Watch)
    leave: LatentmillError | None = None
    #: The progress that the ledger knows: step, done, total.
    told: tuple[int, int, int] = (0, 0, 0)

    @property
    def index(self) -> int:
        """The step that runs."""
        return self.watch.step

    def stop(self, reason: LatentmillError) -> None:
        """Ask the job to leave at its next step boundary."""
        self.leave = self.leave or reason
        self.watch.leave = self.leave

    def begin_step(self, index: int) -> Watch:
        self.watch = Watch(step=index)
        # Read after the new watch can be seen: a stop in between reaches one or the other.
        self.watch.leave = self.leave
        return self.watch


@dataclass(frozen=True)
class Runner:
    """Runs claimed jobs; safe to use from every slot at once."""

    settings: Settings
    ledger: Ledger
    objects: Objects
    models: dict[str, Model]
    loop: DeviceLoop
    #: Seconds that a finished step waits for a server that is away.
    patience: float = PATIENCE

    def run(self, running: Running) -> None:
        """Bring a claimed job to an end, back to the queue, or to a retry. Raises nothing."""
        claim = running.claim
        try:
            self._end(running)
        except ClaimLost:
            logger.warning("job %s: another worker owns it now", claim.job_id)
        except Unavailable as error:
            # The ledger itself is away: the lease runs out, and the job is taken up again.
            logger.error("job %s: its end could not be recorded: %s", claim.job_id, error)

    def _end(self, running: Running) -> None:
        claim = running.claim
        try:
            self._steps(running)
            self._patiently(running, self.ledger.succeed, claim)
            logger.info("job %s succeeded", claim.job_id)
        except ClaimLost:
            raise
        except Stopping:
            self._keep_row(running)
            self.ledger.give_back(claim)
            logger.info("job %s given back", claim.job_id)
            return
        except Canceled:
            self.ledger.end_canceled(claim)
            logger.info("job %s canceled", claim.job_id)
        except LatentmillError as error:
            if self._fail(claim, error.code, str(error), error.retryable) is State.QUEUED:
                return
        except Exception as error:
            logger.exception("job %s: unexpected error", claim.job_id)
            message = f"{type(error).__name__}: {error}"
            if self._fail(claim, "internal_error", message, True) is State.QUEUED:
                return
        self._drop_carries(claim)

    def _keep_row(self, running: Running) -> None:
        """Save where the step is, so that the next attempt goes on from there."""
        if running.watch.left is None:
            return
        job_id, spec = running.claim.job_id, running.claim.spec
        model = find_model(self.models, spec.steps[running.index].model, self.settings)
        try:
            carry.keep_row(self.objects, job_id, running.index, running.watch.left, model)
        except Unavailable as error:
            logger.warning("job %s: its step will begin anew: %s", job_id, error)

    def _fail(self, claim: Claim, code: str, message: str, retryable: bool) -> State:
        pause = random.uniform(0, min(RETRY_CAP, RETRY_BASE * 2**claim.attempt))
        state = self.ledger.fail(
            claim, code=code, message=message, retry_in=pause if retryable else None
        )
        logger.warning("job %s %s (%s): %s", claim.job_id, state, code, message)
        return state

    def _drop_carries(self, claim: Claim) -> None:
        """Remove what the ended job handed from step to step; housekeeping does if this fails."""
        if len(claim.spec.steps) == 1 and claim.attempt == 1:
            return
        try:
            carry.drop(self.objects, claim.job_id)
            self.ledger.tidied([claim.job_id])
        except Unavailable as error:
            logger.warning("job %s: its carries stay for now: %s", claim.job_id, error)

    def _steps(self, running: Running) -> None:
        claim = running.claim
        begun, source, key = self._patiently(running, self._begin, claim)
        for index in range(begun, len(claim.spec.steps)):
            rendered = self._render(running, index, source)
            # What the device has made is not given up because a server is away for a while.
            record = self._patiently(running, self._deliver, claim, index, rendered, source, key)
            reason = self._patiently(running, self.ledger.finish_step, claim, record)
            if reason is not None and index < len(claim.spec.steps) - 1:
                raise reason
            source = rendered.latent or rendered.picture

    def _patiently(self, running: Running, call: Callable[..., Value], *arguments: Any) -> Value:
        return patiently(lambda: call(*arguments), lambda: running.leave, self.patience)

    def _begin(self, claim: Claim) -> tuple[int, Image.Image | Latent | None, str | None]:
        """The step to begin with, what it begins from, and where the job's input is kept."""
        finished = len(claim.steps)
        if finished == len(claim.spec.steps):
            return finished, None, None
        if finished:
            try:
                limit = self.settings.max_image_pixels
                source = carry.fetch(self.objects, claim.steps[-1], limit)
                return finished, source, claim.steps[0].details.get("input")
            except NotFound:
                logger.warning("job %s: a carry is gone; it begins anew", claim.job_id)
                self.ledger.forget_steps(claim)
        return 0, *self._input(claim.spec)

    def _input(self, spec: Spec) -> tuple[Image.Image | None, str | None]:
        """The picture that a job begins from, and its key in the bucket."""
        step = spec.steps[0]
        if not isinstance(step, Img2Img) or step.image is None:
            return None, None
        limit, key = self.settings.max_image_pixels, step.image
        data = read_input(key, self.objects, self.settings)
        if is_url(key):
            # Kept, since what a URL names may be another picture tomorrow.
            found = check_input(data, limit)
            found.store(self.objects)
            key = found.key
        return load_picture(data, limit), key

    def _render(
        self, running: Running, index: int, source: Image.Image | Latent | None
    ) -> Rendered:
        """Run one step on the device."""
        claim, steps = running.claim, running.claim.spec.steps
        last = index == len(steps) - 1
        watch = running.begin_step(index)
        model = find_model(self.models, steps[index].model, self.settings)
        # What an earlier attempt may have left is of the step at which this one begins.
        again = claim.attempt > 1 and index == len(claim.steps)
        resume = carry.fetch_row(self.objects, claim.job_id, index, model) if again else None
        rendering = self.loop.submit(
            Request(
                step=model.fill(steps[index]),
                model=model,
                source=source,
                loras=tuple(
                    (locate_lora(each, self.settings), each.weight) for each in steps[index].loras
                ),
                following=None if last else self._with_model(steps[index + 1]),
                picture=last or claim.spec.keep_steps,
                priority=claim.spec.priority,
                resume=resume,
                watch=watch,
            )
        )
        rendered = rendering.result()
        if rendered.picture is not None and claim.spec.check_output:
            check_output(rendered.picture, source, rendered.options.get("strength"))
        return rendered

    def _deliver(
        self,
        claim: Claim,
        index: int,
        rendered: Rendered,
        source: Image.Image | Latent | None,
        key: str | None,
    ) -> StepRecord:
        """Store a step's results in the bucket; returns the record to write."""
        spec, steps = claim.spec, len(claim.spec.steps)
        artifact: str | None = None
        carry_key: str | None = None
        carry_kind: CarryKind | None = None
        if index == steps - 1 or spec.keep_steps:
            model = find_model(self.models, spec.steps[index].model, self.settings)
            runtime = {"mindspore": self.loop.version, "device": str(self.loop.device)}
            artifact = result_key(claim.job_id, index, steps)
            text = describe(spec, index, model, rendered, key, runtime)
            assert rendered.picture is not None, "a stored step has a picture"
            data = png(rendered.picture, text)
            with self.loop.meter.timing("upload"):
                self.objects.put(artifact, data, "image/png")
        if index < steps - 1:
            carry_key, carry_kind = carry.keep(self.objects, claim.job_id, index, rendered)
        return StepRecord(
            index=index,
            artifact=artifact,
            carry=carry_key,
            carry_kind=carry_kind,
            details={
                "from": _kind(source),
                "input": key,
                "width": rendered.width,
                "height": rendered.height,
                "seconds": round(rendered.seconds, 3),
                "scheduler": rendered.scheduler,
                "options": dict(rendered.options),
                "vae_fingerprint": rendered.vae_fingerprint,
                "model_revision": rendered.model_revision,
                "device": str(self.loop.device),
                "resumed_at": rendered.resumed_at,
                "warnings": list(rendered.warnings),
            },
        )

    def _with_model(self, step: Step) -> tuple[Step, Model]:
        return step, find_model(self.models, step.model, self.settings)


def _kind(source: Image.Image | Latent | None) -> str:
    if source is None:
        return "prompt"
    return "latent" if isinstance(source, Latent) else "image"
