"""Exporting a batch: its results leave in one of the field's forms."""

from collections.abc import Callable
from pathlib import Path

from producer.export.contact_sheets import write_contact_sheets
from producer.export.imagefolder import write_imagefolder
from producer.export.openai_batch import write_openai_batch
from producer.export.parquet import write_parquet
from producer.export.place import whole_file, whole_folder
from producer.export.rows import Export, Outcome
from producer.export.webdataset import write_webdataset
from storage.errors import InvalidSpec

Writer = Callable[[Export, Path], Outcome]
FOLDERS: dict[str, Writer] = {
    "imagefolder": write_imagefolder,
    "webdataset": write_webdataset,
    "openai-batch": write_openai_batch,
    "contact-sheets": write_contact_sheets,
}
FILES: dict[str, Writer] = {"parquet-metadata": write_parquet}
FORMATS = (*FOLDERS, *FILES)


def export_batch(export: Export, out: Path, format: str, force: bool = False) -> Outcome:  # noqa: A002
    """Write a batch to a folder or a file, whole or not at all.

    Broken off, it leaves `<out>.part`, and the same call goes on with it. Raises InvalidSpec for
    what is not allowed and for a place that cannot be written.
    """
    if out.name in ("", ".."):
        raise InvalidSpec(f"output: {str(out)!r}: name a new folder or file")
    if format in FILES:
        with whole_file(out, force) as part:
            return FILES[format](export, part)
    if format not in FOLDERS:
        raise InvalidSpec(f"format: {format!r} is not one of {', '.join(FORMATS)}")
    what = {
        "batch": export.batch.id,
        "format": format,
        "image_format": export.encoding.format,
        "quality": export.encoding.quality,
        "shard_size": export.shard_size if format == "webdataset" else None,
    }
    with whole_folder(out, what, force) as part:
        return FOLDERS[format](export, part)
