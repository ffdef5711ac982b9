"""Keys: who may do what, how much of it, and from where."""

import json
from pathlib import Path

import httpx2
import pytest

from producer import Client
from producer.api import gate
from storage.errors import LimitExceeded, NotConfigured
from storage.jobs import State
from storage.keys import Keys, NewKey, Scope
from tests.producer.api.conftest import running
from tests.producer.api.test_jobs import FROM, FROM_PICTURE, SPEC, STEP
from tests.producer.conftest import Hand


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is made or revoked counts from the next request on."""
    monkeypatch.setattr(gate, "REMEMBERED", 0.0)


def with_key(web: httpx2.Client, key: NewKey) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {key.token}"}
    return httpx2.Client(base_url=web.base_url, headers=headers, timeout=10)


def test_once_there_is_a_key_one_is_needed(web: httpx2.Client, keys: Keys) -> None:
    assert web.get("/v1/jobs").status_code == 200
    made = keys.add("ada")

    refused = web.get("/v1/jobs")
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert refused.headers["www-authenticate"] == "Bearer"
    with with_key(web, made) as ada:
        assert ada.get("/v1/jobs").status_code == 200
        keys.revoke(made.key.id)
        assert ada.get("/v1/jobs").status_code == 401
    assert web.get("/v1/jobs").status_code == 401, "revoking the last one opens nothing"


def test_health_needs_no_key_and_says_nothing_but_that(web: httpx2.Client, keys: Keys) -> None:
    keys.add("ada")
    assert web.get("/healthz").status_code == 200
    assert set(web.get("/readyz").json()) == {"ready", "ledger", "broker", "objects", "workers"}


def test_a_key_sees_and_ends_only_its_owners_jobs(
    web: httpx2.Client, keys: Keys, client: Client, hand: Hand
) -> None:
    with (
        with_key(web, keys.add("ada")) as ada,
        with_key(web, keys.add("bob")) as bob,
        with_key(web, keys.add("root", Scope.ADMIN)) as root,
    ):
        job_id = ada.post("/v1/jobs", json={**SPEC, "key": "k"}).json()["id"]
        hand.succeed()
        for method, path in (
            ("GET", ""),
            ("GET", "/result"),
            ("GET", "/events"),
            ("DELETE", ""),
            ("POST", "/retry"),
        ):
            answer = bob.request(method, f"/v1/jobs/{job_id}{path}")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
            assert bob.request(method, f"/v1/jobs/{job_id[:10]}{path}").status_code == 404
        assert bob.get("/v1/jobs").json()["jobs"] == []
        assert sum(bob.get("/v1/counts").json().values()) == 0
        other = bob.post("/v1/jobs", json={**SPEC, "key": "k", "priority": 1})
        assert other.status_code == 202, "keys of specs are an owner's own"
        assert ada.get(f"/v1/jobs/{job_id}").json()["owner"] == "ada"
        assert len(root.get("/v1/jobs").json()["jobs"]) == 2
    assert client.ledger.counts()[State.QUEUED] == 1


@pytest.mark.parametrize("form", ["{}", "s3://{bucket}/{}"])
def test_nobody_gets_at_anothers_pictures_by_naming_them(
    web: httpx2.Client, keys: Keys, client: Client, hand: Hand, form: str
) -> None:
    with with_key(web, keys.add("ada")) as ada, with_key(web, keys.add("bob")) as bob:
        job_id = ada.post("/v1/jobs", json=SPEC).json()["id"]
        hand.succeed()
        for key in (f"jobs/{job_id}/result.png", f"carry/{job_id}/0.png", "batches/b/x.png"):
            image = form.format(key, bucket=client.settings.s3_bucket)
            answer = bob.post("/v1/jobs", json={"steps": [{**FROM, "image": image}]})
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_image"), image
        own = form.format(f"jobs/{job_id}/result.png", bucket=client.settings.s3_bucket)
        assert ada.post("/v1/jobs", json={"steps": [{**FROM, "image": own}]}).status_code == 202


def test_a_scope_allows_what_it_says(web: httpx2.Client, keys: Keys) -> None:
    with with_key(web, keys.add("ada", Scope.READ)) as reader:
        assert reader.get("/v1/jobs").status_code == 200
        answer = reader.post("/v1/jobs", json=SPEC)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert reader.get("/metrics").status_code == 403


def test_a_key_can_only_let_so_many_jobs_wait(web: httpx2.Client, keys: Keys, hand: Hand) -> None:
    with with_key(web, keys.add("ada", max_queued=2)) as ada:
        assert [ada.post("/v1/jobs", json=SPEC).status_code for _ in "123"] == [202, 202, 429]
        full = ada.post("/v1/jobs", json=SPEC)
        assert (full.json()["code"], full.headers["retry-after"]) == ("limit_exceeded", "10")
        hand.succeed()
        assert ada.post("/v1/jobs", json=SPEC).status_code == 202


def test_a_key_allows_so_many_pixels(web: httpx2.Client, keys: Keys, picture: Path) -> None:
    with with_key(web, keys.add("ada", max_pixels=64 * 64 - 1)) as ada:
        sized = {"steps": [{**STEP, "width": 64, "height": 64}]}
        assert "this key allows" in ada.post("/v1/jobs", json=sized).json()["detail"]
        files = {"image": picture.read_bytes()}
        answer = ada.post("/v1/jobs", data={"spec": json.dumps(FROM_PICTURE)}, files=files)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_image")


def test_a_key_allows_so_many_requests_a_minute(web: httpx2.Client, keys: Keys) -> None:
    with with_key(web, keys.add("ada", max_per_minute=3)) as ada:
        answers = [ada.get("/v1/models") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 0 < int(answers[3].headers["retry-after"]) <= 20


def test_requests_that_are_used_up_come_back_steadily() -> None:
    rate = gate.Rate()
    for _ in range(60):
        rate.take(60, 100.0)
    with pytest.raises(LimitExceeded):
        rate.take(60, 100.5)
    rate.take(60, 101.0)
    with pytest.raises(LimitExceeded):
        rate.take(60, 101.0)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_a_page_of_another_site_cannot_use_a_local_server(
    web: httpx2.Client, headers: dict[str, str]
) -> None:
    answer = web.post("/v1/jobs", json=SPEC, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_the_servers_own_page_can_use_it(web: httpx2.Client) -> None:
    origin = str(web.base_url).rstrip("/")
    assert web.post("/v1/jobs", json=SPEC, headers={"Origin": origin}).status_code == 202


def test_without_keys_no_other_machine_is_served(client: Client) -> None:
    with pytest.raises(NotConfigured, match="latentmill keys add"), running(client, "0.0.0.0"):
        raise AssertionError("it serves")


def test_a_server_for_other_machines_always_needs_a_key(client: Client, keys: Keys) -> None:
    made = keys.add("ada")
    with (
        running(client, "0.0.0.0") as url,
        httpx2.Client(base_url=url, headers={"Host": "mill.example"}) as web,
    ):
        assert web.get("/v1/jobs").status_code == 401
        key = {"Authorization": f"Bearer {made.token}"}
        assert web.get("/v1/jobs", headers=key).status_code == 200


def test_the_token_is_nowhere_in_the_database(client: Client, keys: Keys) -> None:
    made = keys.add("ada")
    file = Path(str(client.ledger.database._url.database))
    kept = b"".join(part.read_bytes() for part in file.parent.glob(file.name + "*"))
    assert made.key.id.encode() in kept
    assert made.token.encode() not in kept
