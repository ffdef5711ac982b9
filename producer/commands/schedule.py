"""`schedule …`: batches that workers submit again and again, by the clock."""

import os
import signal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from producer.client import Client
from producer.commands.output import AsJson, out, print_json, say, warnings_as_lines
from producer.datasets.recipe import read_recipe
from producer.datasets.submit import absolute, read_rows
from producer.description import when
from producer.firing import fire as submit_now
from storage.cron import Cron
from storage.embedded.process import dying_with
from storage.errors import InvalidSpec
from storage.schedules import Firing, Schedule

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name.")]


@app.command()
def add(
    name: Name,
    cron: Annotated[
        str, typer.Option("--cron", help="'0 2 * * *' is two at night; '*/15 * * * *' each 15 min.")
    ],
    source: Annotated[
        str, typer.Option("--source", help="s3://bucket/prefix/, or a place that all workers see.")
    ],
    recipe: Annotated[
        Path, typer.Option("--recipe", help="As for `batch submit`; it is kept as it is now.")
    ],
    timezone: Annotated[
        str, typer.Option("--timezone", help="Whose clocks: Europe/Berlin.")
    ] = "UTC",
    misfire: Annotated[
        str,
        typer.Option(
            "--misfire", help="A time at which no worker was there: skip, or run-once later."
        ),
    ] = "run-once",
    overlap: Annotated[
        str, typer.Option("--overlap", help="While the batch before runs: skip, or queue one.")
    ] = "skip",
    as_json: AsJson = False,
) -> None:
    """Submit a source at times of a cron expression; what is done already is not done again."""
    policies = {"misfire": ("run-once", "skip"), "overlap": ("skip", "queue")}
    chosen: dict[str, Any] = {"misfire": misfire, "overlap": overlap}
    for field, allowed in policies.items():
        if chosen[field] not in allowed:
            raise InvalidSpec(f"{field}: {chosen[field]!r} is not one of {', '.join(allowed)}")
    client = Client()
    wanted = read_recipe(recipe)
    next(read_rows(client, source, wanted), None)  # it must be one that can be read
    added = client.schedules.add(
        name=name, cron=cron, timezone=timezone, source=absolute(source), recipe=wanted.plain(),
        **chosen,
    )  # fmt: skip
    _show(added, as_json)


@app.command("list")
def list_(as_lines: AsJson = False) -> None:
    """List the schedules, with what comes next and what became of the last time."""
    client = Client()
    fixed = [Column(each, no_wrap=True) for each in ("name", "cron", "next", "last")]
    table = Table(*fixed, "source", box=None)
    for schedule in client.schedules.all():
        last = next(iter(client.schedules.history(schedule.name, 1)), None)
        if as_lines:
            print_json({**_plain(schedule), "last": _told(last) if last else None})
            continue
        outcome = f"{last.state} {_local(schedule, last.due_at)}" if last else ""
        table.add_row(
            schedule.name, schedule.cron, _next(schedule), outcome, schedule.source,
        )  # fmt: skip
    if not as_lines:
        out.print(table, markup=False)


@app.command()
def pause(name: Name, as_json: AsJson = False) -> None:
    """Let its times pass by, until `resume`."""
    _show(Client().schedules.pause(name), as_json)


@app.command()
def resume(name: Name, as_json: AsJson = False) -> None:
    """Go on with the next time; those that passed while it was paused are not made up for."""
    _show(Client().schedules.resume(name), as_json)


@app.command()
def remove(name: Name, as_json: AsJson = False) -> None:
    """Forget a schedule and its history. Its batches stay."""
    Client().schedules.remove(name)
    if as_json:
        print_json({"removed": name})
    else:
        say(f"{name}: removed")


@app.command("run-now")
def run_now(name: Name, as_json: AsJson = False) -> None:
    """Have a worker submit it now, even if it is paused; its times stay as they are."""
    firing = Client().schedules.run_now(name)
    if as_json:
        print_json(_told(firing))
    elif firing.error:
        say(f"{name}: {firing.state}: {firing.error}")
    else:
        say(f"{name}: a worker will submit batch {firing.batch}")


@app.command()
def history(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    as_lines: AsJson = False,
) -> None:
    """Say what became of each time, newest first: its batch, or why there is none."""
    client = Client()
    schedule = client.schedules.find(name)
    fixed = [Column(each, no_wrap=True) for each in ("due", "state", "batch")]
    table = Table(*fixed, "rows", "new", "refused", "why", box=None)
    for firing in client.schedules.history(name, limit):
        if as_lines:
            print_json(_told(firing))
            continue
        counts = (firing.rows, firing.jobs, firing.refused)
        table.add_row(
            _local(schedule, firing.due_at), firing.state, firing.batch if firing.rows else "",
            *("" if count is None else str(count) for count in counts), firing.error or "",
        )  # fmt: skip
    if not as_lines:
        out.print(table, markup=False)


@app.command(hidden=True)
def fire(
    name: Name,
    due_at: float,
    attempt: int,
    parent: Annotated[int | None, typer.Option("--parent", help="Ends when this one does.")] = None,
) -> None:
    """Do what a worker has claimed. Workers call this."""
    if parent is not None:
        dying_with(parent, signal.SIGTERM)()
    os.nice(5)  # the device's own threads come first
    client = Client()
    with warnings_as_lines():
        submit_now(client, client.schedules.claimed(name, due_at, attempt))


def _show(schedule: Schedule, as_json: bool) -> None:
    if as_json:
        print_json(_plain(schedule))
    else:
        say(f"{schedule.name}: next {_next(schedule)}")


def _next(schedule: Schedule) -> str:
    if schedule.paused:
        return "paused"
    return "never again" if schedule.next_at is None else _local(schedule, schedule.next_at)


def _local(schedule: Schedule, seconds: float) -> str:
    """A time as the schedule's own clocks show it."""
    return f"{Cron(schedule.cron, schedule.timezone).local(seconds):%Y-%m-%d %H:%M %Z}"


def _plain(schedule: Schedule) -> dict[str, Any]:
    times = {"next_at": when(schedule.next_at), "created_at": when(schedule.created_at)}
    return {**vars(schedule), **times}


def _told(firing: Firing) -> dict[str, Any]:
    times = {name: when(getattr(firing, name)) for name in ("due_at", "started_at", "finished_at")}
    return {**vars(firing), **times}
