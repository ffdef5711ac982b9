"""`batch report` and `batch verify`: is all of it there, and is it right?"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from producer.client import Client
from producer.commands.output import AsJson, out, print_json, say
from producer.datasets.account import Account, make_account, write_retry
from producer.datasets.verify import Comparison
from producer.datasets.verify import verify as run_verify
from storage.batches import Batch, Status

Name = Annotated[str, typer.Argument(metavar="BATCH", help="Its id, or the newest of its name.")]


def report(
    batch: Name,
    retry_file: Annotated[
        Path, typer.Option("--retry", help="Rows to submit again are written here, if any.")
    ] = Path("retry.jsonl"),
    as_json: AsJson = False,
) -> None:
    """Account for every row, looking for each result in the bucket.

    Ends with status 1 when a row is unaccounted for: its result or its job is gone, or the
    submission did not end.
    """
    client = Client()
    found = client.batches.find(batch)
    account = make_account(client, found)
    again = write_retry(client, found, retry_file)
    if as_json:
        print_json(_values(found, account, str(retry_file) if again else None))
    else:
        _say(found, account)
        if again:
            say(f"{again:,} rows to submit again, or after mending: {retry_file}")
    raise typer.Exit(0 if account.is_complete else 1)


def verify(
    batch: Name,
    sample: Annotated[int, typer.Option(min=1, help="Rows to run again.")] = 20,
    tolerance: Annotated[
        int, typer.Option(min=0, max=255, help="Allowed difference of a sample, of 255.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Run a sample of the rows that succeeded again, each alone, and compare the pixels.

    Ends with status 1 when one differs by more than the tolerance, or cannot be compared.
    """
    client = Client()
    found = client.batches.find(batch)
    compared, wrong = [], 0
    for each in run_verify(client, found, sample):
        compared.append(each)
        is_right = each.difference is not None and each.difference <= tolerance
        wrong += not is_right
        if as_json:
            print_json(_compared(each))
        else:
            what = each.reason or f"largest difference {each.difference} of 255"
            say(f"{'ok   ' if is_right else 'WRONG'} {each.row.name}: {what}")
    equal = sum(each.difference == 0 for each in compared)
    sentence = f"{len(compared)} run again: {equal} equal in every pixel, {wrong} wrong"
    say(sentence if compared else "no row has succeeded yet", quiet=as_json)
    raise typer.Exit(1 if wrong or not compared else 0)


def _say(batch: Batch, account: Account) -> None:
    statuses = account.counts.statuses
    present = {
        "rows": batch.total if batch.total is not None else account.counts.rows,
        "succeeded": statuses[Status.SUCCEEDED],
        "skipped (there already)": statuses[Status.SKIPPED],
        "failed": statuses[Status.FAILED],
        "canceled": statuses[Status.CANCELED],
        "still open": account.counts.open,
        "unaccounted": account.unaccounted,
    }
    table = Table.grid(padding=(0, 2))
    for name, count in present.items():
        table.add_row(name, f"{count:,}")
    out.print(table, markup=False)
    if account.missing:
        say(f"{account.missing:,} results are not in the bucket, such as:")
        for key in account.missing_keys[:5]:
            say(f"  {key}")
    if account.absent is None:
        say("The submission did not end: submit the same again, and it goes on.")
    if account.first_failed:
        reasons = Table("code", "rows", "the first of them", "its reason", box=None)
        for row in account.first_failed:
            code = row.code or "?"
            reasons.add_row(code, f"{account.counts.codes[code]:,}", row.place, row.reason)
        out.print(reasons, markup=False)


def _values(batch: Batch, account: Account, retry_file: str | None) -> dict[str, Any]:
    statuses = account.counts.statuses
    return {
        "id": batch.id,
        "name": batch.name,
        "total": batch.total,
        "rows": {str(status): statuses[status] for status in Status},
        "failed_by_code": account.counts.codes,
        "missing_results": account.missing,
        "missing_keys": account.missing_keys,
        "unaccounted": account.unaccounted,
        "complete": account.is_complete,
        "retry_file": retry_file,
    }


def _compared(each: Comparison) -> dict[str, Any]:
    return {
        "place": each.row.place,
        "name": each.row.name,
        "job": each.row.job_id,
        "again": each.job_id,
        "difference": each.difference,
        "reason": each.reason,
    }
