"""`batch export`: the results of a batch, as a dataset."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from producer.client import Client
from producer.commands.output import AsJson, err, print_json, say
from producer.export import FORMATS, Encoding, Export, export_batch
from producer.export.rows import DONE
from storage.batch_views import OPEN


def export(
    batch: Annotated[
        str, typer.Argument(metavar="BATCH", help="Its id, the beginning of it, or its name.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="A folder; for Parquet, a file.")],
    form: Annotated[
        str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")
    ] = "imagefolder",
    image_format: Annotated[
        str, typer.Option("--image-format", help="png, as they are stored; jpeg or webp.")
    ] = "png",
    quality: Annotated[
        int | None, typer.Option(help="Of jpeg and webp: 1 to 100. Default: 90.")
    ] = None,
    shard_size: Annotated[
        int, typer.Option("--shard-size", min=1, help="Rows in each WebDataset shard.")
    ] = 1000,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the results of a batch as a dataset. Broken off, the same command goes on."""
    encoding = Encoding(image_format, quality)
    client = Client()
    found = client.batches.find(batch)
    counts = client.batches.counts(found.id)
    done = sum(counts.statuses[status] for status in DONE)
    bars = Progress(
        TextColumn("export"), BarColumn(bar_width=30), MofNCompleteColumn(),
        TimeRemainingColumn(compact=True), console=err, disable=as_json,
    )  # fmt: skip
    with bars:
        bar = bars.add_task("", total=done)
        outcome = export_batch(
            Export(client, found, encoding, shard_size, lambda: bars.advance(bar)),
            output, form, force,
        )  # fmt: skip
    still = sum(counts.statuses[status] for status in OPEN)
    without = counts.rows - done - still
    if as_json:
        print_json({
            "batch": found.id, "output": str(output), "format": form,
            "written": outcome.written, "without_result": without, "not_ended": still,
            "missing": outcome.missing,
        })  # fmt: skip
    else:
        say(f"{output}: {outcome.written} of {counts.rows} rows; without a result: {without}")
        if still:
            say(f"Not ended yet: {still}; export again when they have")
    if outcome.missing:
        lost = ", ".join(outcome.missing[:5])
        err.print(
            f"latentmill: {len(outcome.missing)} results are not in the bucket: {lost}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
        raise typer.Exit(1)
