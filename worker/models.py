"""`python -m worker.models list|pull|check|warm ALIAS…`: what this machine has of models.

One JSON object a line on standard output. A process of its own, since the command line may lack
the engine. Nothing here touches an accelerator: `check` and `warm` load on the CPU.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from storage.errors import LatentmillError, Unavailable
from storage.models import Model, load_models
from storage.settings import load_settings
from worker.checkpoint_source import locate
from worker.compiling import compile_ahead
from worker.device import Device, bring_up, pin
from worker.loaded_models import LoadedModels, Wanted


def main(arguments: list[str]) -> int:
    act, aliases = arguments[0], arguments[1:]
    try:
        settings = load_settings()
        models = load_models(settings)
        if act in ("check", "warm"):
            bring_up(Device.parse("cpu"), settings.graphs_dir)
        for alias in aliases:
            print(json.dumps(report(act, models[alias]), ensure_ascii=False), flush=True)
    except LatentmillError as error:
        print(f"latentmill models: {error}", file=sys.stderr)
        return 3
    return 0


def report(act: str, model: Model) -> dict[str, Any]:
    """What came of it, or why nothing did; all but `pull` are told to do without the network."""
    from worker.diffusion import CheckpointError, HubError

    try:
        found = ACTS[act](model)
        return {"alias": model.alias, **found, "error_code": None, "error": None}
    except (CheckpointError, HubError, LatentmillError, OSError) as error:
        passing = isinstance(error, HubError | Unavailable | OSError)
        sentence = str(error).removeprefix(f"model {model.alias}: ")
        if isinstance(error, HubError) and act != "pull":
            sentence = f"not all of its files are here: latentmill models pull {model.alias}"
        code = "unavailable" if passing and act == "pull" else "invalid_model"
        return {"alias": model.alias, "error_code": code, "error": sentence}


def find(model: Model) -> dict[str, Any]:
    """Where a checkpoint and its prior are, fetched where that is allowed and needed."""
    from worker.diffusion.checkpoint import Checkpoint

    found = Checkpoint.open(locate(model), model.revision, model.variant, prior=model.prior)
    parts = [found, found.prior] if found.prior else [found]
    return {
        "path": str(found.path),
        "family": family(found.index.get("_class_name")),
        "bytes": sum(size(part.path) for part in parts),
    }


def family(class_name: Any) -> str | None:
    """The short name of the family that a checkpoint is made for, if it is one of ours."""
    from worker.diffusion.pipelines.families import FAMILIES

    names = {name: family.family for family in FAMILIES for name in family.class_names}
    return names.get(class_name)


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def check(model: Model) -> dict[str, Any]:
    """Load the model as a worker does: every file, configuration, key and shape is looked at."""
    found = find(model)
    pipe = LoadedModels(budget=0).get(Wanted(model))
    return {**found, "family": pipe.family, "revision": pipe.revision}


def warm(model: Model) -> dict[str, Any]:
    """Compile the model for the batches that jobs make, at the size that it was trained for."""
    found = find(model)
    begun = time.monotonic()
    compile_ahead(LoadedModels(budget=0).get(Wanted(model)))
    return {**found, "seconds": round(time.monotonic() - begun, 1)}


ACTS = {"list": find, "pull": find, "check": check, "warm": warm}


if __name__ == "__main__":
    pin(Device.parse("cpu"))
    sys.exit(main(sys.argv[1:]))
