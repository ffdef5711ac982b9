"""Submitting a dataset: every row of the source enters a batch, a chunk of them at a time."""

import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from producer.client import INVITATIONS, Client
from producer.datasets.entry import BadEntry, Entry
from producer.datasets.pictures import Pictures
from producer.datasets.prepare import Numbered, Preparation
from producer.datasets.recipe import Draft, Recipe, drafts
from producer.datasets.source import read_source
from storage.batch_entry import Entered
from storage.batches import Batch
from storage.broker import invite
from storage.entering import enter_aside
from storage.errors import BrokerUnavailable, InvalidSpec
from storage.settings import require

#: Rows that enter together, and the bytes of pictures that may come with them.
CHUNK, CHUNK_BYTES = 1000, 64 * 2**20
#: Chunks that enter by this process, before another one is worth its start.
CHUNKS_HERE = 5


@dataclass
class Progress:
    """How far a submission has come."""

    rows: int = 0
    #: Rows by outcome: `job`, `skipped`, `failed`.
    outcomes: Counter[str] = field(default_factory=Counter)


Report = Callable[[Progress], None]


def submit_dataset(
    client: Client,
    source: str,
    recipe: Recipe,
    *,
    name: str | None = None,
    pilot: int = 0,
    uploaded_as: str | None = None,
    on_progress: Report = lambda _: None,
) -> Batch:
    """Enter every row of a source as one batch.

    What an earlier batch has done, or will, is not done again; what failed or was canceled is. With
    a pilot, so many rows spread over the source may run at once, and the others wait for
    `Batches.release`. Raises InvalidSpec for a source that cannot be read at all; a row that cannot
    become a job enters with its reason. Broken off, the rows so far run, and submitting again goes
    on. A source that was uploaded is recorded by the name that it had, and its rows can name no
    files of this machine.
    """
    # What is not configured must come to light before anything is stored.
    _ = client.objects, client.broker
    foreign = uploaded_as is not None
    rows_of = partial(read_rows, client, source, recipe, foreign)
    first = tuple(sample(sum(1 for _ in rows_of()), pilot)) if pilot else ()
    numbered = chunks(rows_of())
    # So that a source that cannot be read, or has nothing, leaves no batch behind.
    begin = next(numbered, None)
    if begin is None:
        raise InvalidSpec(f"source: there is nothing in {uploaded_as or source!r}")
    batch = client.batches.create(
        name=checked_name(name or default_name(uploaded_as or source)),
        source=absolute(source) if uploaded_as is None else f"upload:{uploaded_as}",
        recipe=recipe.plain(),
        pilot=first,
    )
    progress, early = Progress(), frozenset(first)
    invited: Counter[str] = Counter()

    def entered(found: Entered) -> None:
        progress.rows += found.outcomes.total()
        progress.outcomes += found.outcomes
        _invite(client, found.pools - invited)
        invited.update(found.pools)
        on_progress(progress)

    with closing(Pictures(client.settings, client.objects)) as pictures:
        preparation = Preparation(recipe, client.models, client.settings, pictures)
        prepared = (
            preparation.rows(
                chunk, client.batches.settled, lambda number: bool(early) and number not in early
            )
            for chunk in itertools.chain([begin], numbered)
        )
        # A process of its own pays for a long submission only.
        intake = client.batches.intake(batch.id)
        for rows in itertools.islice(prepared, CHUNKS_HERE):
            entered(intake.enter(rows))
        if (following := next(prepared, None)) is not None:
            url = require(client.settings, "database_url")
            for found in enter_aside(url, batch.id, itertools.chain([following], prepared)):
                entered(found)
    return client.batches.finish(batch.id)


def read_rows(
    client: Client, source: str, recipe: Recipe, foreign: bool = False
) -> Iterator[Numbered]:
    """The drafts of every entry, numbered from 0 on; a foreign source's name no files of ours."""
    entries = read_source(
        source,
        picture_column=recipe.picture_column,
        settings=client.settings,
        objects=client.objects if source.startswith("s3://") else None,
    )
    made = (each for entry in entries for each in _drafts(recipe, entry, foreign))
    return enumerate(made)


def _drafts(recipe: Recipe, entry: Entry | BadEntry, foreign: bool) -> Iterable[Draft | BadEntry]:
    if isinstance(entry, BadEntry):
        return (entry,)
    if foreign and isinstance(entry.picture, Path):
        reason = f"image: {entry.file!r}: rows of an upload name URLs or keys of the bucket"
        return (BadEntry(place=entry.place, reason=reason, code="invalid_image", entry=entry),)
    return drafts(recipe, entry)


def count_rows(client: Client, source: str, recipe: Recipe) -> int:
    return sum(1 for _ in read_rows(client, source, recipe))


def sample(rows: int, size: int) -> list[int]:
    """Numbers of `size` rows, spread evenly."""
    size = min(size, rows)
    return [(2 * index + 1) * rows // (2 * size) for index in range(size)]


def chunks(numbered: Iterator[Numbered]) -> Iterator[list[Numbered]]:
    """Rows in their order, so many that neither they nor their pictures fill the memory."""
    chunk: list[Numbered] = []
    held = 0
    for number, each in numbered:
        chunk.append((number, each))
        entry = each.entry
        held += len(entry.picture) if entry and isinstance(entry.picture, bytes) else 0
        if len(chunk) >= CHUNK or held >= CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def absolute(source: str) -> str:
    return source if "://" in source else str(Path(source).expanduser().resolve())


def default_name(source: str) -> str:
    """What a batch is called that was given no name: the source's last part."""
    path = absolute(source).rstrip("/")
    return "".join(filter(str.isprintable, path.rpartition("/")[2]))[:200] or "batch"


def checked_name(name: str) -> str:
    if len(name) > 200 or not name.isprintable():
        raise InvalidSpec(f"name: {name[:80]!r} is not of at most 200 printable characters")
    return name


def _invite(client: Client, pools: Counter[str]) -> None:
    """Tell idle workers; those at work pass the word on."""
    for pool, count in pools.items():
        try:
            invite(client.broker, pool, min(count, INVITATIONS))
        except BrokerUnavailable as error:
            warnings.warn(
                f"{error}; the jobs are in the ledger, and workers will find them there",
                stacklevel=3,
            )
            return
