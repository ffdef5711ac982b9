"""Specs that applications with nothing but Redis send: the task `latentmill.submit`.

Any Celery application sends one so, and needs no code of ours:

    app.send_task("latentmill.submit", args=[spec], queue="latentmill-submit")

A message stays in its list until its job is in the ledger: it is read in place and removed
afterwards. So a reader may die at any moment and nothing is lost; and since the message's id is the
job's key, nothing is entered twice either.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage.broker import SUBMISSIONS, SUBMIT
from storage.errors import InvalidSpec, LatentmillError

#: A message with more bytes is refused. Pictures in it are a third larger than their files.
MAX_MESSAGE = 64 * 2**20
#: Messages that are read together.
BATCH = 16
#: Kombu keeps messages with priorities in lists of their own; 0 is the highest.
_LISTS = (SUBMISSIONS, *(f"{SUBMISSIONS}\x06\x16{priority}" for priority in (3, 6, 9)))
_TURN = f"{SUBMISSIONS}-turn"


class NotASubmission(LatentmillError):
    """The message is not of the task `latentmill.submit`, or has no id: nobody can be told."""

    code = "not_a_submission"


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A message in its list."""

    list: str
    raw: bytes


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What a message asks for, not checked yet: whatever JSON it holds, or why it cannot be had."""

    id: str
    spec: Any = None
    error: InvalidSpec | None = None


def look(redis: Any, seconds: float) -> list[Letter]:
    """The oldest messages, left where they are; waits a while for one to come."""
    while True:
        for name in _LISTS:
            if found := redis.lrange(name, -BATCH, -1):
                return [Letter(list=name, raw=raw) for raw in reversed(found)]
        # Takes the oldest and puts it back where it was, at once: looking without taking.
        if redis.blmove(SUBMISSIONS, SUBMISSIONS, seconds, "RIGHT", "RIGHT") is None:
            return []


def remove(redis: Any, letters: Sequence[Letter]) -> None:
    """Take messages out of their lists; harmless when they have gone already."""
    with redis.pipeline(transaction=False) as pipeline:
        for letter in letters:
            pipeline.lrem(letter.list, -1, letter.raw)
        pipeline.execute()


def my_turn(redis: Any, name: str, seconds: float) -> bool:
    """Whether `name` is the one reader for the next seconds. Two would do no harm but work."""
    if redis.set(_TURN, name, nx=True, px=int(seconds * 1000)):
        return True
    if redis.get(_TURN) != name.encode():
        return False
    redis.pexpire(_TURN, int(seconds * 1000))
    return True


def read(raw: bytes) -> Submission:
    """What a message says; raises NotASubmission."""
    try:
        envelope = json.loads(raw)
        headers, properties = envelope["headers"], envelope["properties"]
        task, task_id, kind = headers["task"], headers["id"], envelope["content-type"]
        encoding = properties.get("body_encoding")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise NotASubmission("no message of Celery's protocol 2") from None
    if task != SUBMIT or kind != "application/json":
        raise NotASubmission(f"task {str(task)[:100]!r} as {str(kind)[:100]}")
    if not isinstance(task_id, str) or not 1 <= len(task_id) <= 200 or not task_id.isprintable():
        raise NotASubmission("its id is no text of 1 to 200 characters")
    try:
        if len(raw) > MAX_MESSAGE:
            raise InvalidSpec(f"message: {len(raw)} bytes, at most {MAX_MESSAGE} are allowed")
        if headers.get("eta") or headers.get("expires"):
            raise InvalidSpec("message: eta, countdown and expires are not known here")
        return Submission(id=task_id, spec=_spec(envelope["body"], encoding))
    except InvalidSpec as error:
        return Submission(id=task_id, error=error)


def _spec(body: Any, encoding: Any) -> Any:
    """The one argument."""
    try:
        text = base64.b64decode(body, validate=True) if encoding == "base64" else body
        args, kwargs, _ = json.loads(text)
        (spec,) = args
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error):
        raise InvalidSpec("message: it must have one argument, a spec") from None
    if kwargs:
        raise InvalidSpec(f"message: no argument but the spec (got {', '.join(map(str, kwargs))})")
    if isinstance(spec, str):
        try:
            return json.loads(spec)
        except (ValueError, RecursionError) as error:
            raise InvalidSpec(f"spec: not JSON: {error}") from None
    return spec
