"""The answers to a file of the OpenAI Batch API: `output.jsonl`, and `errors.jsonl`."""

import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from producer.export.rows import DONE, Export, Item, Outcome
from storage.batch_views import OPEN
from storage.batches import BatchRow
from storage.jobs import Job

OUTPUT, ERRORS = "output.jsonl", "errors.jsonl"

Rows = list[tuple[BatchRow, Job | None]]


def write_openai_batch(export: Export, folder: Path) -> Outcome:
    """A line for each request that has ended: all its pictures, or the first error.

    Requests that have not ended are in neither file. Answers that are there are kept.
    """
    outcome = Outcome()
    files = folder / OUTPUT, folder / ERRORS
    with files[0].open("a+b") as output, files[1].open("w", encoding="utf-8") as errors:
        answered = _answered(output)
        for custom_id, rows in _requests(export):
            if any(row.status in OPEN for row, _ in rows):
                continue
            failed = next((row for row, _ in rows if row.status not in DONE), None)
            if failed is not None:
                errors.write(_line(export, failed, custom_id, None, _error(failed)))
                continue
            outcome.written += len(rows)
            if custom_id in answered:
                for _ in rows:
                    export.on_row()
                continue
            items = [Item(row, job) for row, job in rows if job is not None]
            found = list(export.pictures(items))
            lost = [item.name for item, data in found if data is None]
            if lost:
                outcome.missing += lost
                outcome.written -= len(rows)
                error = {"code": "not_found", "message": f"no result in the bucket: {lost[0]}"}
                errors.write(_line(export, rows[0][0], custom_id, None, error))
                continue
            pictures = [data for _, data in found if data is not None]
            response = _response(export, rows[0][0], pictures)
            output.write(_line(export, rows[0][0], custom_id, response, None).encode())
            output.flush()
    return outcome


def _requests(export: Export) -> Iterator[tuple[str, Rows]]:
    """Each request with its rows: `n` pictures are rows that follow each other."""
    everything = export.rows()
    for entry, rows in itertools.groupby(everything, lambda pair: pair[0].entry or pair[0].place):
        found = list(rows)
        yield str(found[0][0].cells.get("custom_id", entry)), found


def _response(export: Export, row: BatchRow, pictures: list[bytes]) -> dict[str, Any]:
    data = [{"b64_json": base64.b64encode(picture).decode()} for picture in pictures]
    body = {
        "created": int(row.finished_at or 0),
        "output_format": export.encoding.format,
        "data": data,
    }
    return {"status_code": 200, "request_id": row.job_id, "body": body}


def _error(row: BatchRow) -> dict[str, Any]:
    return {"code": row.code or row.status, "message": row.reason or f"the job was {row.status}"}


def _line(
    export: Export, row: BatchRow, custom_id: str, response: dict[str, Any] | None,
    error: dict[str, Any] | None,
) -> str:  # fmt: skip
    values = {
        "id": f"batch_req_{export.batch.id}_{row.number}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    return json.dumps(values, ensure_ascii=False) + "\n"


def _answered(output: IO[bytes]) -> set[str]:
    """The requests whose answers are whole; a last line that was cut short is cut off."""
    found, end = set(), 0
    output.seek(0)
    for line in output:
        if not line.endswith(b"\n"):
            break
        found.add(str(json.loads(line)["custom_id"]))
        end += len(line)
    output.truncate(end)
    return found
