"""From drafts to rows that can enter a batch: checked, with their pictures in the bucket."""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any

from producer.datasets.content import content_key, with_image, with_seeds
from producer.datasets.entry import BadEntry, Entry
from producer.datasets.pictures import Brought, Pictures, is_here
from producer.datasets.recipe import Draft, Recipe
from storage.batch_entry import NewRow
from storage.errors import InvalidSpec, LatentmillError, UnknownModel
from storage.models import Model, check_chain, find_model
from storage.settings import Settings
from storage.spec import Spec, Step, explained, whole_size
from storage.submission import NewJob, new_job

#: A row's number, and what there is of it so far.
Numbered = tuple[int, Draft | BadEntry]
#: Says for which keys nothing has to be brought or run.
Settled = Callable[[Sequence[str]], Collection[str]]
#: What was found out about the pictures of entries, by the entries' identities in Python.
Found = dict[int, Any]
#: The key of a job's content, and its steps with their seeds.
Keyed = tuple[str, tuple[Step, ...]]


class Preparation:
    """Makes the rows of one recipe."""

    def __init__(
        self,
        recipe: Recipe,
        models: dict[str, Model],
        settings: Settings,
        pictures: Pictures,
        *,
        store: bool = True,
    ) -> None:
        """Without `store` every picture is looked at wherever it lies, and none is stored."""
        self._recipe, self._models, self._settings = recipe, models, settings
        self._pictures, self._store = pictures, store
        #: Width and height of results that have their picture's size, where that is known.
        self.sizes: set[tuple[int, int]] = set()
        #: The values of steps that their models allow, without texts, seeds and pictures.
        self._allowed = lru_cache(4096)(self._check)

    def rows(
        self, chunk: Sequence[Numbered], settled: Settled, held: Callable[[int], bool]
    ) -> list[NewRow]:
        """The rows of a chunk, in its order."""
        drafts = [(number, each) for number, each in chunk if isinstance(each, Draft)]
        identities = self._identities(draft.entry for _, draft in drafts)
        keyed: dict[int, Keyed | LatentmillError] = {
            number: self._keyed(draft, identities.get(id(draft.entry))) for number, draft in drafts
        }
        done = settled([each[0] for each in keyed.values() if isinstance(each, tuple)])
        brought = self._brought(
            draft.entry
            for number, draft in drafts
            if isinstance(it := keyed[number], tuple) and it[0] not in done
        )
        rows = []
        for number, each in chunk:
            if isinstance(each, BadEntry):
                rows.append(_bad_row(number, each))
                continue
            try:
                key, steps = _unless_error(keyed[number])
                job = None
                if key not in done:
                    picture = _unless_error(brought.get(id(each.entry)))
                    job = new_job(self._spec(each, key, steps, picture))
                pool = self._model(steps[0]).pool
                rows.append(_row(number, each, key, job, pool, held(number)))
            except LatentmillError as error:
                bad = BadEntry(
                    place=each.entry.place, reason=str(error), code=error.code,
                    entry=each.entry, variant=each.variant,
                )  # fmt: skip
                rows.append(_bad_row(number, bad))
        return rows

    def _identities(self, entries: Iterable[Entry]) -> Found:
        """What stands for each picture, or why it will not do."""
        with_picture = {id(entry): entry for entry in entries if entry.picture is not None}
        here = {key: entry for key, entry in with_picture.items() if is_here(entry.picture)}
        found: Found = self._pictures.each(self._pictures.identity, here)
        for key, entry in with_picture.items():
            if key not in here:
                try:
                    found[key] = self._pictures.identity(entry)
                except InvalidSpec as error:
                    found[key] = error
        return found

    def _brought(self, entries: Iterable[Entry]) -> Found:
        """Each picture as a spec names it, or why it will not do."""
        with_picture = {id(entry): entry for entry in entries if entry.picture is not None}
        if not self._store:
            return self._pictures.each(self._pictures.look, with_picture)
        here = {key: entry for key, entry in with_picture.items() if is_here(entry.picture)}
        named = {
            key: Brought(image=str(entry.picture))
            for key, entry in with_picture.items()
            if key not in here
        }
        return {**named, **self._pictures.each(self._pictures.bring, here)}

    def _keyed(self, draft: Draft, identity: Any) -> Keyed | LatentmillError:
        """The key of a draft's content, and its steps with their seeds."""
        if isinstance(identity, LatentmillError):
            return identity
        try:
            steps = with_seeds(draft, identity)
            models = [self._model(step) for step in steps]
        except UnknownModel as error:
            return error
        return content_key(steps, identity, models, self._recipe.keep_steps), steps

    def _spec(self, draft: Draft, key: str, steps: Sequence[Step], picture: Brought | None) -> Spec:
        """The checked spec of a job; raises InvalidSpec or UnknownModel."""
        size = picture.size if picture else None
        known = {"prompt", "negative_prompt", "seed", "image"}
        self._allowed(tuple((type(s), s.model_dump_json(exclude=known)) for s in steps), size)
        if size is not None and None in (steps[0].width, steps[0].height):
            width, height = whole_size(*size)
            self.sizes.add((steps[0].width or width, steps[0].height or height))
        with explained():
            return Spec(
                steps=with_image(steps, picture.image) if picture else tuple(steps),
                key=key,
                priority=self._recipe.priority,
                max_attempts=self._recipe.max_attempts,
                labels=dict(draft.labels),
                keep_steps=self._recipe.keep_steps,
                check_output=self._recipe.check_output,
            )

    def _check(
        self, steps: tuple[tuple[type[Step], str], ...], size: tuple[int, int] | None
    ) -> None:
        made = [kind(**{**json.loads(values), "prompt": ""}) for kind, values in steps]
        check_chain(made, self._models, self._settings, size)

    def _model(self, step: Step) -> Model:
        return find_model(self._models, step.model, self._settings)


def _unless_error(value: Any) -> Any:
    if isinstance(value, LatentmillError):
        raise value
    return value


def _row(number: int, draft: Draft, key: str, job: NewJob | None, pool: str, held: bool) -> NewRow:
    return NewRow(
        number=number,
        place=draft.entry.place,
        entry=draft.entry.name,
        variant=draft.variant,
        is_key=draft.entry.is_key,
        file=draft.entry.file,
        cells=_cells(draft.entry),
        key=key,
        job=job,
        pool=pool,
        held=held,
    )


def _bad_row(number: int, bad: BadEntry) -> NewRow:
    entry = bad.entry
    return NewRow(
        number=number,
        place=bad.place,
        entry=entry.name if entry else None,
        variant=bad.variant,
        is_key=entry is not None and entry.is_key,
        file=entry.file if entry else None,
        cells=_cells(entry) if entry else None,
        code=bad.code,
        reason=bad.reason,
    )


def _cells(entry: Entry) -> str | None:
    """The entry's columns as JSON; what is none of its types becomes text, bytes are left out."""
    if not entry.values:
        return None
    values = {name: value for name, value in entry.values.items() if type(value) is not bytes}
    return _JSON.encode(values)


def _plain(value: object) -> str | None:
    return None if isinstance(value, bytes) else str(value)


_JSON = json.JSONEncoder(ensure_ascii=False, default=_plain)
