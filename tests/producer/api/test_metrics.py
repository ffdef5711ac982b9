"""Figures and log lines: what a watch over the mill goes by."""

import json
import logging

import httpx2
import pytest

from producer import Client
from producer.api.logs import JsonLines
from storage.ledger import Ledger
from storage.statistics import read_statistics
from tests.producer.api.test_jobs import SPEC
from tests.producer.conftest import Hand
from tests.storage.specs import a_spec, finish


def test_jobs_are_counted_by_state_and_code(web: httpx2.Client, hand: Hand) -> None:
    for _ in range(3):
        web.post("/v1/jobs", json=SPEC)
    hand.fail()
    hand.succeed()

    said = web.get("/metrics").text.splitlines()

    for line in (
        'latentmill_jobs{state="queued"} 1.0',
        'latentmill_jobs{state="succeeded"} 1.0',
        'latentmill_jobs_ended{code="invalid_model",state="failed"} 1.0',
        "latentmill_claims 2.0",
        "latentmill_webhooks_open 0.0",
    ):
        assert line in said
    posted = 'latentmill_http_request_seconds_count{method="POST",route="/v1/jobs",status="202"}'
    assert f"{posted} 3.0" in said


def test_waits_are_known_on_each_database(ledger: Ledger) -> None:
    ledger.submit([a_spec(), a_spec()])
    claim = ledger.claim(worker="w", pool="default", lease_seconds=30)
    assert claim is not None
    finish(ledger, claim)

    with ledger.database.reading() as connection:
        found = read_statistics(connection)

    assert found.claimed == 1
    assert 0 <= found.waited == found.waited_most < 60
    assert 0 <= found.oldest["default"] < 60


def test_each_request_is_one_line_with_the_job_and_no_secret(
    web: httpx2.Client, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "producer.api.logs"):
        job_id = web.post("/v1/jobs", json=SPEC).json()["id"]
        web.get("/v1/jobs", params={"label": "token=secret"})
        web.get("/v1/models", headers={"Authorization": "Bearer lm_secret"})

    lines = [JsonLines().format(record) for record in caplog.records]
    told = [json.loads(line) for line in lines if '"request"' in line]
    assert (told[0]["job"], told[0]["status"], told[0]["path"]) == (job_id, 202, "/v1/jobs")
    assert told[0]["ms"] > 0
    assert not any("secret" in line or "\n" in line for line in lines)
