"""Rows that enter by a process of their own, on each kind of database."""

import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from storage.batch_entry import NewRow
from storage.batches import Batch, Batches
from storage.entering import enter_aside
from storage.errors import LedgerUnavailable, NotConfigured
from storage.submission import new_job
from tests.storage.specs import a_spec


@pytest.fixture
def batches(ledger_url: str) -> Iterator[Batches]:
    opened = Batches.open(ledger_url)
    yield opened
    opened.close()


def create(batches: Batches) -> Batch:
    return batches.create(name="apples", source="/data", recipe={})


def row(number: int, place: str = "list.csv") -> NewRow:
    key = f"content-{number}"
    job = new_job(a_spec("an apple", key=key, labels={"fruit": "apple"}))
    return NewRow(number, place, entry=f"a/{number}", key=key, job=job, pool="default")


def test_chunks_enter_as_they_would_here(batches: Batches, ledger_url: str) -> None:
    batch = create(batches)
    odd = row(4, place="half a character \ud800")
    bad = NewRow(5, "list.csv:5", cells='{"prompt": ""}', code="invalid_spec", reason="no prompt")
    chunks = [[row(0), row(1)], [row(1)._replace(number=2, entry="b"), row(3)], [odd, bad]]

    answers = list(enter_aside(ledger_url, batch.id, chunks))

    assert [answer.outcomes for answer in answers] == [
        {"job": 2},
        {"skipped": 1, "job": 1},
        {"job": 1, "failed": 1},
    ]
    assert [answer.pools for answer in answers] == [{"default": 2}, {"default": 1}, {"default": 1}]
    rows = list(batches.all_rows(batch.id))
    assert [each.number for each in rows] == [0, 1, 2, 3, 4, 5]
    assert rows[1].job_id == rows[2].job_id
    assert rows[4].place == "half a character ?"


def test_nothing_to_enter_is_nothing_wrong(batches: Batches, ledger_url: str) -> None:
    assert list(enter_aside(ledger_url, create(batches).id, [])) == []


def test_what_the_database_says_is_told(empty_database_url: str) -> None:
    with pytest.raises(NotConfigured, match="run `latentmill migrate`"):
        list(enter_aside(empty_database_url, "x", [[row(0)], [row(1)], [row(2)]]))


def test_a_process_that_was_killed_is_told(
    batches: Batches, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, begun = create(batches), []

    class Seen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **values: Any) -> None:
            super().__init__(*arguments, **values)
            begun.append(self)

    monkeypatch.setattr(subprocess, "Popen", Seen)

    def chunks() -> Iterator[Sequence[NewRow]]:
        yield [row(0)]
        yield [row(1)]
        begun[0].kill()
        yield [row(2)]

    with pytest.raises(LedgerUnavailable, match="ended with status -9; the rows so far are there"):
        list(enter_aside(ledger_url, batch.id, chunks()))
    assert [each.number for each in batches.all_rows(batch.id)][:1] == [0]


def test_what_was_handed_over_enters_even_where_the_next_chunk_fails(
    batches: Batches, ledger_url: str
) -> None:
    batch = create(batches)

    def chunks() -> Iterator[Sequence[NewRow]]:
        yield [row(0)]
        yield [row(1)]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(enter_aside(ledger_url, batch.id, chunks()))
    assert [each.number for each in batches.all_rows(batch.id)] == [0, 1]
