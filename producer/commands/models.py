"""`models list`, `pull`, `check` and `warm`: the models that jobs may name."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer
from rich.table import Column, Table

from producer.commands.output import AsJson, out, print_json, say
from producer.commands.services import require_worker
from storage.errors import InvalidModel, Unavailable
from storage.models import Model, find_model, load_models
from storage.settings import load_settings

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Aliases = Annotated[list[str], typer.Argument(metavar="ALIAS…", help="Aliases of models.toml.")]

#: The worker's own command, which knows what a checkpoint needs. -P: never the user's worker.py.
_COMMAND = (sys.executable, "-P", "-m", "worker.models")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the models, and what this machine has of them. Asks no network."""
    models = load_models(load_settings())
    engine = importlib.util.find_spec("mindspore") is not None
    found = {line["alias"]: line for line in _worker("list", list(models), True)} if engine else {}
    lines = [_line(model, found.get(alias)) for alias, model in sorted(models.items())]
    if as_json:
        for line in lines:
            print_json(line)
        return
    names = ("alias", "source", "family", "dtype", "variant", "pool", "here")
    table = Table(*(Column(name, overflow="fold") for name in names), box=None)
    for line in lines:
        here = {True: _size(line["bytes"]), False: "no", None: "?"}[line["here"]]
        texts = [line[name] or "" for name in ("alias", "source", "family", "dtype", "variant")]
        table.add_row(*texts, line["pool"], here)
    out.print(table, markup=False, soft_wrap=True)
    if not engine:
        say("What is here is known where workers are installed: pip install 'latentmill[worker]'")


@app.command()
def pull(aliases: Aliases, as_json: AsJson = False) -> None:
    """Download what models need, and nothing else of their repositories.

    What is there already is not fetched again; without a network it serves as it is.
    """
    _run("pull", aliases, as_json)


@app.command()
def check(aliases: Aliases, as_json: AsJson = False) -> None:
    """Load models as a worker would, on the CPU and without the network."""
    _run("check", aliases, as_json)


@app.command()
def warm(aliases: Aliases, as_json: AsJson = False) -> None:
    """Compile models ahead, for the batches that jobs make at the size each was trained for.

    What is compiled for the CPU lies in LATENTMILL_GRAPHS_DIR, where workers find it.
    """
    _run("warm", aliases, as_json)


def _run(act: Literal["pull", "check", "warm"], aliases: list[str], as_json: bool) -> None:
    require_worker()
    settings = load_settings()
    models = load_models(settings)
    names = [find_model(models, alias, settings).alias for alias in dict.fromkeys(aliases)]
    failed: list[str] = []
    passing = True
    for line in _worker(act, names, as_json):
        if line["error"] is not None:
            failed.append(f"{line['alias']}: {line['error']}")
            passing &= line["error_code"] == Unavailable.code
        if as_json:
            print_json(line)
        elif line["error"] is None:
            where = f"{line['alias']}: {line['family']}, {_size(line['bytes'])} in {line['path']}"
            say(where + (f", compiled in {line['seconds']} s" if act == "warm" else ""))
    if failed:
        raise (Unavailable if passing else InvalidModel)("; ".join(failed))


def _worker(act: str, aliases: list[str], quiet: bool) -> Iterator[dict[str, Any]]:
    """What the worker's command says, line by line; its progress bars go to standard error."""
    offline = {} if act == "pull" else {"HF_HUB_OFFLINE": "1"}
    silent = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} if quiet else {}
    process = subprocess.Popen(
        [*_COMMAND, act, *aliases],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if act == "list" else None,
        text=True,
        env={**os.environ, **offline, **silent},
    )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                yield json.loads(line)
        if process.wait() != 0:
            hint = ": was there too little memory?" if process.returncode == -9 else ""
            raise Unavailable(f"`models {act}` ended with status {process.returncode}{hint}")


def _line(model: Model, found: dict[str, Any] | None) -> dict[str, Any]:
    """All that is known of a model; `here` is None where no engine is installed."""
    known = found or {}
    return {
        **model.model_dump(mode="json"),
        "family": known.get("family"),
        "here": None if found is None else found["error"] is None,
        "bytes": known.get("bytes"),
        "path": known.get("path"),
        "missing": known.get("error"),
    }


def _size(count: int | None) -> str:
    value, units = float(count or 0), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"
