"""How fast a batch is exported in each form.

On an embedded stack of its own: SQLite, an S3 server on this machine. `python -m benchmarks.export
--rows 1000`
"""

import argparse
import io
import json
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageFilter

from benchmarks.datasets import running_client
from producer import Client
from producer.datasets import make_recipe, submit_dataset
from producer.export import Encoding, Export, export_batch
from storage.batches import Batch
from storage.jobs import StepRecord
from storage.objects import result_key

FORMS = (
    ("imagefolder", "png"), ("imagefolder", "webp"), ("webdataset", "png"),
    ("openai-batch", "png"), ("contact-sheets", "png"), ("parquet-metadata", "png"),
)  # fmt: skip


def a_png(side: int = 512) -> bytes:
    """A picture about as hard to compress as a photograph."""
    noise = Image.effect_noise((side, side), 60).filter(ImageFilter.GaussianBlur(1.5))
    out = io.BytesIO()
    Image.merge("RGB", [noise, noise.rotate(90), noise.rotate(180)]).save(out, "PNG")
    return out.getvalue()


def make_batch(client: Client, folder: Path, rows: int) -> Batch:
    """A batch whose rows have results, without a device."""
    table = folder / "rows.csv"
    table.write_text("prompt\n" + "".join(f"a red square {number}\n" for number in range(rows)))
    batch = submit_dataset(client, str(table), make_recipe({"model": "demo"}))
    picture = a_png()
    while claim := client.ledger.claim(worker="bench", pool="default", lease_seconds=600):
        key = result_key(claim.job_id, 0, 1)
        client.objects.put(key, picture, "image/png")
        client.ledger.finish_step(claim, StepRecord(index=0, artifact=key))
        client.ledger.succeed(claim)
    return batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name, running_client(Path(name)) as client:
        folder = Path(name)
        batch = make_batch(client, folder, rows)
        size = len(a_png())
        for number, (form, ending) in enumerate(FORMS):
            begun = time.monotonic()
            export = Export(client, batch, Encoding(ending))
            outcome = export_batch(export, folder / f"out{number}", form)
            seconds = time.monotonic() - begun
            found = {
                "format": form, "image_format": ending, "rows": outcome.written,
                "picture_bytes": size, "seconds": round(seconds, 2),
                "rows_a_second": round(outcome.written / seconds),
            }  # fmt: skip
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
