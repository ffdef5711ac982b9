"""Graphs that a request needs are compiled by another process, while the device works for others.

Compiling lasts for seconds to minutes, and MindSpore's one thread can do nothing else meanwhile.
What the other process compiles lies on disk then, from where it is loaded in a tenth of the time.
"""

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from storage.models import Model
from worker.device import Device, bring_up, first_sentence, pin
from worker.engine_terms import result_size
from worker.loaded_models import LoadedModels, Wanted
from worker.passenger import Passenger
from worker.rendering import Request

logger = logging.getLogger(__name__)

#: The other process leaves the cores to whoever works.
NICENESS = 10
#: Rows that are stepped together: with guidance, batches of 2 to 16 places.
ROWS = (1, 2, 4, 8)


class Need(NamedTuple):
    """What the graphs of a request depend on."""

    model: Model
    #: Width and height.
    size: tuple[int, int]
    from_picture: bool
    guided: bool
    #: That are stepped together.
    rows: int = 1

    def plain(self) -> dict[str, Any]:
        return self._asdict() | {"model": self.model.model_dump(mode="json")}


def need_of(request: Request, pipe: Any, rows: int = 1) -> Need:
    step, scale = request.step, pipe.vae_scale_factor
    width, height = result_size(step, request.source, scale)
    return Need(
        model=request.model,
        size=(width or pipe.default_size[0], height or pipe.default_size[1]),
        from_picture=isinstance(request.source, Image.Image),
        guided=step.guidance_scale is None or step.guidance_scale > 1,
        rows=rows,
    )


class Compiling:
    """Knows which needs have their graphs on disk, and has those compiled that lack them.

    Used by the device loop's thread alone.
    """

    def __init__(self, folder: Path | None, room: int = 0) -> None:
        """Without a folder for graphs nothing can be handed over: every need counts as met.

        So does that of a model with more bytes of weights than `room`: the other process has its
        own.
        """
        self._folder, self._room = folder, room
        self._met: set[Need] = set()
        #: One at a time, and what it is for.
        self._process: subprocess.Popen[bytes] | None = None
        self._for: Need | None = None

    def is_met(self, need: Need, pipe: Any) -> bool:
        """Whether what is needed of a pipeline is on disk; if not, it will be."""
        from worker.diffusion import weight_bytes

        if self._folder is None or need in self._met:
            return True
        self._look()
        if need in self._met or self._mark(need).exists():
            self._met.add(need)
            return True
        if weight_bytes([pipe]) > self._room:
            self._met.add(need)
            return True
        if self._process is None:
            self._begin(need)
        return False

    def able(self, waiting: Iterable[Passenger], models: LoadedModels) -> Iterator[Passenger]:
        """Those for whom nothing has to be compiled first; for the others it will be."""
        for passenger in waiting:
            pipe = models.ready(passenger.wanted)
            if pipe is None or self.is_met(need_of(passenger.request, pipe), pipe):
                yield passenger

    def may_grow(self, group: Any, passengers: Sequence[Passenger], pipe: Any) -> bool:
        """Whether another batch size for a group of passengers keeps no rows of others waiting."""
        wanted, shape = group
        # Without a shape it has just begun, and none of its model were in flight.
        if all(
            p.row is None or (p.wanted == wanted and shape in (None, p.row.latent.shape))
            for p in passengers
        ):
            return True
        mine = next(p for p in passengers if p.wanted == wanted)
        return self.is_met(need_of(mine.request, pipe, ROWS[-1]), pipe)

    def note(self, need: Need) -> None:
        """This process has compiled it."""
        if self._folder is None or need in self._met:
            return
        self._met.add(need)
        try:
            self._mark(need).touch(mode=0o600)
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._folder, error)
        if need == self._for:
            self.stop()

    def stop(self) -> None:
        """Nobody waits for the other process any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = self._for = None

    def _begin(self, need: Need) -> None:
        command = [sys.executable, "-P", "-m", "worker.compiling"]
        words = json.dumps({"folder": str(self._folder), "need": need.plain()})
        try:
            # In a session of its own: Ctrl-C is this one's.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
            )
            self._for = need
            assert self._process.stdin is not None
            with self._process.stdin as told:
                told.write(words.encode())
        except OSError as error:
            logger.warning("compiling %s aside failed: %s", need.model.alias, error)
            self._met.add(need)

    def _look(self) -> None:
        """Take note of what the other process has come to."""
        if self._process is None or self._process.poll() is None:
            return
        need, status = self._for, self._process.returncode
        self._process = self._for = None
        assert need is not None
        if status == 0:
            logger.info("compiled aside: %s, %dx%d", need.model.alias, *need.size)
            self.note(need)
        else:
            # It is tried here then, where what is wrong comes to light.
            logger.warning("compiling %s aside ended with status %d", need.model.alias, status)
            self._met.add(need)

    def _mark(self, need: Need) -> Path:
        """A file that says that the graphs of a need are in the folder."""
        from worker.diffusion.graphs import MARK, surroundings

        assert self._folder is not None
        made_of = json.dumps([need.plain(), surroundings()], sort_keys=True)
        return self._folder / f"{hashlib.sha256(made_of.encode()).hexdigest()}{MARK}"


def compile_ahead(
    pipe: Any,
    size: Sequence[int] | None = None,
    rows: int = ROWS[-1],
    from_picture: bool = True,
    guided: bool = True,
) -> None:
    """Compile every part of a pipeline for the batches that up to so many rows make.

    `size` is width and height; None: the model's own. Where graphs are kept on disk, other
    processes then find them there.
    """
    width, height = size or pipe.default_size
    picture = Image.new("RGB", (width, height), "grey")
    options = {
        "num_inference_steps": 2,
        "prior_num_inference_steps": 2,
        "strength": 1.0,
        "guidance_scale": 5.0 if guided else 1.0,
        "width": width,
        "height": height,
    }
    asked = {name: value for name, value in options.items() if name in pipe.options()}
    for count in [count for count in ROWS if count <= rows]:
        pipe.forget_graphs()  # each number of rows has calls of its own size
        prompts = [f"{count} warm, {index}" for index in range(count)]
        pictures = [picture.copy() if from_picture else None for _ in prompts]
        pipe(prompts, pictures, **asked)
    pipe.forget_graphs()
    pipe.look_ahead([{"prompt": "one that comes alone"}])  # the empty one is remembered


def main() -> None:
    """The other process."""
    words = json.loads(sys.stdin.read())
    asked = words["need"]
    model = Model.model_validate_json(json.dumps(asked.pop("model")))
    os.nice(NICENESS)
    device = Device.parse("cpu")
    pin(device)
    try:
        bring_up(device, Path(words["folder"]))
        compile_ahead(LoadedModels(budget=0).get(Wanted(model)), **asked)
    except Exception as error:
        sys.exit(f"compiling aside: {first_sentence(error)}")


if __name__ == "__main__":
    main()
