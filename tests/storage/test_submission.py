import sqlite3
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, text

from storage.errors import KeyConflict
from storage.ledger import CHUNK, Ledger, State
from storage.spec import Spec
from storage.submission import has_key
from storage.tables import jobs
from tests.storage.specs import a_chain, a_spec


def test_a_submitted_job_waits_with_all_that_its_spec_says(ledger: Ledger) -> None:
    spec = a_spec(priority=7, max_attempts=2, labels={"set": "train"}, keep_steps=True)

    [submitted] = ledger.submit([spec], pool="gpu")

    job = ledger.job(submitted.id)
    assert submitted.created
    assert (job.state, job.pool, job.priority, job.max_attempts) == (State.QUEUED, "gpu", 7, 2)
    assert (job.attempt, job.worker, job.error_code, job.started_at) == (0, None, None, None)
    assert job.spec.labels == {"set": "train"}
    assert job.spec.keep_steps


def test_seeds_left_open_are_drawn_once_and_given_ones_kept(ledger: Ledger) -> None:
    given = a_spec().steps[0].model_copy(update={"seed": 0})

    ids = [s.id for s in ledger.submit([a_chain(3), a_chain(3), Spec(steps=(given,))])]

    drawn = [step.seed for job_id in ids[:2] for step in ledger.job(job_id).spec.steps]
    assert len(set(drawn)) == 6
    assert all(seed is not None and 0 <= seed < 2**32 for seed in drawn)
    assert ledger.job(ids[2]).spec.steps[0].seed == 0


@pytest.mark.parametrize(
    "text", ["Füße auf dem Eis", "赤い四角", "🟥\u200d🟦", "a\x00b", "'; DROP--"]
)
def test_any_text_comes_back_as_it_was_written(ledger: Ledger, text: str) -> None:
    [submitted] = ledger.submit([a_spec(text)])
    assert ledger.job(submitted.id).spec.steps[0].prompt == text


def test_the_same_key_and_spec_give_the_job_there_is(ledger: Ledger) -> None:
    [first] = ledger.submit([a_spec(key="order-1")])
    [again] = ledger.submit([a_spec(key="order-1")])

    assert (first.created, again.created) == (True, False)
    assert again.id == first.id
    assert sum(ledger.counts().values()) == 1


def test_a_key_repeated_within_one_submission_makes_one_job(ledger: Ledger) -> None:
    found = ledger.submit([a_spec(key="a"), a_spec(), a_spec(key="a"), a_spec(key="b")])

    assert [s.created for s in found] == [True, True, False, True]
    assert found[2].id == found[0].id


def test_a_key_with_another_spec_is_refused_and_the_sentence_says_what_differs(
    ledger: Ledger,
) -> None:
    [first] = ledger.submit([a_spec(key="order-1")])

    with pytest.raises(KeyConflict, match=f"'order-1' belongs to job {first.id}.*priority differ"):
        ledger.submit([a_spec(), a_spec(key="order-1", priority=1)])

    assert sum(ledger.counts().values()) == 1, "nothing of the refused submission entered"


def test_a_key_with_another_seed_is_another_spec(ledger: Ledger) -> None:
    steps = a_spec().steps
    seeded = [Spec(steps=(steps[0].model_copy(update={"seed": n}),), key="k") for n in (1, 2)]
    ledger.submit(seeded[:1])

    assert not ledger.submit(seeded[:1])[0].created
    with pytest.raises(KeyConflict):
        ledger.submit(seeded[1:])


def test_a_key_submitted_by_many_at_once_makes_one_job(ledger: Ledger) -> None:
    keys = [f"key-{n}" for n in range(20)]

    def submit(turn: int) -> list[str]:
        order = keys if turn % 2 else keys[::-1]
        found = ledger.submit([a_spec(key=key) for key in order])
        return sorted(s.id for s in found)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(submit, range(16)))

    assert all(answer == answers[0] for answer in answers)
    assert sum(ledger.counts().values()) == len(keys)


def test_jobs_are_claimed_in_the_order_of_submission_across_chunks(ledger: Ledger) -> None:
    ids = [s.id for s in ledger.submit(a_spec() for _ in range(CHUNK + 20))]

    assert ids == sorted(ids)
    for job_id in ids[:5]:
        claim = ledger.claim(worker="w", pool="default", lease_seconds=30)
        assert claim is not None
        assert claim.job_id == job_id


def test_specs_are_read_as_they_enter_not_all_at_first(ledger: Ledger) -> None:
    entered_before: list[int] = []

    def specs() -> Iterator[Spec]:
        for n in range(2 * CHUNK + 1):
            if n % CHUNK == 0:
                entered_before.append(ledger.counts()[State.QUEUED])
            yield a_spec()

    ledger.submit(specs())

    assert entered_before == [0, CHUNK, 2 * CHUNK]


def test_memory_stays_flat_however_many_specs_enter(sqlite_url: str) -> None:
    ledger = Ledger.open(sqlite_url)
    ledger.upgrade()
    long = "x" * 5000

    def peak(count: int) -> int:
        tracemalloc.start()
        ledger.submit(a_spec(long) for _ in range(count))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(CHUNK)
    assert peak(4 * CHUNK) < 1.5 * peak(CHUNK)
    ledger.close()


def test_a_spec_in_the_ledger_is_plain_json_text(sqlite_url: str) -> None:
    ledger = Ledger.open(sqlite_url)
    ledger.upgrade()
    ledger.submit([a_spec("赤い四角")])
    ledger.close()

    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        (text,) = connection.execute("SELECT spec FROM jobs").fetchone()
    connection.close()
    assert '"prompt":"赤い四角"' in text


def test_keys_are_found_by_their_index_on_each_database(ledger: Ledger) -> None:
    ledger.submit([a_spec(key=f"key-{n}") for n in range(500)])
    with ledger.database.reading() as connection:
        wanted = has_key(connection, "", ["key-1", "key-2"])
        found = select(jobs.c.id).where(wanted)
        sqlite = connection.dialect.name == "sqlite"
        if not sqlite:
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        explain = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
        plain = found.compile(connection, compile_kwargs={"literal_binds": True})
        plan = str(connection.exec_driver_sql(explain + str(plain).replace("%", "%%")).all())
        assert len(connection.execute(found).all()) == 2
    assert "uq_jobs_owner_key" in plan
    assert "key>?" not in plan
