"""`batch`: whole datasets: submit, release, list, show, cancel, retry."""

import gc
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from producer.client import Client
from producer.commands import batch_pilot, batch_report, batch_watch, export
from producer.commands.output import AsJson, err, out, print_json, say, warnings_as_lines
from producer.datasets.again import retry_batch
from producer.datasets.preflight import Findings, check_dataset
from producer.datasets.recipe import Recipe, read_recipe
from producer.datasets.submit import Progress, submit_dataset
from producer.description import when
from storage.batches import Batch, Counts, Status

#: Sizes of results that are worth a word: each is compiled for itself.
MANY_SIZES = 8

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.command()(batch_watch.watch)
app.command()(batch_pilot.pilot)
app.command()(batch_report.report)
app.command()(batch_report.verify)
app.command()(export.export)

Name = Annotated[str, typer.Argument(metavar="BATCH", help="Its id, or the newest of its name.")]


@app.command()
def submit(
    source: Annotated[
        str, typer.Argument(help="A folder, a table, WebDataset shards, or any of them in s3://.")
    ],
    recipe: Annotated[Path, typer.Option("--recipe", "-r", help="What the rows share: YAML.")],
    name: Annotated[str | None, typer.Option(help="What to call it; else as the source.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check every row.")] = False,
    bad: Annotated[
        Path, typer.Option(help="Where --dry-run writes the rows that cannot become jobs.")
    ] = Path("bad.jsonl"),
    pilot: Annotated[
        int, typer.Option(min=0, max=1000, help="Rows that run first; the others wait.")
    ] = 0,
    sheet: Annotated[
        Path | None, typer.Option(help="The pilot's contact sheet; else NAME-pilot.png.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a dataset: a job for each row, and what an equal row has done is not done again."""
    read = read_recipe(recipe)
    client = Client()
    if dry_run:
        raise typer.Exit(_check(client, source, read, bad, as_json))
    gc.freeze()  # what is there stays: to look through it again and again costs a fifth of the time
    with warnings_as_lines(), _bar(as_json) as bar:
        row = bar.add_task("", total=None)

        def show(progress: Progress) -> None:
            bar.update(row, description=f"{progress.rows:,} rows: {_outcomes(progress.outcomes)}")

        try:
            batch = submit_dataset(client, source, read, name=name, pilot=pilot, on_progress=show)
        except KeyboardInterrupt:
            err.print("\nBroken off: the rows so far run. Submit the same again, and it goes on.")
            raise typer.Exit(130) from None
    counts = client.batches.counts(batch.id)
    if as_json:
        print_json(as_values(batch, counts))
    else:
        say(f"Batch {batch.id} ({batch.name}): {described(counts)}")
        if counts.codes:
            say(f"Why rows failed: latentmill batch report {batch.id}")
    if batch.pilot:
        batch_pilot.run(client, batch, sheet, as_json)
    elif not as_json:
        watch = f"Watch it: latentmill batch watch {batch.id}"
        say(watch if counts.open else "Nothing is left to run.")
    raise typer.Exit(1 if counts.rows == counts.statuses[Status.FAILED] else 0)


@app.command()
def release(batch: Name, as_json: AsJson = False) -> None:
    """Let the rows run that a pilot held back."""
    client = Client()
    found = client.batches.find(batch)
    released = client.batches.release(found.id)
    if as_json:
        print_json({"id": found.id, "released": released})
    else:
        say(f"{released} rows may run now" if released else "no row was held back")


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List batches, newest first."""
    client = Client()
    found = [(b, client.batches.counts(b.id)) for b in client.batches.newest(limit)]
    if as_json:
        for each, counts in found:
            print_json(as_values(each, counts))
        return
    columns = [Column("id", no_wrap=True, min_width=26), Column("created (UTC)", no_wrap=True)]
    table = Table(*columns, "rows", "what became of them", "name", box=None)
    for each, counts in found:
        created = (when(each.created_at) or "")[:16].replace("T", " ")
        table.add_row(each.id, created, str(counts.rows), _states(counts), each.name)
    out.print(table, markup=False)


@app.command()
def show(batch: Name, as_json: AsJson = False) -> None:
    """Tell about one batch: its source, its recipe, and what has become of its rows."""
    client = Client()
    found = client.batches.find(batch)
    values = as_values(found, client.batches.counts(found.id))
    if as_json:
        print_json(values)
        return
    table = Table.grid(padding=(0, 2))
    for name, value in values.items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
        table.add_row(name, str(text if value not in (None, [], {}) else "-"))
    out.print(table, markup=False)


@app.command()
def cancel(batch: Name, as_json: AsJson = False) -> None:
    """End the jobs that a batch made run: at once, or at their next step boundary.

    Jobs of earlier batches, which its rows only refer to, go on.
    """
    client = Client()
    found = client.batches.find(batch)
    counts = Counter(each.outcome for each in client.cancel(batch=found.id))
    if as_json:
        print_json({"id": found.id, **counts})
        return
    say(
        f"{counts['canceled']} canceled; {counts['leaving']} run and leave at their next step"
        " boundary"
    )


@app.command()
def retry(
    batch: Name,
    code: Annotated[str | None, typer.Option(help="Only those with this error code.")] = None,
    as_json: AsJson = False,
) -> None:
    """Queue a batch's failed and canceled jobs again. Rows that never became jobs need `submit`."""
    client = Client()
    found = client.batches.find(batch)
    queued = retry_batch(client, found.id, code)
    if as_json:
        print_json({"id": found.id, "queued": queued})
    else:
        say(f"{queued} queued again")


def as_values(batch: Batch, counts: Counts) -> dict[str, Any]:
    """All that is known about a batch, under stable names."""
    return {
        "id": batch.id,
        "name": batch.name,
        "source": batch.source,
        "recipe": batch.recipe,
        "created_at": when(batch.created_at),
        "submitted_at": when(batch.submitted_at),
        "held": batch.held,
        "pilot": list(batch.pilot),
        "total": batch.total,
        "rows": {str(status): counts.statuses[status] for status in Status},
        "failed_by_code": counts.codes,
    }


def described(counts: Counts) -> str:
    return f"{counts.rows:,} rows: {_states(counts)}"


def _states(counts: Counts) -> str:
    some = [f"{count:,} {status}" for status, count in counts.statuses.items() if count]
    return ", ".join(some) or "none"


def _outcomes(outcomes: Counter[str]) -> str:
    names = {"job": "jobs", "skipped": "there already", "failed": "bad"}
    return ", ".join(f"{outcomes[key]:,} {name}" for key, name in names.items() if outcomes[key])


def _bar(quiet: bool) -> Bar:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Bar(*columns, console=err, disable=quiet, transient=True)


def _check(client: Client, source: str, recipe: Recipe, bad: Path, as_json: bool) -> int:
    """The dry run; returns its exit status."""
    with _bar(as_json) as bar:
        row = bar.add_task("", total=None)

        def show(found: Findings) -> None:
            bar.update(row, description=f"{found.rows:,} rows, {found.bad:,} bad")

        found = check_dataset(client, source, recipe, bad, show)
    if as_json:
        print_json(
            {
                "rows": found.rows,
                "done": found.done,
                "jobs": dict(found.kinds),
                "bad": found.bad,
                "bad_by_code": dict(found.codes),
                "bad_file": str(bad) if found.bad else None,
                "long_prompts": found.long_prompts,
                "sizes": found.sizes,
            }
        )
    else:
        _say_findings(found, bad)
    return 1 if found.bad else 0


def _say_findings(found: Findings, bad: Path) -> None:
    jobs = ", ".join(f"{count:,} {kind}" for kind, count in sorted(found.kinds.items())) or "none"
    say(f"{found.rows:,} rows. Jobs: {jobs}; done already: {found.done:,}; bad: {found.bad:,}")
    for code, count in found.codes.most_common():
        say(f"  {count:,} {code}")
    if found.bad:
        say(f"Each bad row with its reason: {bad}")
    if found.long_prompts:
        say(
            f"warning: {found.long_prompts:,} rows have prompts of which CLIP reads only the"
            f" beginning ({', '.join(found.long_places)} …)"
        )
    if found.sizes > MANY_SIZES:
        say(
            f"warning: the results have {found.sizes:,} sizes, those of their pictures, and the"
            " model is compiled for each: give the recipe a width and height"
        )
