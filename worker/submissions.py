"""Entering what came by Redis alone: every message becomes a job, or a failed one that says why."""

import base64
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery

from storage import inbox
from storage.broker import client, count_refused, invite
from storage.errors import (
    InvalidImage,
    InvalidSpec,
    KeyConflict,
    LatentmillError,
    Unavailable,
)
from storage.inputs import check_input
from storage.ledger import Ledger
from storage.models import Model, check_chain, find_model
from storage.objects import Objects
from storage.settings import Settings
from storage.spec import Spec, Text2Img, parse_spec

logger = logging.getLogger(__name__)

#: Seconds that a worker is the one reader, unless it goes on.
TURN = 10.0
#: Of a spec that cannot be read, what the ledger keeps.
KEPT = 20_000


@dataclass(frozen=True, kw_only=True)
class Clerk:
    """Takes submissions from Redis into the ledger. One worker at a time does so."""

    settings: Settings
    ledger: Ledger
    objects: Objects
    models: dict[str, Model]
    app: Celery
    name: str
    #: Seconds to wait for a message, or for a turn.
    wait: float = 1.0

    def work(self) -> None:
        """Enter all that is there, and what comes for a moment; raises Unavailable."""
        with client(self.app) as redis:
            if not inbox.my_turn(redis, self.name, TURN):
                time.sleep(self.wait)
                return
            while letters := inbox.look(redis, self.wait):
                pools = self.enter([letter.raw for letter in letters])
                inbox.remove(redis, letters)
                for pool in pools:
                    invite(self.app, pool)
                if not inbox.my_turn(redis, self.name, TURN):
                    return

    def enter(self, messages: Sequence[bytes]) -> set[str]:
        """Bring messages into the ledger, each once; returns the pools that have new work."""
        wanted: dict[str, list[tuple[inbox.Submission, Spec]]] = {}
        for raw in messages:
            try:
                submission = inbox.read(raw)
            except inbox.NotASubmission as error:
                logger.error("message refused: %s", error)
                count_refused(self.app, error.code)
                continue
            try:
                spec = self._spec(submission)
            except Unavailable:
                raise  # the message stays where it is
            except Exception as error:
                self._refuse(submission, error)
            else:
                pool = find_model(self.models, spec.steps[0].model, self.settings).pool
                wanted.setdefault(pool, []).append((submission, spec))
        return {pool for pool, asked in wanted.items() if self._submit(asked, pool)}

    def _spec(self, submission: inbox.Submission) -> Spec:
        """The checked spec, its picture uploaded; the message's id is its key if it has none."""
        if submission.error is not None:
            raise submission.error
        values, picture = _without_picture(submission.spec)
        found = None
        if picture is not None:
            found = check_input(picture, self.settings.max_image_pixels)
            values["steps"][0]["image"] = found.key
        spec = parse_spec(values)
        size = (found.width, found.height) if found else None
        check_chain(spec.steps, self.models, self.settings, size)
        if found is not None:
            found.store(self.objects)
        return spec if spec.key else spec.model_copy(update={"key": submission.id})

    def _submit(self, asked: Sequence[tuple[inbox.Submission, Spec]], pool: str) -> bool:
        """Enter specs; whether one of them is new."""
        try:
            return any(s.created for s in self.ledger.submit([spec for _, spec in asked], pool))
        except Unavailable:
            raise
        except Exception as error:
            if len(asked) == 1:
                self._refuse(asked[0][0], error)
                return False
        # One of them has a key that stands for another spec: then none has entered.
        return sum(self._submit([one], pool) for one in asked) > 0

    def _refuse(self, submission: inbox.Submission, error: Exception) -> None:
        """Enter a failed job instead, so that whoever sent it finds out."""
        if not isinstance(error, LatentmillError):
            logger.error("submission %s: unexpected error", submission.id, exc_info=error)
        code = error.code if isinstance(error, LatentmillError) else "internal_error"
        said = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(error))
        logger.warning("submission %s refused (%s): %s", submission.id, code, said)
        try:
            self.ledger.refuse(_legible(submission), code=code, message=said[:4000])
        except KeyConflict as conflict:
            logger.error("submission %s: %s", submission.id, conflict)
            count_refused(self.app, conflict.code)


def _without_picture(values: Any) -> tuple[Any, bytes | None]:
    """A spec's values, and the picture that its first step brings along as a data: URL."""
    try:
        step = values["steps"][0]
        image = step["image"]
    except (TypeError, KeyError, IndexError):
        return values, None
    if not isinstance(image, str) or not image.startswith("data:"):
        return values, None
    head, _, text = image.partition(",")
    if not head.endswith(";base64"):
        raise InvalidImage("image: a data: URL must be of the form data:image/png;base64,…")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise InvalidImage("image: its base64 is broken") from None
    # The picture itself may be large, so it is not kept twice.
    steps = [{**step, "image": f"{head[:40]},…"}, *values["steps"][1:]]
    return {**values, "steps": steps}, data


def _legible(submission: inbox.Submission) -> Spec:
    """The spec as far as it can be read; else its text stands where a prompt would."""
    values = submission.spec
    try:
        values, _ = _without_picture(values)
    except InvalidImage:
        values = {**values, "steps": [{**values["steps"][0], "image": "data:…"}]}
    try:
        spec = parse_spec(values)
    except InvalidSpec:
        text = "" if values is None else json.dumps(values)[:KEPT]
        spec = Spec(steps=(Text2Img(model="unknown", prompt=text),))
    return spec.model_copy(update={"key": submission.id})
