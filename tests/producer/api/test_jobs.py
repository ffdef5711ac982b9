"""Jobs over HTTP: entered, looked at, ended."""

import io
import json
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from producer import Client
from storage.jobs import State
from tests.producer.conftest import Hand

SPEC = {"steps": [{"kind": "text2img", "model": "demo", "prompt": "a red square"}]}
STEP = SPEC["steps"][0]
FROM = {"kind": "img2img", "model": "demo", "prompt": "blue", "strength": 0.5}
FROM_PICTURE = {"steps": [FROM]}


def test_a_spec_becomes_a_job_that_says_where_to_look(web: httpx2.Client) -> None:
    answer = web.post("/v1/jobs", json=SPEC)

    assert answer.status_code == 202
    entered = answer.json()
    assert entered["created"]
    assert answer.headers["location"] == entered["status_url"]
    job = web.get(entered["status_url"]).json()
    assert (job["id"], job["state"]) == (entered["id"], "queued")
    assert job["spec"]["steps"][0]["prompt"] == "a red square"


def test_an_uploaded_picture_is_what_the_first_step_begins_from(
    web: httpx2.Client, client: Client, picture: Path
) -> None:
    files = {"image": ("cat.png", picture.read_bytes(), "image/png")}
    answer = web.post("/v1/jobs", data={"spec": json.dumps(FROM_PICTURE)}, files=files)

    assert answer.status_code == 202, answer.text
    key = web.get(answer.json()["status_url"]).json()["spec"]["steps"][0]["image"]
    assert client.objects.get(key) == picture.read_bytes()


def test_the_same_key_and_body_are_the_same_job_and_another_body_is_a_conflict(
    web: httpx2.Client,
) -> None:
    headers = {"Idempotency-Key": "order-1"}
    first = web.post("/v1/jobs", json=SPEC, headers=headers).json()
    again = web.post("/v1/jobs", json=SPEC, headers=headers).json()
    other = web.post("/v1/jobs", json={**SPEC, "priority": 3}, headers=headers)

    assert (again["id"], again["created"]) == (first["id"], False)
    assert other.status_code == 409
    assert other.json()["code"] == "key_conflict"


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ({"steps": []}, "invalid_spec", "1 to 16"),
        ({**SPEC, "colour": 1}, "invalid_spec", "colour"),
        ({"steps": [{**STEP, "model": "sd9"}]}, "unknown_model", "sd9"),
        ({"steps": [{**FROM, "image": "inputs/no.png"}]}, "invalid_image", "no.png"),
        (
            {"steps": [{**FROM, "image": "https://127.0.0.1/a.png"}]},
            "invalid_image",
            "public internet",
        ),
        ({**SPEC, "webhook_url": "https://169.254.169.254/"}, "invalid_spec", "webhook_url"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_spec_is_said_in_a_problem_document(
    web: httpx2.Client, body: object, code: str, said: str
) -> None:
    answer = web.post("/v1/jobs", json=body)

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["code"], problem["status"]) == (code, 422)
    assert said in problem["detail"]
    assert web.get("/v1/counts").json()["queued"] == 0


def test_an_unknown_id_is_not_found(web: httpx2.Client) -> None:
    for method, path in (
        ("GET", ""),
        ("GET", "/result"),
        ("GET", "/events"),
        ("DELETE", ""),
        ("POST", "/retry"),
    ):
        answer = web.request(method, f"/v1/jobs/01k9zt3v8m4w2q6n7r5s1x0yab{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


def test_pages_follow_each_other_to_the_end(web: httpx2.Client) -> None:
    made = [web.post("/v1/jobs", json={**SPEC, "labels": {"n": "1"}}).json()["id"] for _ in "12345"]
    web.post("/v1/jobs", json=SPEC)

    seen: list[str] = []
    cursor: str | None = None
    while True:
        at = {"cursor": cursor} if cursor else {}
        page = web.get("/v1/jobs", params={"limit": 2, "label": "n=1", **at}).json()
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen == made[::-1]


def test_a_result_is_a_link_or_the_picture_itself(web: httpx2.Client, hand: Hand) -> None:
    job_id = web.post("/v1/jobs", json=SPEC).json()["id"]
    early = web.get(f"/v1/jobs/{job_id}/result")
    assert (early.status_code, early.json()["code"]) == (409, "not_ready")
    hand.succeed()

    link = web.get(f"/v1/jobs/{job_id}/result")
    assert link.status_code == 307
    assert "X-Amz-Expires=3600" in link.headers["location"]
    pictures = [
        httpx2.get(link.headers["location"]).content,
        web.get(f"/v1/jobs/{job_id}/result", params={"redirect": "false"}).content,
    ]
    assert pictures[0] == pictures[1]
    assert Image.open(io.BytesIO(pictures[0])).size == (16, 16)


def test_the_result_of_a_failed_job_says_why_there_is_none(web: httpx2.Client, hand: Hand) -> None:
    job_id = web.post("/v1/jobs", json=SPEC).json()["id"]
    hand.fail()

    answer = web.get(f"/v1/jobs/{job_id}/result")

    assert answer.status_code == 404
    assert "it has no weights" in answer.json()["detail"]


def test_a_job_is_canceled_and_queued_again(web: httpx2.Client, client: Client) -> None:
    place = web.post("/v1/jobs", json=SPEC).json()["cancel_url"]

    assert web.delete(place).json()["outcome"] == "canceled"
    assert web.delete(place).json()["outcome"] == "ended"
    assert web.post(f"{place}/retry").json()["state"] == "queued"
    assert client.ledger.counts()[State.QUEUED] == 1


def test_who_lives_and_is_ready_says_so(web: httpx2.Client) -> None:
    assert web.get("/healthz").json() == {"status": "ok"}
    ready = web.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)


def test_models_are_listed_without_where_they_lie(web: httpx2.Client) -> None:
    models = {model["alias"]: model for model in web.get("/v1/models").json()["models"]}
    assert {"demo", "sd15"} <= set(models)
    assert "source" not in models["demo"]
