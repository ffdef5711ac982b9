"""`show`: all that is known about one job."""

from typing import Annotated

import typer
from rich.table import Table

from producer.client import Client
from producer.commands.output import AsJson, as_json, out, print_json, state_of
from producer.description import when
from producer.job import Job
from storage.jobs import Attempt
from storage.spec import Spec

JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id, or the beginning of it.")]


def show(job_id: JobId, as_lines: AsJson = False) -> None:
    """Show all that is known about a job: its steps, and every attempt with its error."""
    job = Client().job(job_id)
    if as_lines:
        print_json(as_json(job))
        return
    record = job.record
    _print_facts(job)
    if record.spec is not None:
        _print_steps(job, record.spec)
    if record.attempts:
        out.print("\nattempts", style="bold")
        table = Table.grid(padding=(0, 2))
        for attempt in record.attempts:
            table.add_row(
                f"  {attempt.number}", attempt.worker, when(attempt.started_at), _end(attempt)
            )
        out.print(table, markup=False)


def _print_facts(job: Job) -> None:
    record = job.record
    labels = record.spec.labels if record.spec else {}
    facts = Table.grid(padding=(0, 2))
    for name, value in (
        ("job", job.id),
        ("state", state_of(job)),
        ("error", record.error),
        ("unreadable", record.unreadable),
        ("result", record.artifact),
        ("attempts", f"{record.charged} of {record.max_attempts}"),
        ("worker", record.worker),
        ("batch", record.batch),
        ("created", when(record.created_at)),
        ("runs from", when(record.run_at) if record.run_at > record.created_at else None),
        ("deadline", when(record.deadline)),
        ("finished", when(record.finished_at)),
        ("labels", ", ".join(f"{name}={value}" for name, value in labels.items())),
    ):
        if value:
            facts.add_row(name, str(value))
    out.print(facts, markup=False)


def _print_steps(job: Job, spec: Spec) -> None:
    for index, step in enumerate(spec.steps):
        done = next((s for s in job.record.steps if s.index == index), None)
        out.print(f"\nstep {index + 1} of {len(spec.steps)}: {step.kind}", style="bold")
        details = Table.grid(padding=(0, 2))
        values = step.model_dump(exclude={"kind"}, exclude_none=True)
        values |= {"artifact": done.artifact, **done.details} if done else {}
        for name, value in values.items():
            if value not in (None, "", []):
                details.add_row(f"  {name}", str(value))
        out.print(details, markup=False)


def _end(attempt: Attempt) -> str:
    if attempt.ended_at is None:
        return "runs"
    seconds = f"{attempt.ended_at - attempt.started_at:.1f} s"
    if attempt.error_code is None:
        return f"{seconds}, succeeded"
    return f"{seconds}, {attempt.error_code}: {attempt.error}"
