"""One look at the ledger for all who watch: events and progress, as server-sent events."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from storage.errors import Unavailable
from storage.events import ENDS, Event, Events, Place, Progress, show_place

logger = logging.getLogger(__name__)

#: Seconds between looks.
POLL = 0.25
#: Looks that a slow reader may be behind before it is cut off; it comes back with its last id.
_BEHIND = 200
#: Seconds of silence after which a comment shows that the connection lives.
HEARTBEAT = 15.0


def encode(event: Event) -> bytes:
    data = {
        "job_id": event.job_id,
        "kind": event.kind,
        "batch": event.batch,
        "step": event.step,
        "attempt": event.attempt,
        "error_code": event.error_code,
        "at": event.at,
    }
    return message(event.kind, data, show_place(event.place))


def encode_progress(progress: Progress) -> bytes:
    """Without an id: nobody asks for it again."""
    data = {
        "job_id": progress.job_id,
        "step": progress.step,
        "done": progress.done,
        "total": progress.total,
    }
    return message("progress", data)


def message(kind: str, data: dict[str, Any], place: str | None = None) -> bytes:
    head = f"id: {place}\n" if place else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


@dataclass(eq=False)
class Watcher:
    """Somebody who watches: an owner's jobs, or one job, or all."""

    owner: str | None
    job_id: str | None
    #: What it saw last, or where it began.
    place: Place
    #: Chunks of messages, and whether they are the last; None: cut off.
    chunks: "asyncio.Queue[tuple[bytes, bool] | None]" = field(
        default_factory=lambda: asyncio.Queue(_BEHIND)
    )

    def wants(self, item: Event | Progress) -> bool:
        if self.job_id is not None and item.job_id != self.job_id:
            return False
        return self.owner is None or item.owner == self.owner


class Feed:
    """Looks only while somebody watches. All of it runs in one event loop."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self._watchers: set[Watcher] = set()
        self._task: asyncio.Task[None] | None = None
        self._place: Place = (0, 0)
        self._progress: dict[str, Progress] = {}
        self._starting = asyncio.Lock()
        self._closed = False

    async def watch(
        self, *, owner: str | None, job_id: str | None, after: Place | None
    ) -> AsyncIterator[bytes]:
        """Messages: first those after a place that are there already, then what comes.

        Those of one job end with its end.
        """
        async with self._starting:
            if self._task is None or self._task.done():
                self._place = await asyncio.to_thread(self.events.newest)
                self._task = asyncio.create_task(self._look_on())
            watcher = Watcher(owner=owner, job_id=job_id, place=self._place)
            self._watchers.add(watcher)
        try:
            yield b"retry: 2000\n\n"
            if after is not None:
                last = b"", False
                async for last in self._replay(watcher, after):
                    yield last[0]
                if last[1]:
                    return
            while not self._closed:
                try:
                    found = await asyncio.wait_for(watcher.chunks.get(), HEARTBEAT)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if found is None:
                    return
                yield found[0]
                if found[1]:
                    return
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """End all streams; their readers come back to another server with their last id."""
        self._closed = True
        for watcher in self._watchers:
            _cut_off(watcher)
        if self._task is not None:
            self._task.cancel()

    async def _replay(self, watcher: Watcher, after: Place) -> AsyncIterator[tuple[bytes, bool]]:
        until = watcher.place
        while True:
            found = await asyncio.to_thread(
                self.events.after,
                after,
                until=until,
                owner=watcher.owner,
                job_id=watcher.job_id,
            )
            if not found:
                return
            over = watcher.job_id is not None and found[-1].kind in ENDS
            yield b"".join(map(encode, found)), over
            after = found[-1].place

    async def _look_on(self) -> None:
        while self._watchers and not self._closed:
            try:
                await self._look()
            except Unavailable as error:
                logger.warning("events: %s", error)
            except Exception:
                logger.exception("events could not be read")
            await asyncio.sleep(POLL)
        self._progress.clear()

    async def _look(self) -> None:
        found = await asyncio.to_thread(self.events.after, self._place)
        if found:
            self._place = found[-1].place
        running = {p.job_id: p for p in await asyncio.to_thread(self.events.progress)}
        moved = [p for p in running.values() if self._progress.get(p.job_id) != p]
        self._progress = running
        coded = [(event, encode(event)) for event in found]
        coded += [(progress, encode_progress(progress)) for progress in moved]  # type: ignore[misc]
        if not coded:
            return
        everything = b"".join(data for _, data in coded)
        for watcher in list(self._watchers):
            if watcher.owner is None and watcher.job_id is None:
                _hand(watcher, everything, False)
                continue
            wanted = [(item, data) for item, data in coded if watcher.wants(item)]
            over = watcher.job_id is not None and any(
                isinstance(item, Event) and item.kind in ENDS for item, _ in wanted
            )
            if wanted:
                _hand(watcher, b"".join(data for _, data in wanted), over)


def _hand(watcher: Watcher, data: bytes, over: bool) -> None:
    try:
        watcher.chunks.put_nowait((data, over))
    except asyncio.QueueFull:
        _cut_off(watcher)


def _cut_off(watcher: Watcher) -> None:
    with contextlib.suppress(asyncio.QueueEmpty):
        while watcher.chunks.full():
            watcher.chunks.get_nowait()
    watcher.chunks.put_nowait(None)
