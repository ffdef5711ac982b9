"""Many submissions at once: together in the ledger, each with its own answer."""

from concurrent.futures import ThreadPoolExecutor

import httpx2
from sqlalchemy import text

from producer import Client
from storage.broker import waiting
from storage.errors import KeyConflict
from storage.jobs import Asked, State
from storage.ledger import Ledger
from tests.producer.api.test_jobs import SPEC
from tests.storage.specs import a_spec


def test_many_at_once_each_become_one_job(web: httpx2.Client, client: Client) -> None:
    def submit(number: int) -> tuple[int, str]:
        headers = {"Idempotency-Key": f"order-{number % 20}"}
        answer = web.post("/v1/jobs", json={**SPEC, "priority": number % 20}, headers=headers)
        return answer.status_code, answer.json()["id"]

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(submit, range(60)))

    assert {status for status, _ in answers} == {202}
    assert len({job_id for _, job_id in answers}) == 20
    assert client.ledger.counts()[State.QUEUED] == 20


def test_one_conflict_does_not_keep_the_others_out(ledger: Ledger) -> None:
    ledger.submit([a_spec(key="a")])
    asked = [
        Asked(spec=spec, pool="default", owner="")
        for spec in (a_spec(key="b"), a_spec(key="a", priority=1), a_spec(key="b"), a_spec())
    ]
    first, conflict, again, alone = ledger.submit_each(asked)

    assert isinstance(conflict, KeyConflict)
    assert not isinstance(first, KeyConflict)
    assert not isinstance(again, KeyConflict)
    assert not isinstance(alone, KeyConflict)
    assert (first.created, again.created, alone.created) == (True, False, True)
    assert again.id == first.id
    assert sum(ledger.counts().values()) == 3


def test_a_job_goes_next_however_many_entered_with_it(ledger: Ledger) -> None:
    ledger.submit([a_spec("of the batch")] * 50, batch="b")
    ledger.submit_each([Asked(spec=a_spec(), pool="default", owner="")] * 3)
    for _ in range(3):
        claim = ledger.claim(worker="w", pool="default", lease_seconds=30)
        assert claim is not None
        assert claim.spec.steps[0].prompt != "of the batch"


def test_workers_hear_of_new_jobs(web: httpx2.Client, client: Client) -> None:
    for _ in range(3):
        web.post("/v1/jobs", json=SPEC)
    for _ in range(100):
        if waiting(client.broker, "default") == 3:
            return
        web.get("/healthz")
    assert waiting(client.broker, "default") == 3


def test_a_ledger_that_cannot_be_used_is_said_to_be(web: httpx2.Client, client: Client) -> None:
    def rename(before: str, after: str) -> None:
        with client.ledger.database.writing() as connection:
            connection.execute(text(f"ALTER TABLE {before} RENAME TO {after}"))

    rename("jobs", "elsewhere")
    answer = web.post("/v1/jobs", json=SPEC)
    assert (answer.status_code, answer.json()["code"]) == (503, "not_configured")
    assert int(answer.headers["retry-after"]) > 0
    rename("elsewhere", "jobs")
    assert web.post("/v1/jobs", json=SPEC).status_code == 202
