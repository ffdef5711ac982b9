"""Server-sent events: nothing is missed, nothing comes twice."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from producer import Client
from tests.producer.api.test_jobs import SPEC
from tests.producer.conftest import Hand


@contextmanager
def watching(
    web: httpx2.Client, path: str, after: str | None = None
) -> Iterator[Iterator[dict[str, str]]]:
    headers = {"Last-Event-ID": after} if after else {}
    with web.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield messages(answer.iter_lines())


def messages(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    found: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            found[name] = value
        else:
            if "event" in found:
                yield found
            found = {}


def test_a_job_is_watched_to_its_end(web: httpx2.Client, hand: Hand) -> None:
    place = web.post("/v1/jobs", json=SPEC).json()["events_url"]
    with watching(web, place) as told:
        claim = hand.claim()
        hand.ledger.progress([(claim, 0, 3, 10)])
        seen = []
        for message in told:
            seen.append(message["event"])
            if message["event"] == "progress" and '"done":3' in message["data"]:
                hand.finish_step(claim, 0)
                hand.ledger.succeed(claim)

    assert [kind for kind in seen if kind != "progress"] == [
        "queued", "running", "step", "succeeded",
    ]  # fmt: skip


def test_who_comes_back_goes_on_after_the_last_event_it_saw(web: httpx2.Client, hand: Hand) -> None:
    web.post("/v1/jobs", json=SPEC)
    with watching(web, "/v1/events") as told:
        job_id = web.post("/v1/jobs", json=SPEC).json()["id"]
        first = next(told)
    assert (first["event"], json.loads(first["data"])["job_id"]) == ("queued", job_id)
    hand.succeed()

    with watching(web, "/v1/events", first["id"]) as told:
        later = [next(told) for _ in range(3)]

    assert [message["event"] for message in later] == ["running", "step", "succeeded"]
    assert json.loads(later[0]["data"])["attempt"] == 1


def test_the_stream_of_an_ended_job_tells_its_life_and_ends(web: httpx2.Client, hand: Hand) -> None:
    place = web.post("/v1/jobs", json=SPEC).json()["events_url"]
    hand.fail()

    with watching(web, place) as told:
        seen = list(told)
    assert [message["event"] for message in seen] == ["queued", "running", "failed"]
    with watching(web, place, seen[-1]["id"]) as told:
        assert [message["event"] for message in told] == ["failed"]


def test_an_id_of_another_kind_is_refused(web: httpx2.Client, client: Client) -> None:
    answer = web.get("/v1/events", headers={"Last-Event-ID": "x"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
