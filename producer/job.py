"""A job as its producer sees it."""

import io
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from storage import jobs
from storage.errors import JobFailed, NotFound
from storage.inputs import is_url
from storage.jobs import Cancellation, Selection, State
from storage.ledger import Ledger
from storage.objects import Objects

#: Seconds between looks at the ledger: progress shows within a second, and SQL stays idle.
POLL = 0.25
#: What a caption tells beside the prompt.
TOLD = ("strength", "guidance_scale")
ENDED = (State.SUCCEEDED, State.FAILED, State.CANCELED)


class Job:
    """A job in the ledger, as it stood at the last look."""

    def __init__(self, ledger: Ledger, objects: Objects, record: jobs.Job) -> None:
        self._ledger, self._objects = ledger, objects
        self.record = record

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def state(self) -> State:
        return self.record.state

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def warnings(self) -> list[str]:
        """What the worker wants known about the finished steps."""
        return [text for step in self.record.steps for text in step.details.get("warnings", [])]

    def refresh(self) -> "Job":
        """Look again."""
        self.record = self._ledger.job(self.id)
        return self

    def cancel(self) -> Cancellation:
        """End it: at once while it waits, at its next step boundary while it runs."""
        (answer,) = self._ledger.cancel(Selection(ids=(self.id,)))
        return answer

    def wait(
        self, timeout: float | None = None, on_progress: Callable[["Job"], None] | None = None
    ) -> "Job":
        """Look until the job has ended; raises JobFailed, or TimeoutError after so many seconds.

        `on_progress` is called after each look.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self.refresh()
            if on_progress is not None:
                on_progress(self)
            if self.ended:
                return self.check()
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"job {self.id} is still {self.state} after {timeout:g} s")
            time.sleep(POLL)

    def check(self) -> "Job":
        """The job itself, unless it failed or was canceled: then JobFailed."""
        if self.state in (State.FAILED, State.CANCELED):
            raise JobFailed(self.id, self.record.error_code or self.state, self.record.error or "")
        return self

    def image(self) -> Image.Image:
        """The picture of the last step; raises NotFound while there is none."""
        return _decode(self._bytes(self.record.artifact))

    def images(self) -> list[Image.Image]:
        """The pictures that were kept, in the order of their steps."""
        return [_decode(self._bytes(key)) for _, key in self.artifacts()]

    def story(self) -> list[tuple[Image.Image, str]]:
        """The input, if there is one, and the pictures that were kept, each with a caption."""
        steps = self.record.spec.steps if self.record.spec else ()
        key = getattr(steps[0], "image", None) if steps else None
        if self.record.steps:
            key = self.record.steps[0].details.get("input") or key
        told: list[tuple[Image.Image, str]] = []
        if key is not None and not is_url(key):
            told.append((_decode(self._bytes(key)), "input"))
        for index, artifact in self.artifacts():
            prompt = steps[index].prompt if steps else f"step {index + 1}"
            used = self.record.steps[index].details.get("options", {})
            values = [f"{name} {used[name]:g}" for name in TOLD if used.get(name) is not None]
            told.append((_decode(self._bytes(artifact)), ", ".join([prompt, *values])))
        return told

    def artifacts(self) -> list[tuple[int, str]]:
        """Step and key of each picture in the bucket."""
        return [(step.index, step.artifact) for step in self.record.steps if step.artifact]

    def save(self, path: str | os.PathLike[str], step: int | None = None) -> Path:
        """Write the last step's picture, or that of a kept step, whole or not at all.

        The file holds the PNG as it is stored, with its metadata.
        """
        key = self.record.artifact
        if step is not None:
            key = dict(self.artifacts()).get(step)
        return write_whole(Path(path), self._bytes(key))

    def link(self, seconds: int = 3600) -> str:
        """A URL that gives the last step's picture to whoever has it, for so long."""
        return self._objects.url(self._key(self.record.artifact), seconds)

    def _bytes(self, key: str | None) -> bytes:
        return self._objects.get(self._key(key))

    def _key(self, key: str | None) -> str:
        if key is None:
            raise NotFound(f"job {self.id} has no such picture: it is {self.state}")
        return key


def write_whole(path: Path, data: bytes) -> Path:
    """Write a file under another name first, so that nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with part.open("xb") as file:
            file.write(data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return path


def _decode(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
