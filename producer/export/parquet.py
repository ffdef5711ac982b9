"""A Parquet table of a batch: every row with its status, without the pictures."""

from pathlib import Path
from typing import Any

from producer.export.rows import DONE, Export, Outcome, describe
from storage.errors import InvalidSpec, NotConfigured

#: Rows written together.
GROUP = 10_000
_KINDS = {
    "row": "int64", "seed": "int64", "num_inference_steps": "int64", "width": "int64",
    "height": "int64", "prior_num_inference_steps": "int64", "strength": "float64",
    "guidance_scale": "float64", "prior_guidance_scale": "float64", "aesthetic_score": "float64",
    "negative_aesthetic_score": "float64", "seconds": "float64",
}  # fmt: skip


def write_parquet(export: Export, file: Path) -> Outcome:
    """Write the table. Raises NotConfigured where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise NotConfigured(
            "Parquet needs pyarrow, which is not installed: pip install 'latentmill[parquet]'"
        ) from None
    outcome = Outcome()
    schema: Any = None
    writer: Any = None
    group: list[dict[str, Any]] = []

    def flush() -> None:
        nonlocal writer
        writer = writer or parquet.ParquetWriter(file, schema)
        writer.write_table(pyarrow.Table.from_pylist(group, schema))
        group.clear()

    try:
        for row, job in export.rows():
            line = {
                "name": row.name,
                "status": str(row.status),
                "error_code": row.code,
                "error": row.reason,
                **describe(row, job),
            }
            schema = schema or pyarrow.schema([(name, _kind(pyarrow, name)) for name in line])
            group.append(line)
            outcome.written += 1
            if row.status in DONE:
                export.on_row()
            if len(group) >= GROUP:
                flush()
        if group:
            flush()
        if writer is None:
            raise InvalidSpec(f"batch {export.batch.id} has no rows yet")
    finally:
        if writer is not None:
            writer.close()
    return outcome


def _kind(pyarrow: Any, name: str) -> Any:
    if name == "seeds":
        return pyarrow.list_(pyarrow.int64())
    return getattr(pyarrow, _KINDS.get(name, "string"))()
