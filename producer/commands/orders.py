"""`cancel` and `retry`: jobs that nobody wants any more, and those to try once more."""

from collections import Counter
from typing import Annotated

import typer

from producer.client import Client
from producer.commands.output import AsJson, print_json, say
from producer.commands.submit import labels
from storage.errors import InvalidSpec

JobIds = Annotated[
    list[str] | None, typer.Argument(metavar="[ID…]", help="Ids, or beginnings of them.")
]
Label = Annotated[str | None, typer.Option("--label", "-l", help="All jobs with name=value.")]
Batch = Annotated[str | None, typer.Option(help="All jobs of this batch.")]

SENTENCES = {
    "canceled": "canceled",
    "leaving": "runs; it leaves at its next step boundary",
    "ended": "had ended: {state}",
}


def cancel(
    job_ids: JobIds = None, label: Label = None, batch: Batch = None, as_lines: AsJson = False
) -> None:
    """Cancel jobs: those that wait at once, those that run at their next step boundary."""
    ids = tuple(job_ids or ())
    answers = Client().cancel(*ids, label=_pair(ids, label, batch), batch=batch)
    for answer in answers if ids or as_lines else ():
        if as_lines:
            print_json({"id": answer.id, "outcome": answer.outcome, "state": answer.state})
        else:
            say(f"{answer.id}: {SENTENCES[answer.outcome].format(state=answer.state)}")
    if not ids:
        counts = Counter(answer.outcome for answer in answers)
        say(
            f"{counts['canceled']} canceled; {counts['leaving']} run and leave at their next step"
            " boundary",
            quiet=as_lines,
        )


def retry(
    job_ids: JobIds = None,
    label: Label = None,
    batch: Batch = None,
    code: Annotated[
        str | None, typer.Option(help="All jobs that failed with this error code.")
    ] = None,
    as_lines: AsJson = False,
) -> None:
    """Queue failed and canceled jobs again, each with all its attempts to spend once more."""
    ids = tuple(job_ids or ())
    pair = _pair(ids, label, batch, code)
    found = Client().retry(*ids, label=pair, batch=batch, error_code=code)
    if as_lines:
        for job_id in found:
            print_json({"id": job_id})
        return
    others = f"; {len(set(ids)) - len(found)} had neither failed nor been canceled" if ids else ""
    say(f"{len(found)} queued again{others if len(found) < len(set(ids)) else ''}")


def _pair(ids: tuple[str, ...], label: str | None, *others: str | None) -> tuple[str, str] | None:
    if not ids and label is None and not any(others):
        raise InvalidSpec("which jobs: give their ids, --label or --batch")
    return next(iter(labels([label]).items())) if label else None
