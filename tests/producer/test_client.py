"""The client: a job is entered whole, or not at all and with one clear error."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from producer import Client, Img2Img, Text2Img
from storage import broker
from storage.errors import (
    BrokerUnavailable,
    InvalidImage,
    InvalidSpec,
    KeyConflict,
    LedgerUnavailable,
    NotConfigured,
    ObjectsUnavailable,
    UnknownModel,
)
from storage.jobs import State
from storage.settings import Settings
from tests.web import make_certificate, name_hosts, running_web, send

RED: dict[str, Any] = {"model": "demo", "prompt": "a red apple"}
NOBODY = "127.0.0.1:9"  # the discard port: nothing listens there


def with_settings(settings: Settings, **changes: Any) -> Client:
    return Client(Settings.model_validate({**settings.model_dump(), **changes}))


def test_a_job_is_entered_with_its_picture_in_the_bucket(client: Client, picture: Path) -> None:
    job = client.submit(Img2Img(image=picture, strength=0.6, **RED), labels={"set": "fruit"})
    (step,) = job.record.spec.steps
    assert step.kind == "img2img"
    assert client.objects.get(str(step.image)) == picture.read_bytes()
    assert step.seed is not None
    assert (job.state, step.strength, job.record.spec.labels) == (
        State.QUEUED, 0.6, {"set": "fruit"},
    )  # fmt: skip
    assert broker.waiting(client.broker, "default") == 1


def test_two_jobs_without_a_seed_draw_different_ones(client: Client) -> None:
    seeds = {client.submit(Text2Img(**RED)).record.spec.steps[0].seed for _ in range(4)}
    assert len(seeds) == 4


def test_a_list_is_a_chain(client: Client) -> None:
    job = client.submit([Text2Img(**RED), Img2Img(strength=0.5, **RED)], keep_steps=True)
    assert [step.kind for step in job.record.spec.steps] == ["text2img", "img2img"]
    assert job.record.spec.keep_steps


def test_many_jobs_enter_as_they_come(client: Client) -> None:
    def requests() -> Iterator[Text2Img]:
        for seed in range(1000):
            yield Text2Img(seed=seed, **RED)

    entered = client.submit_many(requests(), labels={"set": "many"})
    first = next(entered)
    there = sum(client.ledger.counts().values())
    assert 1 <= there < 1000  # the rest has not been read yet
    assert [first, *entered][-1].record.spec.steps[0].seed == 999
    assert client.ledger.counts()[State.QUEUED] == 1000
    # Workers pass the word on; Redis never holds an invitation for each job.
    assert broker.waiting(client.broker, "default") < 500


def test_one_wrong_request_among_many_keeps_its_chunk_out_and_names_it(client: Client) -> None:
    with pytest.raises(UnknownModel, match="'dmeo' is not known"):
        list(client.submit_many([Text2Img(**RED), Text2Img(model="dmeo", prompt="")]))
    assert sum(client.ledger.counts().values()) == 0


def test_the_same_key_gives_the_same_job(client: Client) -> None:
    first = client.submit(Text2Img(**RED), key="apple-1")
    assert client.submit(Text2Img(**RED), key="apple-1").id == first.id
    with pytest.raises(KeyConflict, match="apple-1"):
        client.submit(Text2Img(model="demo", prompt="a pear"), key="apple-1")


@pytest.mark.parametrize(
    ("chain", "around", "error", "sentence"),
    [
        ([], {}, InvalidSpec, "a job has 1 to 16"),
        (["a red apple"], {}, InvalidSpec, "steps.0: a Text2Img or an Img2Img, not str"),
        ([Img2Img(**RED)], {}, InvalidSpec, "steps.0.image: the first step"),
        ([Img2Img(image="nowhere.png", **RED)], {}, InvalidImage, "no file 'nowhere.png'"),
        ([Text2Img(**RED), Text2Img(**RED)], {}, InvalidSpec, "text2img can only begin a chain"),
        ([Text2Img(**RED), Img2Img(image=b"", **RED)], {}, InvalidSpec, "steps.1.image"),
        ([Text2Img(model="sd51", prompt="")], {}, UnknownModel, "did you mean sd"),
        ([Text2Img(**RED)], {"priority": 101}, InvalidSpec, "priority: "),
        ([Text2Img(**RED)], {"labels": {"": "x"}}, InvalidSpec, "labels"),
        ([Text2Img(**RED)], {"colour": "red"}, InvalidSpec, "colour: no such field"),
    ],
)
def test_what_is_not_allowed_enters_nothing(
    client: Client, chain: list[Any], around: dict[str, Any], error: type, sentence: str
) -> None:
    with pytest.raises(error) as caught:
        client.submit(chain, **around)
    assert sentence in str(caught.value)
    assert sum(client.ledger.counts().values()) == 0
    assert broker.waiting(client.broker, "default") == 0


def test_a_picture_beyond_the_limit_is_refused(settings: Settings, picture: Path) -> None:
    client = with_settings(settings, max_image_pixels=1000)
    with pytest.raises(InvalidImage, match="64x64 is 4096 pixels, at most 1000 are allowed"):
        client.submit(Img2Img(image=picture, **RED))


def test_without_a_broker_the_job_is_entered_and_a_warning_says_so(settings: Settings) -> None:
    client = with_settings(settings, redis_url=f"redis://:hunter2@{NOBODY}")
    with pytest.warns(UserWarning, match="the job is in the ledger") as caught:
        job = client.submit(Text2Img(**RED))
    assert "hunter2" not in str(caught[0].message)
    assert client.job(job.id).state is State.QUEUED
    with pytest.raises(BrokerUnavailable):
        broker.check(client.broker)


def test_without_a_bucket_nothing_enters(settings: Settings, picture: Path) -> None:
    client = with_settings(settings, s3_endpoint_url=f"http://{NOBODY}")
    with pytest.raises(ObjectsUnavailable, match=NOBODY):
        client.submit(Img2Img(image=picture, **RED))
    assert sum(client.ledger.counts().values()) == 0


def test_without_a_database_there_is_one_clear_error(settings: Settings) -> None:
    client = with_settings(settings, database_url=f"postgresql://mill:hunter2@{NOBODY}/mill")
    with pytest.raises(LedgerUnavailable) as caught:
        client.submit(Text2Img(**RED))
    assert NOBODY in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert broker.waiting(client.broker, "default") == 0


@pytest.mark.parametrize("missing", ["database_url", "redis_url", "s3_endpoint_url", "s3_bucket"])
def test_a_setting_that_is_missing_is_named_before_anything_enters(
    settings: Settings, missing: str
) -> None:
    whole = Client(settings)
    with pytest.raises(NotConfigured, match=f"LATENTMILL_{missing.upper()} is not set"):
        with_settings(settings, **{missing: None}).submit(Text2Img(**RED))
    assert sum(whole.ledger.counts().values()) == 0


def test_several_threads_may_share_a_client(client: Client, picture: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def submit(seed: int) -> str:
        return client.submit(Img2Img(image=picture, seed=seed, **RED)).id

    with warnings.catch_warnings(), ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(submit, range(24)))) == 24
    assert client.ledger.counts()[State.QUEUED] == 24


def test_importing_the_producer_loads_no_engine() -> None:
    code = "import sys, producer, producer.cli; print({'mindspore', 'numpy'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"


def test_a_picture_that_a_url_names_is_brought_to_the_bucket(
    settings: Settings, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    name_hosts(monkeypatch, {"pictures.test": ["127.0.0.1"]})
    client = with_settings(settings, allow_private_urls=("pictures.test",))
    answers = {"/cat": send(picture.read_bytes()), "/text": send(b"no picture")}
    with running_web(answers, certificate) as port:
        site = f"https://pictures.test:{port}"
        job = client.submit(Img2Img(image=f"{site}/cat?sig=secret", **RED))
        with pytest.raises(InvalidImage, match="/text: image: it is none of PNG"):
            client.submit(Img2Img(image=f"{site}/text", **RED))
    assert "secret" not in job.record.spec.model_dump_json()
    key = str(job.record.spec.model_dump()["steps"][0]["image"])
    assert key.startswith("inputs/")
    assert client.objects.get(key) == picture.read_bytes()
    with pytest.raises(InvalidImage, match="not on the public internet"):
        Client(settings).submit(Img2Img(image=f"{site}/cat", **RED))


def test_a_picture_of_another_bucket_is_read_where_the_owner_named_it(
    settings: Settings, picture: Path
) -> None:
    other = Client(Settings.model_validate({**settings.model_dump(), "s3_bucket": "scans"}))
    other.objects.ensure_bucket()
    other.objects.put("batches/x/cat.png", picture.read_bytes(), "image/png")
    request = Img2Img(image="s3://scans/batches/x/cat.png", **RED)
    with pytest.raises(InvalidSpec, match="LATENTMILL_INPUT_BUCKETS can name more"):
        Client(settings).submit(request)
    client = with_settings(settings, input_buckets=("scans",))
    assert client.submit(request).state is State.QUEUED
    for missing in ("s3://scans/batches/x/dog.png", "s3://scans/"):
        with pytest.raises(InvalidImage, match="there is no object 's3://scans/"):
            client.submit(Img2Img(image=missing, **RED))


@pytest.mark.parametrize(
    ("second", "values", "sentence"),
    [
        ("big", {}, "steps.1.model: 'big' is of pool 'large', but the chain's first, 'small'"),
        ("small", {"width": 80}, "steps.1.width: model small allows sides of at most 64"),
        ("small", {"strength": 0.1}, "strength 0.1 of 4 steps leaves no step to run"),
    ],
)
def test_what_a_chain_s_models_do_not_allow_enters_nothing(
    settings: Settings, picture: Path, second: str, values: dict[str, Any], sentence: str
) -> None:
    settings.home.mkdir(exist_ok=True)
    (settings.home / "models.toml").write_text(
        '[small]\nsource = "a/b"\nmax_side = 64\nnum_inference_steps = 4\n'
        '[big]\nsource = "a/b"\npool = "large"\n'
    )
    client = Client(settings)
    chain = [
        Img2Img(model="small", prompt="", image=picture),
        Img2Img(model=second, prompt="", **values),
    ]
    with pytest.raises(InvalidSpec) as caught:
        client.submit(chain)
    assert sentence in str(caught.value)
    large = Image.new("RGB", (100, 64))
    with pytest.raises(InvalidSpec, match=r"steps.0.width: .*at most 64 \(got 96\)"):
        client.submit(Img2Img(model="small", prompt="", image=large))
    assert sum(client.ledger.counts().values()) == 0


def test_pictures_of_pil_are_stored_once(client: Client) -> None:
    image = Image.new("RGB", (16, 16), "red")
    keys = {
        str(client.submit(Img2Img(image=image, **RED)).record.spec.steps[0].image)  # type: ignore[union-attr]
        for _ in range(2)
    }
    assert len(keys) == 1
