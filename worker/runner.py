"""The life of one claimed job: fetch, run its steps in order, store and record each, finish."""

import logging
import random
from concurrent.futures import wait
from dataclasses import dataclass, field

from PIL import Image

from storage.errors import ClaimLost, InvalidImage, LatentmillError, NotFound, Unavailable
from storage.jobs import CarryKind, Claim, State, StepRecord
from storage.ledger import Ledger
from storage.models import Model, find_model
from storage.objects import Objects, result_key
from storage.picture import load_picture
from storage.settings import Settings
from storage.spec import Img2Img, Spec, Step
from worker import carry
from worker.delivery import describe, png
from worker.device_loop import DeviceLoop, Latent, Rendered, Request, Watch

logger = logging.getLogger(__name__)

#: Seconds between writes of a running job's progress.
PROGRESS_EVERY = 0.3
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

    def stop(self, reason: LatentmillError) -> None:
        """Ask the job to leave at its next step boundary."""
        self.leave = self.leave or reason
        self.watch.leave = self.leave

    def next_step(self) -> Watch:
        self.watch = Watch()
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
            records = self._steps(running)
            self.ledger.succeed(claim)
            logger.info("job %s succeeded", claim.job_id)
        except ClaimLost:
            raise
        except Stopping:
            self.ledger.give_back(claim)
            logger.info("job %s given back", claim.job_id)
            return
        except LatentmillError as error:
            self._fail(claim, error.code, str(error), error.retryable)
            return
        except Exception as error:
            logger.exception("job %s: unexpected error", claim.job_id)
            self._fail(claim, "internal_error", f"{type(error).__name__}: {error}", True)
            return
        self._drop_carries(claim, records)

    def _fail(self, claim: Claim, code: str, message: str, retryable: bool) -> None:
        pause = random.uniform(0, min(RETRY_CAP, RETRY_BASE * 2**claim.attempt))
        state = self.ledger.fail(
            claim, code=code, message=message, retry_in=pause if retryable else None
        )
        logger.warning("job %s %s (%s): %s", claim.job_id, state, code, message)
        if state is State.FAILED:
            self._drop_carries(claim, self.ledger.job(claim.job_id).steps)

    def _drop_carries(self, claim: Claim, records: tuple[StepRecord, ...]) -> None:
        try:
            carry.drop(self.objects, records)
        except Unavailable as error:
            logger.warning("job %s: its carries stay in the bucket: %s", claim.job_id, error)

    def _steps(self, running: Running) -> tuple[StepRecord, ...]:
        claim, records = running.claim, list(running.claim.steps)
        handed_over: Image.Image | Latent | None = None
        for index in range(len(records), len(claim.spec.steps)):
            source = handed_over
            if source is None:
                source = self._source(claim.spec, index, records)
            rendered = self._render(running, index, source)
            record = self._deliver(claim, index, rendered, source)
            self.ledger.finish_step(claim, record)
            records.append(record)
            handed_over = rendered.latent or rendered.picture
        return tuple(records)

    def _source(
        self, spec: Spec, index: int, records: list[StepRecord]
    ) -> Image.Image | Latent | None:
        """What step `index` begins from, fetched from the bucket."""
        limit = self.settings.max_image_pixels
        if index > 0:
            return carry.fetch(self.objects, records[-1], limit)
        step = spec.steps[0]
        if not isinstance(step, Img2Img) or step.image is None:
            return None
        try:
            return load_picture(self.objects.get(step.image), limit)
        except NotFound:
            raise InvalidImage(f"image: {step.image!r} is not in the bucket") from None

    def _render(
        self, running: Running, index: int, source: Image.Image | Latent | None
    ) -> Rendered:
        """Run one step on the device, reporting its progress meanwhile."""
        claim, steps = running.claim, running.claim.spec.steps
        last = index == len(steps) - 1
        watch = running.next_step()
        rendering = self.loop.submit(
            Request(
                step=steps[index],
                model=find_model(self.models, steps[index].model, self.settings),
                source=source,
                following=None if last else self._with_model(steps[index + 1]),
                picture=last or claim.spec.keep_steps,
                watch=watch,
            )
        )
        reported = None
        while True:
            if wait([rendering], timeout=PROGRESS_EVERY).done:
                return rendering.result()
            if (watch.done, watch.total) != reported and watch.total:
                reported = (watch.done, watch.total)
                self._report(running, index, *reported)

    def _report(self, running: Running, index: int, done: int, total: int) -> None:
        try:
            self.ledger.progress(running.claim, step=index, done=done, total=total)
        except ClaimLost as error:
            running.stop(error)
        except Unavailable as error:
            # Progress is a courtesy; the lease has a keeper of its own.
            logger.warning("job %s: progress not recorded: %s", running.claim.job_id, error)

    def _deliver(
        self, claim: Claim, index: int, rendered: Rendered, source: Image.Image | Latent | None
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
            text = describe(spec, index, model, rendered, runtime)
            assert rendered.picture is not None, "a stored step has a picture"
            self.objects.put(artifact, png(rendered.picture, text), "image/png")
        if index < steps - 1:
            carry_key, carry_kind = carry.keep(self.objects, claim.job_id, index, rendered)
        return StepRecord(
            index=index,
            artifact=artifact,
            carry=carry_key,
            carry_kind=carry_kind,
            details={
                "from": _kind(source),
                "width": rendered.width,
                "height": rendered.height,
                "seconds": round(rendered.seconds, 3),
                "scheduler": rendered.scheduler,
                "vae_fingerprint": rendered.vae_fingerprint,
                "model_revision": rendered.model_revision,
                "device": str(self.loop.device),
                "warnings": list(rendered.warnings),
            },
        )

    def _with_model(self, step: Step) -> tuple[Step, Model]:
        return step, find_model(self.models, step.model, self.settings)


def _kind(source: Image.Image | Latent | None) -> str:
    if source is None:
        return "prompt"
    return "latent" if isinstance(source, Latent) else "image"
