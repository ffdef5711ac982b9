"""A folder of pictures in the tree of the inputs, with `metadata.jsonl`: an HF imagefolder."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from producer.export.journal import Journal
from producer.export.place import safe_path
from producer.export.rows import Export, Item, Outcome, describe
from producer.job import write_whole

METADATA = "metadata.jsonl"


def write_imagefolder(export: Export, folder: Path) -> Outcome:
    """Write what is not there yet, then `metadata.jsonl` with a line for each picture."""
    journal, outcome = Journal(folder), Outcome()

    def wanted() -> Iterator[Item]:
        for item in export.items():
            if journal.written(item.row.number, item.job.id):
                outcome.written += 1
                export.on_row()
            else:
                yield item

    try:
        for item, data in export.pictures(wanted()):
            if data is None:
                outcome.missing.append(item.name)
                continue
            number = item.row.number
            name = journal.name(number, safe_path(item.name), export.encoding.ending)
            write_whole(folder / name, data)
            line = {"file_name": name, "sha256": hashlib.sha256(data).hexdigest()}
            journal.note(number, item.job.id, line | describe(item.row, item.job))
            outcome.written += 1
        with (folder / METADATA).open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in journal.lines())
    except BaseException:
        journal.close()
        raise
    journal.remove()
    return outcome
