"""64 img2img jobs of mixed strengths: one by one, in fixed batches, and in the device loop.

    python -m benchmarks.mixed [--jobs 64] [--checkpoint FOLDER] [--repeats 3]

The three take turns in one process, on the same compiled model, after a round that is not counted.
A fixed batch takes 16 jobs and ends when its longest does. The shortest of each is compared.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from storage.models import Model
from storage.spec import Img2Img
from worker.device import Device, pin
from worker.device_loop import DeviceLoop
from worker.engine_terms import arguments
from worker.loaded_models import Wanted
from worker.rendering import Request

ROOT = Path(__file__).parents[1]
BUNDLED = ROOT / "worker" / "checkpoints" / "demo"
BATCH = 16


def requests(model: Model, jobs: int) -> list[Request]:
    picture = Image.open(ROOT / "producer" / "samples" / "cat-face.png").convert("RGB")
    steps = [
        Img2Img(
            model=model.alias, prompt="cat face, comic style", seed=i,
            strength=0.2 + 0.8 * (i * 5 % 9) / 8, num_inference_steps=20,
        )
        for i in range(jobs)
    ]  # fmt: skip
    return [
        Request(step=step, model=model, source=picture, following=None, picture=True)
        for step in steps
    ]


def in_batches(pipe: Any, jobs: list[Request], size: int) -> None:
    """Batches of `size` rows, each to its end."""
    for start in range(0, len(jobs), size):
        rows = [pipe.begin(**arguments(request)) for request in jobs[start : start + size]]
        while going := [row for row in rows if not row.done]:
            pipe.step(going)
        for row in rows:
            pipe.decode_picture(row.latent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=64)
    parser.add_argument("--checkpoint", type=Path, default=BUNDLED)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    pin(Device("cpu"))
    model = Model(alias="measured", source=str(given.checkpoint))
    loop = DeviceLoop(Device("cpu"))
    loop.start()
    jobs = requests(model, given.jobs)
    loop.submit(jobs[0]).result()
    pipe = loop._models.get(Wanted(model))

    def in_the_loop() -> None:
        for future in [loop.submit(request) for request in jobs]:
            future.result()

    ways: dict[str, Callable[[], None]] = {
        "one by one": lambda: in_batches(pipe, jobs, 1),
        f"fixed batches of {BATCH}": lambda: in_batches(pipe, jobs, BATCH),
        "device loop": in_the_loop,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    # The loop's thread is idle while the others run: MindSpore is used by one thread at a time.
    for turn in range(given.repeats + 1):
        for name, way in ways.items():
            pipe.forget_graphs()  # each begins with the batch size that fits it
            begun = time.perf_counter()
            way()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    loop.stop()
    alone = min(seconds["one by one"])
    print(f"{given.jobs} jobs of mixed strengths, shortest of {given.repeats}")
    print("| way | seconds | one by one / this |\n|---|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {min(each):.2f} | {alone / min(each):.2f} |")


if __name__ == "__main__":
    main()
