"""WebDataset shards: tars of `<key>.png`, `<key>.txt` and `<key>.json`, each with its stats."""

import hashlib
import io
import itertools
import json
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from producer.export.rows import Export, Item, Outcome, describe


def write_webdataset(export: Export, folder: Path) -> Outcome:
    """Write the shards that are not there yet.

    A shard holds the results of `shard_size` rows that follow each other, so that a row is always
    in the same one; a key is the row's number. `_stats.json` is written once a shard is whole.
    """
    outcome = Outcome()
    size = export.shard_size
    for shard, group in itertools.groupby(export.items(), lambda item: item.row.number // size):
        items = list(group)
        stats = folder / f"{shard:05}_stats.json"
        jobs = [item.job.id for item in items]
        if not _is_of(stats, jobs):
            begun = time.monotonic()
            missing = _write(export, folder / f"{shard:05}.tar", items)
            values = {
                "count": len(items),
                "successes": len(items) - len(missing),
                "missing": missing,
                "first_row": shard * size,
                "seconds": round(time.monotonic() - begun, 3),
                "jobs_sha256": _fingerprint(jobs),
            }
            stats.write_text(json.dumps(values, ensure_ascii=False) + "\n", "utf-8")
        else:
            for _ in items:
                export.on_row()
        found = json.loads(stats.read_text("utf-8"))
        outcome.written += found["successes"]
        outcome.missing += found["missing"]
    return outcome


def _write(export: Export, path: Path, items: list[Item]) -> list[str]:
    """One shard, whole or not at all; returns the names of what the bucket has not."""
    part, missing = path.with_suffix(".part"), []
    with tarfile.open(part, "w") as tar:
        for item, data in export.pictures(items):
            if data is None:
                missing.append(item.name)
                continue
            for ending, content in _members(export, item, data):
                member = tarfile.TarInfo(f"{item.row.number:09}.{ending}")
                member.size, member.mtime = len(content), int(item.row.finished_at or 0)
                tar.addfile(member, io.BytesIO(content))
    part.replace(path)
    return missing


def _members(export: Export, item: Item, data: bytes) -> Iterator[tuple[str, bytes]]:
    columns = describe(item.row, item.job)
    about = {"name": item.name, "sha256": hashlib.sha256(data).hexdigest(), **columns}
    yield export.encoding.ending, data
    yield "json", json.dumps(about, ensure_ascii=False).encode()
    yield "txt", str(columns["prompt"] or "").encode()


def _is_of(stats: Path, jobs: list[str]) -> bool:
    """Whether a shard of just these jobs is there."""
    if not stats.is_file():
        return False
    found = json.loads(stats.read_text("utf-8") or "{}")
    return bool(found.get("jobs_sha256") == _fingerprint(jobs))


def _fingerprint(jobs: list[str]) -> str:
    return hashlib.sha256("\n".join(jobs).encode()).hexdigest()
