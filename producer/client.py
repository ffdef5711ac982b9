"""The client: from requests to jobs in the ledger."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, TypedDict, Unpack

from celery import Celery

from producer.job import Job
from producer.request import Request, read_picture
from storage.broker import celery_app, invite
from storage.errors import BrokerUnavailable, InvalidSpec
from storage.jobs import State
from storage.ledger import Ledger
from storage.models import Model, find_model, load_models
from storage.objects import Objects
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
    max_attempts: int
    labels: Mapping[str, str]
    keep_steps: bool


class Client:
    """Submits jobs and finds them again; one client may be shared by threads."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Without settings: those of the environment, or of the stack that runs in its home."""
        self.settings = settings or load_settings()

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger.open(require(self.settings, "database_url"))

    @cached_property
    def objects(self) -> Objects:
        return Objects.open(self.settings)

    @cached_property
    def broker(self) -> Celery:
        return celery_app(require(self.settings, "redis_url"))

    @cached_property
    def models(self) -> dict[str, Model]:
        return load_models(self.settings)

    def submit(self, what: Request | Sequence[Request], **around: Unpack[Around]) -> Job:
        """Enter one job: a request, or a chain of them.

        Everything is checked before anything is stored. Raises InvalidSpec, InvalidImage,
        UnknownModel, KeyConflict, NotConfigured or Unavailable; then no job was made. A broker
        that is away is only a warning: workers look for work by themselves.
        """
        (job,) = self._enter([_chain(what)], around)
        return job

    def submit_many(
        self, many: Iterable[Request | Sequence[Request]], **around: Unpack[Around]
    ) -> Iterator[Job]:
        """Enter jobs as they come from an iterable, a few dozen at a time."""
        rest = iter(many)
        while chunk := [_chain(what) for what in islice(rest, CHUNK)]:
            yield from self._enter(chunk, around)

    def job(self, job_id: str) -> Job:
        """A job by its id, or the beginning of it; raises NotFound."""
        return Job(self.ledger, self.objects, self.ledger.job(job_id))

    def jobs(
        self,
        *,
        state: State | None = None,
        label: tuple[str, str] | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[Job]:
        """Jobs, newest first; the last one's id as `before` gives the next page."""
        found = self.ledger.jobs(state=state, label=label, limit=limit, before=before)
        return [Job(self.ledger, self.objects, record) for record in found]

    def _enter(self, chains: Sequence[Sequence[Request]], around: Around) -> list[Job]:
        # What is not configured must come to light before anything is stored.
        _ = self.ledger, self.objects, self.broker
        uploads: dict[str, tuple[bytes, str]] = {}
        specs = [self._spec(chain, around, uploads) for chain in chains]
        for key, (data, kind) in uploads.items():
            self.objects.put_once(key, data, kind)
        ids = [submitted.id for submitted in self._submit(specs)]
        return [self.job(job_id) for job_id in ids]

    def _spec(
        self, chain: Sequence[Request], around: Around, uploads: dict[str, tuple[bytes, str]]
    ) -> Spec:
        """The checked spec of a chain; its pictures join `uploads`."""
        steps: list[dict[str, Any]] = []
        for index, request in enumerate(chain):
            values = request.step.model_dump()
            find_model(self.models, request.step.model, self.settings)
            if request.picture is not None:
                if index > 0:
                    raise InvalidSpec(
                        f"steps.{index}.image: a later step takes the picture of the step before"
                    )
                key, data, kind = read_picture(request.picture, self.settings.max_image_pixels)
                uploads[key] = data, kind
                values["image"] = key
            steps.append(values)
        return parse_spec({"steps": steps, **around})

    def _submit(self, specs: Sequence[Spec]) -> list[Any]:
        pools: dict[str, list[int]] = {}
        for index, spec in enumerate(specs):
            model = find_model(self.models, spec.steps[0].model, self.settings)
            pools.setdefault(model.pool, []).append(index)
        found: dict[int, Any] = {}
        for pool, indices in pools.items():
            entered = self.ledger.submit((specs[i] for i in indices), pool)
            found |= dict(zip(indices, entered, strict=True))
            new = sum(submitted.created for submitted in entered)
            self._invite(pool, min(new, INVITATIONS))
        return [found[index] for index in range(len(specs))]

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
