"""Datasets over HTTP: submitted, accounted for, taken out."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import httpx2
import pytest

from producer import Client
from storage.inputs import check_input
from storage.keys import Keys
from tests.producer.conftest import Hand

RECIPE: dict[str, Any] = {"model": "demo", "prompt": "{prompt}, comic style", "strength": 0.6}


def submit(web: httpx2.Client, file: str, data: str, **fields: str) -> httpx2.Response:
    form = {"recipe": json.dumps(RECIPE), **fields}
    return web.post("/v1/batches", data=form, files={"source": (file, data.encode())})


def keep(client: Client, picture: Path) -> str:
    found = check_input(picture.read_bytes(), 10**6)
    found.store(client.objects)
    return found.key


def test_a_table_becomes_a_batch_that_is_accounted_for_and_taken_out(
    web: httpx2.Client, client: Client, picture: Path, hand: Hand
) -> None:
    key = keep(client, picture)
    table = f"file_name,prompt\n{key},an apple\n{key},a pear\ninputs/{'0' * 64}.png,nothing\n"
    answer = submit(web, "fruit.csv", table, name="fruit")
    assert answer.status_code == 201, answer.text
    batch = answer.json()
    assert (batch["name"], batch["source"], batch["rows"]) == ("fruit", "upload:fruit.csv", 3)
    hand.succeed()
    hand.succeed()

    report = web.get(f"/v1/batches/{batch['id']}/report").json()
    assert report["rows"]["succeeded"] == 2
    assert report["complete"]
    out = web.get(f"/v1/batches/{batch['id']}/export", params={"image_format": "webp"})
    assert out.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(out.content)) as tar:
        names = [Path(name).name for name in tar.getnames()]
    assert "metadata.jsonl" in names
    assert sum(name.endswith(".webp") for name in names) == 2


def test_rows_of_an_upload_cannot_name_files_of_the_server(
    web: httpx2.Client, picture: Path
) -> None:
    near = f"file_name,prompt\n{picture},x\n../../../..{picture},y\n"
    batch = submit(web, "x.csv", near).json()
    rows = web.get(f"/v1/batches/{batch['id']}/rows").json()["rows"]
    assert [row["status"] for row in rows] == ["failed", "failed"]


@pytest.mark.parametrize("source", ["/etc", "file:///etc/passwd", "folder", ""])
def test_no_folder_of_the_server_is_a_source(web: httpx2.Client, source: str) -> None:
    answer = web.post("/v1/batches", json={"source": source, "recipe": RECIPE})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
    assert "s3://" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("x.exe", {}, "must end with"),
        ("../x", {}, "must end with"),
        ("x.csv", {"recipe": "{"}, "not JSON"),
        ("x.csv", {"recipe": '{"colour": 1}'}, "colour"),
        ("x.csv", {"pilot": "many"}, "pilot"),
        ("x.csv", {"other": "1"}, "other"),
    ],
)
def test_what_is_wrong_with_a_dataset_is_said(
    web: httpx2.Client, name: str, fields: dict[str, str], said: str
) -> None:
    answer = submit(web, name, "file_name,prompt\nhttps://example.com/x.png,a\n", **fields)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
    assert said in answer.json()["detail"]


def test_whole_datasets_are_for_admins(web: httpx2.Client, keys: Keys) -> None:
    headers = {"Authorization": f"Bearer {keys.add('ada').token}"}
    assert web.get("/v1/batches", headers=headers).status_code == 403
    body = {"source": "s3://x/", "recipe": RECIPE}
    assert web.post("/v1/batches", json=body, headers=headers).status_code == 403
