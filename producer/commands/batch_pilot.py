"""`batch pilot`: what the rows that ran first look like, and what the others will take."""

import io
from pathlib import Path
from typing import Annotated

import typer

from producer.client import Client
from producer.commands.batch_watch import follow, spelled
from producer.commands.files import write
from producer.commands.output import AsJson, print_json, say
from producer.datasets.pilot import contact_sheet, estimate, pilot_rows
from storage.batches import Batch, Status
from storage.errors import InvalidSpec


def pilot(
    batch: Annotated[
        str, typer.Argument(metavar="BATCH", help="Its id, or the newest of its name.")
    ],
    sheet: Annotated[
        Path | None, typer.Option(help="The contact sheet; else NAME-pilot.png.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Wait for a batch's pilot; then show its contact sheet and what the rest will take."""
    client = Client()
    found = client.batches.find(batch)
    if not found.pilot:
        raise InvalidSpec(f"batch {found.id} has no pilot: give `batch submit` --pilot 8")
    run(client, found, sheet, as_json)


def run(client: Client, batch: Batch, sheet: Path | None, as_json: bool) -> None:
    follow(client, batch, as_json, quiet=True)
    rows = pilot_rows(client, batch)
    picture, file = contact_sheet(client, rows), None
    if picture is not None:
        data = io.BytesIO()
        picture.save(data, "PNG")
        file = write(sheet or Path(f"{batch.name}-pilot.png"), data.getvalue())
    found = estimate(client, batch)
    failed = [row for row in rows if row.status in (Status.FAILED, Status.CANCELED)]
    if as_json:
        print_json(
            {
                "id": batch.id,
                "sheet": str(file) if file else None,
                "succeeded": found.measured,
                "failed": len(failed),
                "held": found.held,
                "pictures_a_second": found.pictures_a_second,
                "seconds": found.seconds,
                "bytes": found.bytes,
            }
        )
        return
    if file is not None:
        say(f"Contact sheet: {file.absolute()}")
    for row in failed:
        say(f"{row.place}: {row.status} ({row.code}): {row.reason}")
    if not found.held:
        say("No row waits.")
        return
    took = "unknown" if found.seconds is None else f"about {spelled(found.seconds)}"
    speed = found.pictures_a_second
    at = f" at {speed:.2g} pictures a second, measured on {found.measured}" if speed else ""
    room = "unknown" if found.bytes is None else f"about {found.bytes / 1e6:,.1f} MB"
    say(f"The other {found.held:,} rows: {took}{at}; {room} in the bucket")
    say(f"Let them run: latentmill batch release {batch.id}")
