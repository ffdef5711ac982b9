"""A look at every row of a dataset before anything is stored or run."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from producer.client import Client
from producer.datasets.lines import write_lines
from producer.datasets.pictures import Pictures
from producer.datasets.prepare import Preparation
from producer.datasets.recipe import Recipe, Values
from producer.datasets.submit import chunks, read_rows
from storage.batch_entry import DUPLICATE, NewRow
from storage.errors import InvalidSpec
from storage.spec import parse_spec

#: What CLIP's tokenizer never joins: each piece is one token or more.
_PIECES = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)
#: CLIP's context without its marks of beginning and end.
MOST_TOKENS = 75


@dataclass
class Findings:
    """What was found out about the rows of a source."""

    rows: int = 0
    #: Rows that an earlier batch has done, or will; they were not looked at again.
    done: int = 0
    #: Jobs that the others would become, by the kind of their first step.
    kinds: Counter[str] = field(default_factory=Counter)
    #: Rows that cannot become jobs, by code.
    codes: Counter[str] = field(default_factory=Counter)
    #: Rows with a prompt of which CLIP cuts something off, at least.
    long_prompts: int = 0
    #: The places of the first of them.
    long_places: list[str] = field(default_factory=list)
    #: How many sizes the results have that take them from their pictures.
    sizes: int = 0

    @property
    def bad(self) -> int:
        return self.codes.total()


def check_dataset(
    client: Client,
    source: str,
    recipe: Recipe,
    bad_file: Path,
    on_progress: Callable[[Findings], None] = lambda _: None,
) -> Findings:
    """Check every row: its picture is there and decodes, its size, its fields, its models.

    Needs no device, and stores nothing. Rows that cannot become jobs are written to `bad_file`,
    one JSON object a line, if there are any. Without a ledger no row counts as done.
    """
    found = Findings()
    settings = client.settings
    settled = client.batches.settled if settings.database_url else lambda _: set()

    def bad_rows() -> Iterator[Values]:
        keys: set[int] = set()
        preparation = Preparation(recipe, client.models, settings, pictures, store=False)
        for chunk in chunks(read_rows(client, source, recipe)):
            for row in preparation.rows(chunk, settled, lambda _: False):
                yield from _count(found, row, keys)
            found.sizes = len(preparation.sizes)
            on_progress(found)

    objects = client.objects if settings.s3_endpoint_url else None
    with closing(Pictures(settings, objects)) as pictures:
        write_lines(bad_file, bad_rows())
    if not found.rows:
        raise InvalidSpec(f"source: there is nothing in {source!r}")
    return found


def is_too_long(prompt: str) -> bool:
    """Whether CLIP surely cuts something off; a prompt of rare words may be too long all the same.

    The tokenizer itself belongs to the workers.
    """
    return len(_PIECES.findall(prompt)) > MOST_TOKENS


def _count(found: Findings, row: NewRow, keys: set[int]) -> list[Values]:
    """Add a row to the findings; returns what is to be said of it if it is a bad one."""
    found.rows += 1
    code, reason = row.code, row.reason
    if row.is_key and row.entry is not None:
        name = hash((row.entry, row.variant))
        if name in keys and code is None:
            code, reason = DUPLICATE, f"{row.entry!r} is the name of an earlier row"
        keys.add(name)
    if code is not None:
        found.codes[code] += 1
        return [{"place": row.place, "name": row.entry, "code": code, "reason": reason}]
    if row.job is None:
        found.done += 1
        return []
    steps = parse_spec(row.job.spec).steps
    found.kinds[steps[0].kind] += 1
    if any(is_too_long(step.prompt) or is_too_long(step.negative_prompt) for step in steps):
        found.long_prompts += 1
        if len(found.long_places) < 3:
            found.long_places.append(row.place)
    return []
