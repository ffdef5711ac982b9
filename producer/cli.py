"""The command line: `latentmill`.

Exit status: 0 done, 1 a job failed or a check did, 2 a value is not allowed, 3 a service is away
or not configured, 4 there is no such job, 130 interrupted.
"""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from producer.commands import (
    batch,
    bench,
    demo,
    doctor,
    jobs,
    keys,
    models,
    orders,
    schedule,
    serve,
    services,
    show,
    submit,
    sweep,
)
from producer.commands.output import err
from storage.errors import JobFailed, LatentmillError, NotConfigured, NotFound, Unavailable

app = typer.Typer(
    name="latentmill",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    submit.img2img,
    submit.text2img,
    submit.chain,
    sweep.sweep,
    jobs.jobs,
    show.show,
    jobs.wait,
    jobs.fetch,
    orders.cancel,
    orders.retry,
    services.up,
    services.migrate,
    serve.serve,
    doctor.doctor,
    demo.demo,
):
    app.command()(command)

app.add_typer(batch.app, name="batch", help="Whole datasets: submit, watch, account for every row.")
app.add_typer(bench.app, name="bench", help="How fast this installation is, and why.")
app.add_typer(keys.app, name="keys", help="Who may use the HTTP API.")
app.add_typer(models.app, name="models", help="The models that jobs may name.")
app.add_typer(schedule.app, name="schedule", help="Batches that are submitted by the clock.")

# Its options are the worker's own: whatever follows is passed on, --help too.
app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)(services.worker)


def say_version(wanted: bool) -> None:
    if wanted:
        print(f"latentmill {version('latentmill')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", help="Say the version and leave.", is_eager=True, callback=say_version
        ),
    ] = False,
) -> None:
    """Image-to-image jobs for diffusion models: submit, watch, fetch; run workers."""


def main() -> None:
    """Run the command line; what a user can mend ends in one sentence, never in a stack trace."""
    try:
        app()
    except LatentmillError as error:
        err.print(f"latentmill: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(exit_status(error))
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does.
        sys.stderr.close()
        sys.exit(1)


def exit_status(error: LatentmillError) -> int:
    if isinstance(error, JobFailed):
        return 1
    if isinstance(error, NotFound):
        return 4
    return 3 if isinstance(error, Unavailable | NotConfigured) else 2
