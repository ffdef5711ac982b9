"""Batches and schedules over HTTP."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from producer import Client
from producer.datasets.recipe import read_recipe
from producer.datasets.submit import submit_dataset
from storage.keys import Keys, Scope
from storage.schedules import Schedules
from tests.producer.conftest import Hand


@pytest.fixture
def batch(client: Client, tmp_path: Path) -> str:
    """Three rows that are jobs, and one that could not become one."""
    for number in range(3):
        Image.new("RGB", (64, 64), (number * 9, 0, 99)).save(tmp_path / f"{number}.png")
    names = [*(f"{number}.png" for number in range(3)), "lost.png"]
    lines = [json.dumps({"file_name": name, "prompt": "apple"}) for name in names]
    (tmp_path / "apples.jsonl").write_text("\n".join(lines))
    (tmp_path / "recipe.yaml").write_text("model: demo\nstrength: 0.5\n")
    recipe = read_recipe(tmp_path / "recipe.yaml")
    return submit_dataset(client, str(tmp_path / "apples.jsonl"), recipe, name="apples").id


def test_a_batch_tells_what_became_of_its_rows(web: httpx2.Client, batch: str, hand: Hand) -> None:
    hand.succeed()
    (listed,) = web.get("/v1/batches").json()["batches"]
    assert (listed["id"], listed["name"]) == (batch, "apples")
    told = web.get("/v1/batches/apples").json()
    assert told["rows"] == 4
    assert {name: count for name, count in told["statuses"].items() if count} == {
        "queued": 2,
        "succeeded": 1,
        "failed": 1,
    }
    assert told["codes"] == {"invalid_image": 1}
    (failed,) = web.get(f"/v1/batches/{batch}/rows?status=failed").json()["rows"]
    assert "lost.png" in failed["reason"]
    assert failed["job_id"] is None


def test_rows_come_in_pages(web: httpx2.Client, batch: str) -> None:
    first = web.get(f"/v1/batches/{batch}/rows?limit=3").json()
    assert [row["number"] for row in first["rows"]] == [0, 1, 2]
    rest = web.get(f"/v1/batches/{batch}/rows?limit=3&after={first['next_after']}").json()
    assert [row["number"] for row in rest["rows"]] == [3]
    assert rest["next_after"] is None


def test_its_jobs_are_canceled_and_run_again(web: httpx2.Client, batch: str) -> None:
    assert web.post(f"/v1/batches/{batch}/cancel").json() == {"jobs": 3}
    assert web.get(f"/v1/batches/{batch}").json()["statuses"]["canceled"] == 3
    assert web.post(f"/v1/batches/{batch}/retry").json() == {"jobs": 3}
    assert web.get(f"/v1/batches/{batch}").json()["statuses"]["queued"] == 3


def test_a_schedule_is_paused_resumed_and_run(web: httpx2.Client, client: Client) -> None:
    Schedules(client.ledger.database).add(
        name="nightly", cron="0 2 * * *", source="/data/incoming", recipe={"model": "demo"}
    )
    (listed,) = web.get("/v1/schedules").json()["schedules"]
    assert (listed["name"], listed["paused"], listed["firings"]) == ("nightly", False, [])
    assert web.post("/v1/schedules/nightly/pause").json()["paused"]
    assert not web.post("/v1/schedules/nightly/resume").json()["paused"]
    (firing,) = web.post("/v1/schedules/nightly/run").json()["firings"]
    assert (firing["state"], firing["jobs"]) == ("waiting", None)


NIGHTLY = {
    "name": "pictures", "cron": "0 2 * * *", "timezone": "Europe/Berlin", "misfire": "skip",
    "source": "s3://latentmill/inputs/", "recipe": {"model": "demo", "prompt": "a cat"},
}  # fmt: skip


def test_a_schedule_is_added_and_removed(web: httpx2.Client, client: Client) -> None:
    bucket = client.settings.s3_bucket
    wanted = NIGHTLY | {"source": f"s3://{bucket}/inputs/"}
    added = web.post("/v1/schedules", json=wanted)
    assert added.status_code == 201, added.text
    assert (added.json()["timezone"], added.json()["misfire"]) == ("Europe/Berlin", "skip")
    assert web.post("/v1/schedules", json=wanted).status_code == 409
    assert web.delete("/v1/schedules/pictures").status_code == 204
    assert web.delete("/v1/schedules/pictures").status_code == 404


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cron": "0 25 * * *"}, "cron"),
        ({"timezone": "Mars/North"}, "timezone"),
        ({"source": "/etc"}, "source"),
        ({"recipe": {"steps": 3}}, "steps"),
        ({"overlap": "always"}, "overlap"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(
    web: httpx2.Client, client: Client, change: dict[str, Any], said: str
) -> None:
    source = f"s3://{client.settings.s3_bucket}/inputs/"
    answer = web.post("/v1/schedules", json=NIGHTLY | {"source": source} | change)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/batches/nothing"),
        ("POST", "/v1/batches/nothing/retry"),
        ("POST", "/v1/schedules/nothing/run"),
    ],
)
def test_what_is_not_there_is_said_so(web: httpx2.Client, method: str, path: str) -> None:
    answer = web.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_they_are_for_admins(web: httpx2.Client, keys: Keys, batch: str) -> None:
    token = keys.add("somebody", Scope.SUBMIT).token
    headers = {"Authorization": f"Bearer {token}"}
    for path in ("/v1/batches", f"/v1/batches/{batch}", "/v1/schedules"):
        assert web.get(path, headers=headers).status_code == 403
