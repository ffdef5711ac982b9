"""`batch watch`: a live table of a batch."""

import sys
import time
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.live import Live
from rich.table import Table

from producer.client import Client
from producer.commands.output import AsJson, err, print_json, say
from producer.datasets.speed import seconds_left, speed_now
from storage.batches import Batch, Counts, Status
from storage.jobs import Worker

#: Seconds between looks; where a look itself takes long, so many times as long.
PAUSE, TIMES = 1.0, 10
STILL = (Status.QUEUED, Status.RUNNING)
#: Seconds without a new row, after which a submission that did not end counts as broken off.
GIVEN_UP = 30.0


def watch(
    batch: Annotated[
        str, typer.Argument(metavar="BATCH", help="Its id, or the newest of its name.")
    ],
    as_json: AsJson = False,
) -> None:
    """Watch a batch until nothing of it runs or waits for a worker. Ctrl-C leaves it running.

    Ends with status 1 when rows failed or were canceled.
    """
    client = Client()
    found = client.batches.find(batch)
    counts = follow(client, found, as_json)
    if not as_json:
        say(_sentence(found, counts))
    bad = sum(counts.statuses[s] for s in (Status.FAILED, Status.CANCELED, Status.LOST))
    raise typer.Exit(1 if bad else 0)


def follow(client: Client, batch: Batch, as_json: bool, quiet: bool = False) -> Counts:
    """Show a batch until nothing of it is queued or runs; returns what has become of it."""
    rows, since = -1, 0.0
    try:
        with Live(console=err, auto_refresh=False, transient=False) as live:
            while True:
                begun = time.monotonic()
                counts = client.batches.counts(batch.id)
                workers = client.ledger.workers()
                if counts.rows != rows:
                    rows, since = counts.rows, begun
                # What waits for a release is not waited for.
                is_all = batch.submitted_at is not None or begun - since > GIVEN_UP
                is_over = is_all and not sum(counts.statuses[s] for s in STILL)
                if as_json and not quiet:
                    print_json(_values(batch, counts, workers))
                elif not as_json and (err.is_terminal or is_over):
                    live.update(_table(batch, counts, workers), refresh=True)
                if is_over:
                    return counts
                time.sleep(max(PAUSE, TIMES * (time.monotonic() - begun)))
                batch = client.batches.find(batch.id)
    except KeyboardInterrupt:
        say_on = f"\nThe batch goes on. Watch it again with: latentmill batch watch {batch.id}"
        err.print(say_on, highlight=False, soft_wrap=True)
        sys.exit(130)


def _values(batch: Batch, counts: Counts, workers: list[Worker]) -> dict[str, Any]:
    left = seconds_left(counts)
    return {
        "id": batch.id,
        "rows": {str(status): counts.statuses[status] for status in Status},
        "failed_by_code": counts.codes,
        "pictures_a_second": round(speed_now(counts), 3),
        "seconds_left": None if left is None else round(left),
        "workers": [{"name": w.name, "device": w.device, "slots": w.slots} for w in workers],
    }


def _table(batch: Batch, counts: Counts, workers: list[Worker]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    done = counts.statuses[Status.SUCCEEDED] + counts.statuses[Status.SKIPPED]
    total = batch.total if batch.total is not None else counts.rows
    share = f" ({100 * done / total:.1f} %)" if total else ""
    table.add_row("batch", f"{batch.name} ({batch.id})")
    table.add_row("done", f"{done:,} of {total:,}{share}")
    if skipped := counts.statuses[Status.SKIPPED]:
        table.add_row("", f"{skipped:,} of them were there already")
    for status in (Status.RUNNING, Status.QUEUED, Status.HELD, Status.CANCELED, Status.LOST):
        if count := counts.statuses[status]:
            table.add_row(str(status), f"{count:,}")
    if failed := counts.statuses[Status.FAILED]:
        codes = ", ".join(f"{code} {count:,}" for code, count in sorted(counts.codes.items()))
        table.add_row("failed", f"{failed:,}: {codes}")
    table.add_row("speed", f"{speed_now(counts):.2f} pictures a second in the last minute")
    left = seconds_left(counts)
    waits = sum(counts.statuses[s] for s in STILL)
    if waits:
        table.add_row("time left", "unknown" if left is None else spelled(left))
    if workers:
        devices = ", ".join(f"{worker.device} ({worker.name})" for worker in workers)
        table.add_row("devices", devices)
    elif waits:
        table.add_row("devices", "no worker has reported: start one with `latentmill worker`")
    if batch.submitted_at is None:
        table.add_row("rows", "still coming in, unless the submission was broken off")
    return table


def spelled(seconds: float) -> str:
    """A duration for people: 1:02:03."""
    return str(timedelta(seconds=round(seconds)))


def _sentence(batch: Batch, counts: Counts) -> str:
    if held := counts.statuses[Status.HELD]:
        return f"{held:,} rows wait: latentmill batch release {batch.id}"
    return f"Nothing runs any more. The account: latentmill batch report {batch.id}"
