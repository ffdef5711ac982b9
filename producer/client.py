"""The client: from requests to jobs in the ledger."""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from itertools import islice
from typing import Any, TypedDict, Unpack

from celery import Celery
from ulid import ULID

from producer.job import Job
from producer.request import Request, read_picture
from storage.batches import Batches
from storage.broker import celery_app, invite
from storage.errors import BrokerUnavailable, InvalidImage, InvalidSpec
from storage.fetch import shown
from storage.inputs import Input, check_input, is_url, read_input
from storage.jobs import Cancellation, Selection, State, Submitted
from storage.ledger import Ledger
from storage.models import Model, check_chain, find_model, load_models
from storage.objects import Objects
from storage.schedules import Schedules
from storage.settings import Settings, load_settings, require
from storage.spec import Spec, parse_spec

#: Jobs that `submit_many` enters together. Their pictures are in memory at the same time.
CHUNK = 32
#: More invitations than this are of no use: workers pass the word on.
INVITATIONS = 8


class Around(TypedDict, total=False):
    """What holds for a job's steps together."""

    key: str | None
    priority: int
    #: An aware datetime, or ISO 8601 with an offset.
    run_at: datetime | str | None
    deadline: datetime | str | None
    max_attempts: int
    labels: Mapping[str, str]
    keep_steps: bool
    #: Called with POST when the job has ended, signed with LATENTMILL_WEBHOOK_SECRET.
    webhook_url: str | None
    check_output: bool


class Client:
    """Submits jobs and finds them again; one client may be shared by threads."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Without settings: those of the environment, or of the stack that runs in its home."""
        self.settings = settings or load_settings()

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger.open(require(self.settings, "database_url"))

    @cached_property
    def batches(self) -> Batches:
        return Batches.open(require(self.settings, "database_url"))

    @cached_property
    def schedules(self) -> Schedules:
        return Schedules.open(require(self.settings, "database_url"))

    @cached_property
    def objects(self) -> Objects:
        return Objects.open(self.settings)

    @cached_property
    def broker(self) -> Celery:
        return celery_app(require(self.settings, "redis_url"))

    @cached_property
    def models(self) -> dict[str, Model]:
        return load_models(self.settings)

    def submit(
        self,
        what: Request | Sequence[Request],
        *,
        batch: str | None = None,
        **around: Unpack[Around],
    ) -> Job:
        """Enter one job: a request, or a chain of them.

        Everything is checked before anything is stored. Raises InvalidSpec, InvalidImage,
        UnknownModel, KeyConflict, NotConfigured or Unavailable; then no job was made. A broker
        that is away is only a warning: workers look for work by themselves.
        """
        (job,) = self._enter([_chain(what)], batch, around)
        return job

    def submit_many(
        self,
        many: Iterable[Request | Sequence[Request]],
        *,
        batch: str | None = None,
        **around: Unpack[Around],
    ) -> Iterator[Job]:
        """Enter jobs as they come from an iterable, a few dozen at a time.

        They are one batch, of a new name if none is given: workers divide their time by batches.
        """
        batch = batch or str(ULID()).lower()
        rest = iter(many)
        while chunk := [_chain(what) for what in islice(rest, CHUNK)]:
            yield from self._enter(chunk, batch, around)

    def job(self, job_id: str) -> Job:
        """A job by its id, or the beginning of it; raises NotFound."""
        return Job(self.ledger, self.objects, self.ledger.job(job_id))

    def jobs(
        self,
        *,
        state: State | None = None,
        label: tuple[str, str] | None = None,
        batch: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[Job]:
        """Jobs, newest first; the last one's id as `before` gives the next page."""
        found = self.ledger.jobs(state=state, label=label, batch=batch, limit=limit, before=before)
        return [Job(self.ledger, self.objects, record) for record in found]

    def cancel(
        self, *ids: str, label: tuple[str, str] | None = None, batch: str | None = None
    ) -> list[Cancellation]:
        """End jobs: at once while they wait, at their next step boundary while they run.

        Says what came of each id, or of each job of a label or a batch that had not ended. Raises
        NotFound, and then ends none.
        """
        return self.ledger.cancel(Selection(ids=ids, label=label, batch=batch))

    def retry(
        self,
        *ids: str,
        label: tuple[str, str] | None = None,
        batch: str | None = None,
        error_code: str | None = None,
    ) -> list[str]:
        """Queue failed and canceled jobs again; returns their ids. Raises NotFound."""
        chosen = Selection(ids=ids, label=label, batch=batch, error_code=error_code)
        return self.ledger.retry(chosen)

    def _enter(
        self, chains: Sequence[Sequence[Request]], batch: str | None, around: Around
    ) -> list[Job]:
        # What is not configured must come to light before anything is stored.
        _ = self.ledger, self.objects, self.broker
        uploads: dict[str, Input] = {}
        specs = [self._spec(chain, around, uploads) for chain in chains]
        for upload in uploads.values():
            upload.store(self.objects)
        ids = [submitted.id for submitted in self._submit(specs, batch)]
        return [self.job(job_id) for job_id in ids]

    def _spec(self, chain: Sequence[Request], around: Around, uploads: dict[str, Input]) -> Spec:
        """The checked spec of a chain; its pictures join `uploads`."""
        steps: list[dict[str, Any]] = [request.step.model_dump() for request in chain]
        for index, request in enumerate(chain):
            if index > 0 and request.picture is not None:
                raise InvalidSpec(
                    f"steps.{index}.image: a later step takes the picture of the step before"
                )
        check_chain([request.step for request in chain], self.models, self.settings)
        if chain and (found := self._input(chain[0])) is not None:
            uploads[found.key] = found
            steps[0]["image"] = found.key
            size = found.width, found.height
            check_chain([request.step for request in chain], self.models, self.settings, size)
        return parse_spec({"steps": steps, **around})

    def _input(self, request: Request) -> Input | None:
        """The picture that a job brings along, or names by a URL."""
        most = self.settings.max_image_pixels
        if request.picture is not None:
            return read_picture(request.picture, most)
        url = getattr(request.step, "image", None)
        if url is None or not is_url(url):
            return None
        data = read_input(url, self.objects, self.settings)
        try:
            return check_input(data, most)
        except InvalidImage as error:
            raise InvalidImage(f"{shown(url)}: {error}") from None

    def _submit(self, specs: Sequence[Spec], batch: str | None) -> list[Submitted]:
        found = self.ledger.submit(specs, self._pool, batch)
        new = Counter(
            self._pool(spec)
            for spec, submitted in zip(specs, found, strict=True)
            if submitted.created
        )
        for pool, count in new.items():
            self._invite(pool, min(count, INVITATIONS))
        return found

    def _pool(self, spec: Spec) -> str:
        return find_model(self.models, spec.steps[0].model, self.settings).pool

    def _invite(self, pool: str, count: int) -> None:
        try:
            invite(self.broker, pool, count)
        except BrokerUnavailable as error:
            warnings.warn(
                f"{error}; the job is in the ledger, and a worker will find it there",
                stacklevel=4,
            )


def _chain(what: Request | Sequence[Request]) -> Sequence[Request]:
    chain = [what] if isinstance(what, Request) else list(what)
    for index, request in enumerate(chain):
        if not isinstance(request, Request):
            raise InvalidSpec(
                f"steps.{index}: a Text2Img or an Img2Img, not {type(request).__name__}"
            )
    return chain
