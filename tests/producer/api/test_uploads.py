"""What is sent to the API: never larger than allowed, never decoded before it is looked at."""

import io
import json
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from struct import pack

import httpx2
import pytest
from PIL import Image

from producer import Client
from producer.api.uploads import MOST_JSON
from storage.inputs import keep_file
from storage.jobs import State
from tests.producer.api.conftest import running
from tests.producer.api.test_jobs import FROM_PICTURE, SPEC, STEP


def upload(web: httpx2.Client, picture: bytes, **fields: str) -> httpx2.Response:
    data = {"spec": json.dumps(FROM_PICTURE), **fields}
    return web.post("/v1/jobs", data=data, files={"image": ("x.png", picture)})


def bomb(side: int) -> bytes:
    """A PNG of a few hundred kilobytes that would be side times side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    header = pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_bomb_is_refused_before_it_is_decoded(web: httpx2.Client, client: Client) -> None:
    data = bomb(12_000)
    assert len(data) < 100_000
    tracemalloc.start()
    answer = upload(web, data)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_image")
    assert "144000000 pixels" in answer.json()["detail"]
    assert most < 50e6
    assert client.ledger.counts()[State.QUEUED] == 0


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n broken", b"<svg/>"])
def test_what_is_no_picture_is_refused(web: httpx2.Client, data: bytes) -> None:
    answer = upload(web, data)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_image")


def test_a_body_that_is_too_large_is_refused_by_its_length(web: httpx2.Client) -> None:
    answer = web.post("/v1/jobs", content=b" " * (MOST_JSON + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
def test_a_body_without_a_length_is_cut_off(client: Client, kind: str) -> None:
    small = Client(client.settings.model_copy(update={"max_image_pixels": 1000}))
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        while sent < 500:
            sent += 1
            yield b"x" * 2**20

    with running(small) as url:
        try:
            answer = httpx2.post(
                f"{url}/v1/jobs", content=endless(), headers={"Content-Type": kind}
            )
            assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        except httpx2.HTTPError:
            pass  # it hung up while we were still sending
    assert sent < 100
    small.ledger.close()


def test_a_large_picture_is_kept_without_being_read_into_memory(
    client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "large.bmp"
    Image.new("RGB", (4000, 4000), "red").save(file)
    assert file.stat().st_size > 45e6
    with file.open("rb") as opened:
        keep_file(opened, client.objects, 64_000_000)  # what is imported on the way
        tracemalloc.start()
        kept = keep_file(opened, client.objects, 64_000_000)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert client.objects.size(kept.key) == file.stat().st_size
    assert most < 20e6, "Pillow's pixels are not counted here, the file would be"


def test_a_form_must_be_what_it_should_be(web: httpx2.Client, picture: Path) -> None:
    data = picture.read_bytes()
    assert "no such field" in upload(web, data, colour="red").json()["detail"]
    for spec, said in (("[]", "must be of the form"), ("{", "must be of the form")):
        assert said in upload(web, data, spec=spec).json()["detail"]
    named = json.dumps({"steps": [{**FROM_PICTURE["steps"][0], "image": "inputs/x.png"}]})
    assert "none can be named" in upload(web, data, spec=named).json()["detail"]
    text = json.dumps({"steps": [STEP]})
    assert upload(web, data, spec=text).json()["code"] == "invalid_spec"
    broken = web.post(
        "/v1/jobs", content=b"--y", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert broken.status_code in (400, 422)


@pytest.mark.parametrize(
    "key", ["inputs/../jobs/x.png", "/etc/passwd", "other/x.png", "inputs//x.png", "inputs/.x"]
)
def test_no_key_leads_out_of_the_buckets_layout(
    web: httpx2.Client, client: Client, key: str
) -> None:
    for image in (key, f"s3://{client.settings.s3_bucket}/{key}"):
        answer = web.post(
            "/v1/jobs", json={"steps": [{**FROM_PICTURE["steps"][0], "image": image}]}
        )
        assert answer.status_code == 422


def test_secrets_in_urls_are_not_shown_again(web: httpx2.Client) -> None:
    spec = {**SPEC, "webhook_url": "https://93.184.215.14/ended?token=secret"}
    place = web.post("/v1/jobs", json=spec).json()["status_url"]
    assert "secret" not in web.get(place).text
    assert "93.184.215.14/ended?…" in web.get(place).json()["spec"]["webhook_url"]


def test_a_small_form_stays_small(web: httpx2.Client) -> None:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(out, "PNG")
    assert upload(web, out.getvalue()).status_code == 202
