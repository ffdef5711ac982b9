"""Batches taken out: every result under a name of its own, whole, with all that is known of it."""

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from producer import Client
from producer.datasets import make_recipe, submit_dataset
from producer.export import Encoding, Export, Outcome, export_batch
from producer.export.place import MARK, safe_path
from storage.batches import Batch
from storage.errors import InvalidSpec
from storage.jobs import StepRecord
from storage.objects import Objects, result_key
from tests.producer.conftest import Hand, Run

RECIPE: dict[str, Any] = {"model": "demo", "prompt": "an apple", "strength": 0.6}
USED = {"num_inference_steps": 30, "guidance_scale": 4.0, "strength": 0.6}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two pictures of one name in different folders, and one beside them."""
    root = tmp_path / "in"
    for name, color in (("a/x.png", "red"), ("b/x.png", "lime"), ("b/y.png", "blue")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), color).save(root / name)
    return root


def submit(client: Client, source: Path, **changes: Any) -> Batch:
    return submit_dataset(client, str(source), make_recipe({**RECIPE, **changes}))


def work(hand: Hand, count: int) -> None:
    """Do the next jobs as a worker does; each makes a picture of its own."""
    for number in range(count):
        claim = hand.claim()
        text = PngInfo()
        text.add_text("parameters", f"an äpple\nSeed: {number}")
        picture = io.BytesIO()
        Image.new("RGB", (32, 16), (number, 7, 7)).save(picture, "PNG", pnginfo=text)
        key = result_key(claim.job_id, 0, 1)
        hand.objects.put(key, picture.getvalue(), "image/png")
        details = {
            "options": USED, "scheduler": "DDIMScheduler", "width": 32, "height": 16,
            "seconds": 0.5, "input": getattr(claim.spec.steps[0], "image", None),
        }  # fmt: skip
        hand.ledger.finish_step(claim, StepRecord(index=0, artifact=key, details=details))
        hand.ledger.succeed(claim)


@pytest.fixture
def batch(client: Client, hand: Hand, source: Path) -> Batch:
    """Three rows with results, and a fourth that could not become a job."""
    (source / "z.png").write_bytes(b"broken")
    made = submit(client, source)
    work(hand, 3)
    return made


Exported = Callable[..., Outcome]


@pytest.fixture
def export(client: Client, batch: Batch) -> Exported:
    def export(out: Path, format: str = "imagefolder", force: bool = False, **options: Any) -> Any:  # noqa: A002
        return export_batch(Export(client, batch, **options), out, format, force)

    return export


def files(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != MARK)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_a_folder_has_the_tree_of_the_inputs_and_a_line_for_each_picture(
    export: Exported, client: Client, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert export(out) == Outcome(written=3)
    assert files(out) == ["a/x.png", "b/x.png", "b/y.png", "metadata.jsonl"]
    assert list(tmp_path.glob("out.*")) == []
    told = lines(out / "metadata.jsonl")
    assert [line["file_name"] for line in told] == ["a/x.png", "b/x.png", "b/y.png"]
    for line in told:
        data = (out / line["file_name"]).read_bytes()
        assert line["sha256"] == hashlib.sha256(data).hexdigest()
        assert data == client.objects.get(line["artifact"])
        input_file = source / line["input_file"]
        assert line["input_sha256"] == hashlib.sha256(input_file.read_bytes()).hexdigest()
        assert line["seeds"] == [line["seed"]]
        assert json.loads(line["spec"])["steps"][0]["prompt"] == line["prompt"] == "an apple"
        found = {name: line[name] for name in (*USED, "scheduler", "width", "height")}
        assert found == {**USED, "scheduler": "DDIMScheduler", "width": 32, "height": 16}
    assert len({frozenset(line) for line in told}) == 1


@pytest.mark.parametrize(("form", "ending"), [("jpeg", "jpg"), ("webp", "webp")])
def test_other_formats_keep_the_parameters_and_obey_the_quality(
    export: Exported, tmp_path: Path, form: str, ending: str
) -> None:
    export(tmp_path / "out", encoding=Encoding(form, 40))
    file = tmp_path / "out" / "a" / f"x.{ending}"
    with Image.open(file) as image:
        assert (image.format, image.size) == (form.upper(), (32, 16))
        comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment.removeprefix(b"UNICODE\0").decode("utf-16-be").startswith("an äpple\nSeed: ")
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(noise, "PNG")
    sizes = [len(Encoding(form, quality).encode(noise.getvalue())) for quality in (10, 50, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 2


class Breaks(Exception):
    """The process ends here."""


def test_broken_off_it_goes_on_where_it_was(
    export: Exported, objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, fetched = tmp_path / "out", []
    get = Objects.get

    def note(self: Objects, key: str) -> bytes:
        fetched.append(key)
        return get(self, key)

    monkeypatch.setattr(Objects, "get", note)
    seen = iter([None, None])

    def breaks() -> None:
        if next(seen, Breaks) is Breaks:
            raise Breaks

    with pytest.raises(Breaks):
        export(out, on_row=breaks)
    assert not out.exists()
    assert len(list((tmp_path / "out.part").rglob("*.png"))) == 2
    fetched.clear()
    assert export(out) == Outcome(written=3)
    assert len(fetched) == 1
    assert len(lines(out / "metadata.jsonl")) == 3
    assert files(out) == ["a/x.png", "b/x.png", "b/y.png", "metadata.jsonl"]


def test_what_was_begun_in_another_format_is_begun_again(export: Exported, tmp_path: Path) -> None:
    def breaks() -> None:
        raise Breaks

    with pytest.raises(Breaks):
        export(tmp_path / "out", on_row=breaks)
    export(tmp_path / "out", encoding=Encoding("jpeg"))
    assert files(tmp_path / "out") == ["a/x.jpg", "b/x.jpg", "b/y.jpg", "metadata.jsonl"]


def test_only_an_export_is_ever_replaced_and_only_by_force(
    export: Exported, tmp_path: Path
) -> None:
    out, mine = tmp_path / "out", tmp_path / "mine"
    export(out)
    with pytest.raises(InvalidSpec, match="is there already; --force replaces an export"):
        export(out)
    (out / "stray.txt").touch()
    export(out, force=True)
    assert "stray.txt" not in files(out)
    mine.mkdir()
    export(mine)  # an empty folder is as good as none
    for folder in (tmp_path / "other", tmp_path / "next.part"):
        folder.mkdir()
        (folder / "letter.txt").write_text("mine")
    with pytest.raises(InvalidSpec, match="is no export: it is not replaced"):
        export(tmp_path / "other", force=True)
    with pytest.raises(InvalidSpec, match=r"next.part' is there and no export: move it away"):
        export(tmp_path / "next", force=True)
    assert (tmp_path / "other" / "letter.txt").read_text() == "mine"


def test_a_result_that_is_gone_is_told_and_the_others_are_written(
    export: Exported, client: Client, batch: Batch, tmp_path: Path
) -> None:
    row = client.batches.rows(batch.id)[1]
    client.objects.delete(row.artifact or "")
    for form in ("imagefolder", "webdataset", "contact-sheets"):
        assert export(tmp_path / form, form) == Outcome(written=2, missing=["b/x"])
    assert export(tmp_path / "answers", "openai-batch") == Outcome(written=2, missing=["b/x"])


def test_shards_hold_a_sample_of_three_files_for_each_row(export: Exported, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export(out, "webdataset", shard_size=2) == Outcome(written=3)
    assert files(out) == ["00000.tar", "00000_stats.json", "00001.tar", "00001_stats.json"]
    with tarfile.open(out / "00000.tar") as tar:
        names = tar.getnames()
        about = json.load(tar.extractfile("000000001.json"))  # type: ignore[arg-type]
        picture = tar.extractfile("000000001.png").read()  # type: ignore[union-attr]
        assert tar.extractfile("000000001.txt").read() == b"an apple"  # type: ignore[union-attr]
    ends = ("png", "json", "txt")
    assert names == [f"00000000{number}.{end}" for number in (0, 1) for end in ends]
    assert (about["name"], about["sha256"]) == ("b/x", hashlib.sha256(picture).hexdigest())
    stats = json.loads((out / "00000_stats.json").read_text())
    assert (stats["count"], stats["successes"], stats["first_row"]) == (2, 2, 0)


def test_a_shard_that_is_whole_is_not_made_again(
    export: Exported, client: Client, batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = iter([None, None])

    def breaks() -> None:
        if next(seen, Breaks) is Breaks:
            raise Breaks

    with pytest.raises(Breaks):
        export(tmp_path / "out", "webdataset", shard_size=2, on_row=breaks)
    first = client.batches.rows(batch.id)[0]
    client.objects.delete(first.artifact or "")  # it is in its shard already
    assert export(tmp_path / "out", "webdataset", shard_size=2) == Outcome(written=3)


def test_a_table_has_every_row_with_its_status(export: Exported, tmp_path: Path) -> None:
    assert export(tmp_path / "rows.parquet", "parquet-metadata") == Outcome(written=4)
    table = pyarrow.parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [row["status"] for row in table] == ["succeeded"] * 3 + ["failed"]
    assert table[3]["error_code"] == "invalid_image"
    assert [row["strength"] for row in table] == [0.6] * 3 + [None]
    with pytest.raises(InvalidSpec, match="is there already"):
        export(tmp_path / "rows.parquet", "parquet-metadata")


def test_requests_are_answered_with_all_their_pictures_or_an_error(
    client: Client, hand: Hand, tmp_path: Path
) -> None:
    def request(custom_id: str, **body: Any) -> str:
        body = {"model": "demo", "prompt": f"an apple, {custom_id}", **body}
        url = "/v1/images/generations"
        return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})

    requests = [request("one"), request("two", n=2), request("bad", size="huge"), request("open")]
    file = tmp_path / "requests.jsonl"
    file.write_text("\n".join(requests))
    batch = submit(client, file)
    work(hand, 3)
    out = tmp_path / "out"
    made = export_batch(Export(client, batch), out, "openai-batch")
    assert made == Outcome(written=3)
    answers, errors = lines(out / "output.jsonl"), lines(out / "errors.jsonl")
    assert [answer["custom_id"] for answer in answers] == ["one", "two"]
    assert [len(answer["response"]["body"]["data"]) for answer in answers] == [1, 2]
    assert all(answer["response"]["status_code"] == 200 for answer in answers)
    picture = base64.b64decode(answers[1]["response"]["body"]["data"][1]["b64_json"])
    with Image.open(io.BytesIO(picture)) as image:
        assert image.getpixel((0, 0)) == (2, 7, 7)
    (error,) = errors
    assert (error["custom_id"], error["response"]) == ("bad", None)
    assert "huge" in error["error"]["message"]


def test_answers_go_on_after_one_that_was_cut_short(export: Exported, tmp_path: Path) -> None:
    seen = iter([None, None])

    def breaks() -> None:
        if next(seen, Breaks) is Breaks:
            raise Breaks

    with pytest.raises(Breaks):
        export(tmp_path / "out", "openai-batch", on_row=breaks)
    begun = tmp_path / "out.part" / "output.jsonl"
    assert len(lines(begun)) == 2
    with begun.open("a") as file:
        file.write('{"custom_id": "b/')
    assert export(tmp_path / "out", "openai-batch") == Outcome(written=3)
    found = lines(tmp_path / "out" / "output.jsonl")
    assert [line["custom_id"] for line in found] == ["a/x", "b/x", "b/y"]


def test_sheets_show_the_pictures_with_their_names(export: Exported, tmp_path: Path) -> None:
    assert export(tmp_path / "out", "contact-sheets") == Outcome(written=3)
    assert files(tmp_path / "out") == ["0000.jpg"]
    with Image.open(tmp_path / "out" / "0000.jpg") as sheet:
        assert sheet.width > 8 * 192


def test_variants_have_names_of_their_own(
    client: Client, hand: Hand, source: Path, tmp_path: Path
) -> None:
    batch = submit(client, source, variants={"strength": [0.4, 0.8]})
    work(hand, 6)
    export_batch(Export(client, batch), tmp_path / "out", "imagefolder")
    told = lines(tmp_path / "out" / "metadata.jsonl")
    assert len({line["file_name"] for line in told}) == 6
    assert "a/x.strength-0.4.png" in files(tmp_path / "out")
    assert len({json.loads(line["spec"])["steps"][0]["strength"] for line in told}) == 2


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a/b", "a/b"),
        ("../../etc/passwd", "__/__/etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("a/./b\\..\\c", "a/_/b/__/c"),
        (".hidden", "_hidden"),
        ("a\0b\nc", "a_b_c"),
        ("", "_"),
        ("ü" * 200, "ü" * 100),
    ],
)
def test_no_name_leads_out_of_the_folder(name: str, path: str) -> None:
    assert safe_path(name) == path


def test_names_that_only_differ_where_file_systems_do_not_get_numbers(
    client: Client, hand: Hand, tmp_path: Path
) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for name, color in (("Cat.png", "red"), ("cat.png", "lime")):
        Image.new("RGB", (64, 64), color).save(root / name)
    batch = submit(client, root)
    work(hand, 2)
    export_batch(Export(client, batch), tmp_path / "out", "imagefolder")
    assert files(tmp_path / "out") == ["Cat.png", "cat-1.png", "metadata.jsonl"]


def test_the_command_says_what_it_wrote_and_what_has_no_result(
    run: Run, batch: Batch, client: Client
) -> None:
    ended = run("batch", "export", batch.name, "out", "--image-format", "webp", "--quality", 80)
    assert (ended.status, ended.out) == (0, "out: 3 of 4 rows; without a result: 1\n")
    said = json.loads(run("batch", "export", batch.id, "shards", "--format", "webdataset",
                          "--json").out)  # fmt: skip
    assert (said["written"], said["without_result"], said["not_ended"]) == (3, 1, 0)
    client.objects.delete(client.batches.rows(batch.id)[0].artifact or "")
    gone = run("batch", "export", batch.id, "less")
    assert gone.status == 1
    assert "1 results are not in the bucket: a/x" in gone.err


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (["--image-format", "gif"], 2, "image_format: 'gif' is not one of png, jpeg, webp"),
        (["--quality", "90"], 2, "quality: PNG loses nothing"),
        (["--image-format", "jpeg", "--quality", "0"], 2, "quality: 0 is not from 1 to 100"),
        (["--format", "zip"], 2, "format: 'zip' is not one of imagefolder, webdataset"),
        (["--shard-size", "0"], 2, "Invalid value for '--shard-size'"),
    ],
)
def test_what_is_not_allowed_is_one_sentence(
    run: Run, batch: Batch, options: list[str], status: int, sentence: str
) -> None:
    ended = run("batch", "export", batch.id, "out", *options)
    assert ended.status == status
    assert sentence in " ".join(ended.err.split())
    assert not Path("out").exists()
    assert run("batch", "export", "nothing", "out").status == 4


@pytest.mark.parametrize("place", [".", "..", "/"])
def test_a_place_must_have_a_name(export: Exported, place: str) -> None:
    with pytest.raises(InvalidSpec, match="name a new folder or file"):
        export(Path(place), force=True)


def test_a_batch_without_rows_makes_no_table(client: Client, tmp_path: Path) -> None:
    batch = client.batches.create(name="empty", source="nowhere", recipe={})
    with pytest.raises(InvalidSpec, match="has no rows yet"):
        export_batch(Export(client, batch), tmp_path / "rows.parquet", "parquet-metadata")
    assert list(tmp_path.glob("*.parquet*")) == []
