"""Pictures of jobs over HTTP, and what workers do now."""

import io
from pathlib import Path

import httpx2
from PIL import Image

from producer import Client, Img2Img, Text2Img
from storage.jobs import Worker
from storage.keys import Keys, Scope
from tests.producer.conftest import Hand

RED = Text2Img(model="demo", prompt="red")


def opened(answer: httpx2.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def test_the_input_and_every_kept_result_are_there(
    web: httpx2.Client, client: Client, hand: Hand, picture: Path
) -> None:
    first = Img2Img(model="demo", image=picture, prompt="red", strength=0.5)
    second = Img2Img(model="demo", prompt="lime", strength=0.5)
    job = client.submit([first, second], keep_steps=True)
    hand.succeed()
    place = f"/v1/jobs/{job.id}/pictures"
    given = web.get(f"{place}/input")
    assert given.content == picture.read_bytes()
    assert given.headers["content-type"] == "image/png"
    assert given.headers["cache-control"].startswith("private")
    assert opened(web.get(f"{place}/0")).getpixel((0, 0)) == (255, 0, 0)
    assert opened(web.get(f"{place}/result")).getpixel((0, 0)) == (0, 255, 0)


def test_a_small_one_is_webp_and_never_larger_than_the_picture(
    web: httpx2.Client, client: Client, hand: Hand, picture: Path
) -> None:
    job = client.submit(Img2Img(model="demo", image=picture, prompt="red", strength=0.5))
    hand.succeed()
    place = f"/v1/jobs/{job.id}/pictures"
    small = opened(web.get(f"{place}/input?width=32"))
    assert (small.format, small.size) == ("WEBP", (32, 32))
    assert opened(web.get(f"{place}/result?width=96")).size == (16, 16)


def test_what_is_not_there_is_said_so(web: httpx2.Client, client: Client) -> None:
    job = client.submit(RED)
    for name in ("input", "result", "7"):
        answer = web.get(f"/v1/jobs/{job.id}/pictures/{name}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert web.get(f"/v1/jobs/{job.id}/pictures/..%2f..%2fcarry").status_code in (404, 422)
    assert web.get(f"/v1/jobs/{job.id}/pictures/secret").status_code == 422


def test_a_key_sees_its_owners_pictures_only(
    web: httpx2.Client, client: Client, hand: Hand, keys: Keys
) -> None:
    job = client.submit(RED)
    hand.succeed()
    other = keys.add("other", Scope.SUBMIT).token
    answer = web.get(
        f"/v1/jobs/{job.id}/pictures/result", headers={"Authorization": f"Bearer {other}"}
    )
    assert answer.status_code == 404


def test_a_job_that_does_not_run_has_no_live_view(web: httpx2.Client, client: Client) -> None:
    job = client.submit(RED)
    assert web.get(f"/v1/jobs/{job.id}/live").status_code == 204


def test_a_worker_tells_what_it_runs_and_how_fast_it_is(
    web: httpx2.Client, client: Client, hand: Hand
) -> None:
    reported = Worker(
        name="by-hand", device="cpu", pool="default", slots=2, loaded=("demo",), started_at=0.0
    )
    client.ledger.report_worker(reported)
    for _ in range(3):
        client.submit(RED)
    hand.succeed()
    claim = hand.claim()
    client.ledger.progress([(claim, 0, 3, 10)])
    (worker,) = web.get("/v1/workers").json()["workers"]
    assert (worker["busy"], worker["slots"], worker["loaded"]) == (1, 2, ["demo"])
    assert worker["running"] == [{"id": claim.job_id, "step": 0, "done": 3, "total": 10}]
    assert worker["images_per_second"] == round(1 / 60, 3)
