"""How fast datasets are submitted: rows with inputs in S3, and local files.

On an embedded stack of its own: SQLite with `synchronous=FULL`, an S3 server on this machine.
`python -m benchmarks.datasets --rows 100000 --objects 10000 --files 10000`
"""

import argparse
import gc
import io
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from producer import Client
from producer.datasets import make_recipe, submit_dataset
from storage.batches import Batch
from storage.embedded.seaweed import running_seaweed
from storage.embedded.valkey import running_valkey
from storage.ledger import Ledger
from storage.settings import Settings

SHARED = {"model": "demo", "strength": 0.6}
RECIPES = {
    True: make_recipe({**SHARED, "prompt": "{prompt}, comic style"}),
    False: make_recipe({**SHARED, "prompt": "red apple, comic style"}),
}
#: This process, and those of its own that have ended: the one that rows enter by.
WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


@contextmanager
def running_client(folder: Path) -> Iterator[Client]:
    url = f"sqlite:///{folder / 'ledger.sqlite3'}"
    ledger = Ledger.open(url)
    ledger.upgrade()
    ledger.close()
    with (
        running_seaweed(folder / "s3", folder / "s3.log") as s3,
        running_valkey(folder / "valkey", folder / "valkey.log") as valkey,
    ):
        client = Client(Settings(database_url=url, **valkey, **s3))
        yield client
        client.ledger.close()


def table(folder: Path, bucket: str, rows: int) -> Path:
    """A table that names pictures in S3; nobody looks at them before they run."""
    file = folder / "rows.jsonl"
    with file.open("w") as out:
        for number in range(rows):
            image = f"s3://{bucket}/incoming/{number:08}.jpg"
            line = {"image": image, "prompt": f"apple number {number}"}
            out.write(json.dumps(line) + "\n")
    return file


def objects(client: Client, count: int) -> str:
    """So many objects below a prefix, all of one small picture with a few bytes of its own."""
    data = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(data, "JPEG")

    def put(number: int) -> None:
        own = data.getvalue() + number.to_bytes(4)
        client.objects.put(f"batches/incoming/{number:08}.jpg", own, "image/jpeg")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(count)))
    return f"s3://{client.settings.s3_bucket}/batches/incoming/"


def files(folder: Path, count: int, side: int) -> Path:
    """JPEG files of noise over a gradient, about as large as photographs of their size."""
    root = folder / "files"
    for number in range(count):
        random = np.random.default_rng(number)
        small = random.integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
        path = root / f"{number // 1000:03}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90)
        path.with_suffix(".txt").write_text(f"apple number {number}")
    return root


def cpu() -> float:
    used = [resource.getrusage(who) for who in WHO]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(work: Callable[[], Batch]) -> dict[str, Any]:
    """What it cost this process and those of its own; the servers' CPU time is not in it."""
    begun, used = time.monotonic(), cpu()
    batch = work()
    seconds = time.monotonic() - begun
    most = sum(resource.getrusage(who).ru_maxrss for who in WHO) / 1024
    assert batch.total is not None
    return {
        "rows": batch.total,
        "seconds": round(seconds, 2),
        "cpu": round(cpu() - used, 2),
        "rows_a_second": round(batch.total / seconds),
        "mb": round(most),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--objects", type=int, default=0)
    parser.add_argument("--side", type=int, default=512)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="latentmill-bench-") as place,
        running_client(Path(place)) as client,
    ):
        folder, bucket = Path(place), str(client.settings.s3_bucket)
        sources: dict[str, Path | str] = {}
        if options.rows:
            sources["a table of objects in S3"] = table(folder, bucket, options.rows)
        if options.objects:
            sources["a prefix of S3"] = objects(client, options.objects)
        if options.files:
            sources["local files"] = files(folder, options.files, options.side)
        gc.freeze()  # as the command does
        for name, source in sources.items():
            for what in (name, f"{name}, again"):
                recipe = RECIPES[isinstance(source, Path)]
                found = measure(lambda: submit_dataset(client, str(source), recipe))  # noqa: B023
                print(json.dumps({"what": what, **found}), file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()
