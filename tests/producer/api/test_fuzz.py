"""Whatever is sent, the API answers as its description says, and never with a 500."""

import os
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import one_of, sampled_from
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from producer import Client
from producer.api import make_app
from producer.api.problems import MEDIA_TYPE
from producer.datasets import make_recipe, submit_dataset
from storage.jobs import State
from storage.keys import Keys, Scope
from tests.producer.conftest import Hand
from tests.storage.specs import a_spec

#: Requests to each operation; `FUZZ=1000` for a long run.
EXAMPLES = int(os.environ.get("FUZZ", "15"))
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
OPEN = (State.QUEUED, State.RUNNING)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture
def token(client: Client, hand: Hand, tmp_path: Path) -> str:
    """There are jobs of each kind, so that what is asked for is there at times."""
    client.ledger.submit([a_spec(labels={"set": "train"}) for _ in range(3)])
    hand.succeed()
    hand.fail()
    table = tmp_path / "table.csv"
    table.write_text(f"file_name,prompt\ninputs/{'0' * 64}.png,an apple\n")
    submit_dataset(client, str(table), make_recipe({"model": "demo"}))
    return Keys(client.ledger.database).add("ada", Scope.ADMIN).token


def test_every_answer_is_one_that_is_described(client: Client, token: str) -> None:
    app = make_app(client, local=False)
    described = schemathesis.openapi.from_asgi("/openapi.json", app)
    job_ids = [job.id for job in client.ledger.jobs()]
    [batch] = client.batches.newest()
    tried = 0
    # That stream never ends; those of ended jobs do.
    for found in described.exclude(path="/v1/events").get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(
            case=one_of(operation.as_strategy(generation_mode=mode) for mode in MODES),
            job_id=sampled_from([None, *job_ids]),
        )
        def answers(case: schemathesis.Case, job_id: str | None) -> None:
            named = case.path_parameters or {}
            if job_id is not None:
                there = {"job_id": job_id, "batch_id": batch.id}
                named.update({name: there[name] for name in named if name in there})
                if case.path.endswith("/events") and client.ledger.job(job_id).state in OPEN:
                    return
            answer = case.call(headers={"Authorization": f"Bearer {token}"})
            case.validate_response(answer, checks=CHECKS)
            if answer.status_code >= 400 and case.path != "/readyz":
                assert MEDIA_TYPE in answer.headers["content-type"][0]

        answers()
        tried += 1
    assert tried >= 10
