"""`latentmill bench calibrate`: how many rows of a model pay, and fit, on this device."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from PIL import Image

from storage.errors import InvalidSpec
from storage.models import Model, find_model, load_models
from storage.settings import Settings
from worker.device import Device, bring_up, is_out_of_memory, memory_bytes
from worker.limits import resident_bytes
from worker.loaded_models import LoadedModels, Wanted
from worker.room import Room

#: What `bench simulate` reads.
TIMES_FILE = "step_times.json"
ROWS = (1, 2, 4, 8, 16, 32)
#: More rows must make each this much faster, or they only make all of them wait.
GAIN = 0.03
#: The share of the memory that more rows may not go beyond.
FULL = 0.8
REPEATS = 3


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="its alias")
    parser.add_argument("--size", default=None, metavar="WxH", help="pixels; default: its own")
    parser.add_argument("--most-rows", type=int, default=ROWS[-1], help="try no more than these")
    parser.add_argument("--device", default="cpu", help="cpu or ascend:N")


def calibrate(options: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Measure guided rows, note the most that pay, and the times for `bench simulate`."""
    device = Device.parse(options.device)
    model = find_model(load_models(settings), options.model, settings)
    size = parse_size(options.size)
    bring_up(device, settings.graphs_dir)
    models = LoadedModels(memory_bytes(device))
    pipe = models.get(Wanted(model))
    shape, measured = measure(pipe, size, memory_bytes(device), options.most_rows)
    rows = most(measured)
    Room(settings.home, str(device)).note(model, shape, rows)
    note_times(settings.home / TIMES_FILE, model, models.load_seconds, measured)
    return {
        "model": model.alias,
        "device": str(device),
        "latent": list(shape),
        "load_seconds": round(models.load_seconds, 3),
        "step_seconds": {str(n): round(seconds, 5) for n, seconds in measured.items()},
        "rows": rows,
    }


def measure(
    pipe: Any, size: tuple[int, int] | None, memory: int, most_rows: int
) -> tuple[tuple[int, ...], dict[int, float]]:
    """The latent's shape, and seconds of a step with 1, 2, 4 … guided rows, while they fit."""
    seconds: dict[int, float] = {}
    shape: tuple[int, ...] = ()
    before, grew = resident_bytes(), 0
    for rows in [rows for rows in ROWS if rows <= max(1, most_rows)]:
        # What twice as many would take, as far as can be told.
        if resident_bytes() + 2 * grew > FULL * memory:
            break
        try:
            begun = [begin(pipe, size, seed) for seed in range(rows)]
            shape = begun[0].latent.shape
            pipe.predictions.forget()
            pipe.step(begun)
            seconds[rows] = min(timed(pipe, begun) for _ in range(REPEATS))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            break
        grew, before = resident_bytes() - before, resident_bytes()
        print(f"{rows} rows: {seconds[rows] / rows * 1000:.1f} ms a row", flush=True)
    return shape, seconds


def begin(pipe: Any, size: tuple[int, int] | None, seed: int) -> Any:
    width, height = size or pipe.default_size
    options = {"seed": seed, "num_inference_steps": 50, "strength": 1.0, "guidance_scale": 5.0}
    picture = Image.new("RGB", (width, height), "grey")
    return pipe.begin("a picture", picture, **options)


def timed(pipe: Any, rows: list[Any]) -> float:
    begun = time.perf_counter()
    pipe.step(rows)
    return time.perf_counter() - begun


def most(seconds: dict[int, float]) -> int:
    """The most rows that pay."""
    best = min(seconds)
    for rows in sorted(seconds):
        if seconds[rows] / rows <= (1 - GAIN) * seconds[best] / best:
            best = rows
    return best


def note_times(path: Path, model: Model, load: float, seconds: dict[int, float]) -> None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        found = {}
    steps = {str(rows): round(each, 5) for rows, each in seconds.items()}
    found[model.alias] = {"load": round(load, 3), "step": steps}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, sort_keys=True))


def parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise InvalidSpec(f"--size: {text!r} is no size: it must be such as 512x512")
    return int(width), int(height)
