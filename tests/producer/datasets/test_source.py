"""Sources: every sample comes out once, as an entry or with the reason why not."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from producer.datasets import BadEntry, Entry, read_source
from storage.errors import InvalidSpec


def png(colour: str = "red") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(data, "PNG")
    return data.getvalue()


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def good(source: Path) -> list[Entry]:
    entries = list(read_source(str(source)))
    assert not [each for each in entries if isinstance(each, BadEntry)]
    return [each for each in entries if isinstance(each, Entry)]


def reasons(source: Path) -> dict[str, str]:
    return {e.place: e.reason for e in read_source(str(source)) if isinstance(e, BadEntry)}


def test_a_folder_gives_its_pictures_with_the_prompts_beside_them(tmp_path: Path) -> None:
    for name in ("b/x.png", "a/x.PNG", "a/z.jpeg", "a/.hidden.png", "a/notes.md", "c.webp"):
        write(tmp_path / name, png())
    write(tmp_path / "a/x.txt", "a cat\n")
    entries = good(tmp_path)
    assert [(e.name, dict(e.values)) for e in entries] == [
        ("a/x", {"prompt": "a cat"}), ("a/z", {}), ("b/x", {}), ("c", {}),
    ]  # fmt: skip
    assert entries[0].picture == tmp_path / "a/x.PNG"
    assert entries[0].place == "a/x.PNG"


def test_a_prompt_that_is_no_text_is_a_bad_entry_and_the_others_go_on(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write(tmp_path / name, png())
    write(tmp_path / "a.txt", b"\xff\xfe\xfa")
    entries = list(read_source(str(tmp_path)))
    assert [type(e) for e in entries] == [BadEntry, Entry]
    assert "its prompt" in reasons(tmp_path)["a.png"]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_metadata_file_stands_for_its_folder(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "train/a.png", png())
    lines = {
        "jsonl": '{"file_name": "train/a.png", "text": "a cat", "n": null}\n',
        "csv": "file_name,text,n\ntrain/a.png,a cat,\n",
    }
    write(tmp_path / f"metadata.{kind}", lines[kind])
    (entry,) = good(tmp_path)
    assert (entry.name, entry.picture) == ("train/a", tmp_path / "train/a.png")
    assert entry.values == {"text": "a cat"}


def test_rows_of_a_csv_that_cannot_be_read_are_named_by_line(tmp_path: Path) -> None:
    text = 'image,prompt\na.png,"two\nlines"\nb.png\n,only a prompt\nc.png,x,y\n'
    file = write(tmp_path / "list.csv", text.encode() + b"d.png,\xff\n\ne.png,\xc3\xa9\n")
    entries = list(read_source(str(file)))
    assert [e.place for e in entries if isinstance(e, Entry)] == [
        "list.csv:2", "list.csv:5", "list.csv:9",
    ]  # fmt: skip
    assert reasons(file) == {
        "list.csv:4": "it has 1 cells, the header 2",
        "list.csv:6": "it has 3 cells, the header 2",
        "list.csv:7": "it is not UTF-8",
    }
    first, second, last = (e for e in entries if isinstance(e, Entry))
    assert first.values == {"prompt": "two\nlines"}
    assert (second.picture, second.name) == (None, "00000002")
    assert last.values == {"prompt": "é"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("", "its first line must name the columns"), ("a,b,a\n1,2,3\n", "columns named twice: a")],
)
def test_a_csv_without_a_header_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InvalidSpec, match=sentence):
        list(read_source(str(write(tmp_path / "list.csv", text))))


def test_lines_of_json_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    lines = [b'{"image": "a.png", "strength": 0.5}', b"", b"{", b"[1]", b'{"image": 7}', b"\xff"]
    file = write(tmp_path / "list.jsonl", b"\n".join(lines))
    (entry,) = (e for e in read_source(str(file)) if isinstance(e, Entry))
    assert entry.values == {"strength": 0.5}
    found = reasons(file)
    assert list(found) == [f"list.jsonl:{n}" for n in (3, 4, 5, 6)]
    assert found["list.jsonl:5"] == "image: it must be a path or a URL"
    assert found["list.jsonl:6"] == "it is not UTF-8"


def test_a_picture_may_be_a_url_and_no_name_leads_out_of_its_folder(tmp_path: Path) -> None:
    lines = ["https://example.org/a/b.png", "s3://bucket/c.png", "../../d.png", "/etc/e.png"]
    text = "".join(json.dumps({"image": line}) + "\n" for line in lines)
    entries = good(write(tmp_path / "list.jsonl", text))
    assert [e.name for e in entries] == ["example.org/a/b", "bucket/c", "d", "etc/e"]
    assert entries[0].picture == lines[0]


def test_parquet_files_give_paths_or_the_bytes_that_they_hold(tmp_path: Path) -> None:
    rows = [
        {"image": {"bytes": png(), "path": "a.png"}, "text": "a cat"},
        {"image": {"bytes": png("blue"), "path": None}, "text": "b"},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    first, second = good(tmp_path / "d.parquet")
    assert (first.name, first.picture, first.values) == ("a", png(), {"text": "a cat"})
    assert (second.name, second.picture) == ("00000001", png("blue"))
    with pytest.raises(InvalidSpec, match="no Parquet file"):
        list(read_source(str(write(tmp_path / "e.parquet", "no"))))


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_shards_group_their_members_by_name(tmp_path: Path) -> None:
    shard(
        tmp_path / "0.tar",
        {
            "a/1.png": png(), "a/1.txt": b"a cat", "a/1.json": b'{"strength": 0.5}',
            "a/2.seg.png": b"", "a/2.jpg": png("blue"), "a/3.json": b"{", "4.txt": b"text only",
        },
    )  # fmt: skip
    shard(tmp_path / "1.tar", {"5.png": png()})
    entries = [e for e in read_source(str(tmp_path)) if isinstance(e, Entry)]
    assert [(e.place, e.name) for e in entries] == [
        ("0.tar:a/1", "a/1"), ("0.tar:a/2", "a/2"), ("0.tar:4", "4"), ("1.tar:5", "5"),
    ]  # fmt: skip
    assert entries[0].values == {"prompt": "a cat", "strength": 0.5}
    assert (entries[0].picture, entries[2].picture) == (png(), None)
    assert "its json" in reasons(tmp_path)["0.tar:a/3"]
    whole = (tmp_path / "1.tar").read_bytes()
    with pytest.raises(InvalidSpec, match="cut short"):
        list(read_source(str(write(tmp_path / "cut.tar", whole[:600]))))


def request(**changes: Any) -> str:
    body = {"model": "demo", "prompt": "a cat", "size": "64x72", "n": 2}
    line = {"custom_id": "r-1", "method": "POST", "url": "/v1/images/generations", "body": body}
    return json.dumps(line | changes) + "\n"


def test_a_file_of_the_openai_batch_api_is_known_by_its_lines(tmp_path: Path) -> None:
    bad = [{"url": "/v1/chat"}, {"body": {"size": "big"}}, {"body": {"quality": 1}}, {"body": 1}]
    bad.append({"body": {"n": 0}})
    text = request() + "".join(request(**change) for change in bad)
    file = write(tmp_path / "batch.jsonl", text)
    (entry,) = (e for e in read_source(str(file)) if isinstance(e, Entry))
    assert (entry.name, entry.copies, entry.is_key) == ("r-1", 2, True)
    assert entry.values == {
        "model": "demo", "prompt": "a cat", "width": 64, "height": 72, "custom_id": "r-1",
    }  # fmt: skip
    found = list(reasons(file).values())
    assert found[0] == "url: '/v1/chat' is none of /v1/images/generations, /v1/images/edits"
    assert [reason.split(":")[0] for reason in found[1:]] == [
        "body.size",
        "body.quality",
        "body",
        "body.n",
    ]


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="there is no file or folder"):
        read_source(str(tmp_path / "nowhere"))
    with pytest.raises(InvalidSpec, match="latentmill img2img"):
        read_source(str(write(tmp_path / "cat.png", png())))
    with pytest.raises(InvalidSpec, match="File name too long"):
        read_source("x" * 300 + ".csv")


def test_what_vanishes_while_it_is_read_is_one_sentence(tmp_path: Path) -> None:
    entries = read_source(str(write(tmp_path / "list.csv", "a\n1\n")))
    (tmp_path / "list.csv").unlink()
    with pytest.raises(InvalidSpec, match=r"list\.csv.*No such file"):
        next(entries)


def test_a_long_table_is_read_row_by_row(tmp_path: Path) -> None:
    file = write(tmp_path / "long.jsonl", '{"image": "a.png"}\n' * 1000 + "{")
    entries = read_source(str(file))
    assert next(entries).place == "long.jsonl:1"
