"""What makes two jobs the same: the key of a job's content, and seeds that follow from it."""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache

from producer.datasets.recipe import Draft
from storage.models import Model
from storage.spec import Img2Img, Step

#: Seeds stay within what other tools accept.
SEEDS = 2**32
PREFIX = "content-"


def with_seeds(draft: Draft, identity: str | None) -> tuple[Step, ...]:
    """The draft's steps, each with a seed; the first with its picture, where that lies elsewhere.

    A seed that is left open follows from the picture and the copy (without a picture: from the
    first prompt), not from the recipe: so it stays the same from run to run, and the results of
    other strengths or prompts begin from the same noise and can be compared.
    """
    subject = identity or f"prompt:{draft.steps[0].prompt}"
    picture = draft.entry.picture
    made = []
    for index, step in enumerate(draft.steps):
        changes: dict[str, object] = {}
        if step.seed is None:
            changes["seed"] = _seed(subject, draft.copy, index)
        if index == 0 and isinstance(picture, str):
            changes["image"] = picture
        made.append(step.model_copy(update=changes) if changes else step)
    return tuple(made)


def content_key(
    steps: Sequence[Step], identity: str | None, models: Sequence[Model], keep_steps: bool
) -> str:
    """One text for all jobs that give the same pictures, whatever they are called.

    It depends on the input's bytes (or, where they are not read, on what stands for them), on
    every parameter of the steps, seeds included, on what the registry says of their models, and on
    whether the steps' pictures are kept; not on names, labels, priorities, or where the input lies.
    """
    parts = [identity or "", str(keep_steps)]
    for step, model in zip(steps, models, strict=True):
        # Only what is set: a field that a later version adds leaves the keys of old jobs alone.
        parts += [step.kind, step.model_dump_json(exclude={"image"}, exclude_defaults=True)]
        parts.append(fingerprint(model))
    return PREFIX + hashlib.sha256("\0".join(parts).encode()).hexdigest()


@lru_cache(1000)
def fingerprint(model: Model) -> str:
    """What the registry says of a model as far as its pictures depend on it."""
    of_no_matter = {"alias", "pool", "min_side", "max_side", "max_pixels"}
    values = model.model_dump(mode="json", exclude=of_no_matter, exclude_defaults=True)
    return json.dumps(values, sort_keys=True)


def with_image(steps: Sequence[Step], image: str) -> tuple[Step, ...]:
    """The steps, the first of them beginning from this picture."""
    first, *rest = steps
    if not isinstance(first, Img2Img) or first.image == image:
        return (*steps,)
    return (first.model_copy(update={"image": image}), *rest)


def _seed(subject: str, copy: int, index: int) -> int:
    text = f"{subject}\0{copy}\0{index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % SEEDS
