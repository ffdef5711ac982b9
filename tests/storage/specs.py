"""Specs for tests, as short as they can be, and how their jobs end."""

from typing import Any

from storage.jobs import Claim, StepRecord
from storage.ledger import Ledger
from storage.spec import Img2Img, Spec, Text2Img


def a_spec(prompt: str = "a red square", **around: Any) -> Spec:
    return Spec(steps=(Text2Img(model="demo", prompt=prompt),), **around)


def a_chain(length: int = 3) -> Spec:
    first = Text2Img(model="demo", prompt="a red square")
    later = Img2Img(model="demo", prompt="then blue", strength=0.5)
    return Spec(steps=(first, *[later] * (length - 1)))


def finish(ledger: Ledger, claim: Claim) -> None:
    """Record every step that is not yet, and succeed."""
    for index in range(len(claim.steps), len(claim.spec.steps)):
        ledger.finish_step(claim, StepRecord(index=index))
    ledger.succeed(claim)
