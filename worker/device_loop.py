"""The one thread that owns the device: slots hand it steps, it takes their rows along together.

MindSpore may be used by one thread only, and its work must never wait for the world: fetching,
encoding, uploading and SQL happen in the slots' threads. Rows join and leave between any two
denoise steps, whatever their strength, step count, scheduler, guidance or prompt.
"""

import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from storage.errors import BadOutput, DeviceFailed, InvalidModel, LatentmillError
from worker.compiling import Compiling, need_of
from worker.device import (
    Device,
    bring_up,
    first_sentence,
    is_out_of_memory,
    keeps_graphs,
    memory_bytes,
)
from worker.engine_terms import arguments, as_told, result_size
from worker.finishing import finish
from worker.loaded_models import LoadedModels, Wanted
from worker.meter import Meter
from worker.passenger import Passenger
from worker.rendering import Latent, Rendered, Request, RowState
from worker.room import UNMEASURED, Room
from worker.turns import Group, choose

logger = logging.getLogger(__name__)

#: Of a device's memory, the share that weights may take: the rest is for rows on their way.
WEIGHTS_SHARE = 1 / 3
#: The share that the weights of a model may take which another process compiles.
ASIDE_SHARE = 1 / 6


class DeviceLoop:
    """Takes the rows of all requests through their steps on the pinned device."""

    def __init__(
        self,
        device: Device,
        room: Room | None = None,
        model_memory: int | None = None,
        graphs: Path | None = None,
    ) -> None:
        """Weights take up to `model_memory` bytes; by default a share of the device's memory.

        Compiled graphs are kept in the folder `graphs`, if it is given.
        """
        self.device = device
        self.version = ""
        #: Aliases of the models that are ready, for other threads to read.
        self.loaded: tuple[str, ...] = ()
        self.meter = Meter()
        self._room = room or Room(None, str(device))
        self._graphs = graphs if keeps_graphs(device) else None
        self._compiling = Compiling(None)
        self._models = LoadedModels(model_memory or 0)
        self._inbox: queue.SimpleQueue[Passenger | None] = queue.SimpleQueue()
        self._waiting: list[Passenger] = []
        self._begun: list[Passenger] = []
        #: When each group had its last turn, and how many requests had ended by then.
        self._turns: dict[Any, tuple[float, int]] = {}
        self._current: Any = None
        self._ended = 0
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="device-loop", daemon=True)

    def start(self) -> None:
        """Bring the device up; raises what bring_up raises."""
        self._thread.start()
        self._ready.result()

    def stop(self) -> None:
        """End once all that was submitted has ended."""
        self._inbox.put(None)
        self._thread.join()

    def submit(self, request: Request) -> "Future[Rendered]":
        pipe, source = self._models.ready(Wanted(request.model, request.loras)), request.source
        if pipe is not None and isinstance(source, Image.Image):
            # In the caller's thread, while the device works; what does not fit is told later.
            with suppress(ValueError):
                source = pipe.fit(source, request.step.width, request.step.height)
                request = replace(request, source=source)
        future: Future[Rendered] = Future()
        self._inbox.put(Passenger(request, future, time.monotonic()))
        return future

    def expect(self, demand: Mapping[str, int]) -> None:
        """How many jobs wait for each model, by its alias: what should rather stay loaded."""
        self._models.demand = demand

    def figures(self) -> dict[str, Any]:
        """What the device did since the worker began."""
        models = self._models
        loading = {"loads": models.loads, "load_seconds": round(models.load_seconds, 3)}
        return {**self.meter.figures(), **loading}

    def _run(self) -> None:
        try:
            self.version = bring_up(self.device, self._graphs)
            memory = memory_bytes(self.device)
            self._models.budget = self._models.budget or int(memory * WEIGHTS_SHARE)
            self._compiling = Compiling(self._graphs, int(memory * ASIDE_SHARE))
        except BaseException as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        open_ = True
        while open_ or self._waiting or self._begun:
            open_ = self._take_in(wait=open_ and not self._waiting and not self._begun) and open_
            try:
                self._let_leave()
                if self._waiting or self._begun:
                    self._take_turn()
            except Exception as error:
                # The thread must outlive its own mistakes: slots wait for each answer.
                logger.exception("the device loop failed")
                self._end_all([*self._waiting, *self._begun], error)
        self._compiling.stop()

    def _take_in(self, wait: bool) -> bool:
        """Move what came into the waiting list; whether more may come."""
        while True:
            try:
                with self.meter.timing("idle") if wait else nullcontext():
                    passenger = self._inbox.get(block=wait)
            except queue.Empty:
                return True
            if passenger is None:
                return False
            self._waiting.append(passenger)
            wait = False

    def _let_leave(self) -> None:
        from worker.diffusion import save_row

        for passenger in [*self._waiting, *self._begun]:
            watch = passenger.request.watch
            if watch.leave is None:
                continue
            if passenger.row is not None:
                watch.left = save_row(passenger.row)
            self._end(passenger, error=watch.leave)

    def _take_turn(self) -> None:
        """Let the chosen group take one step, with those that join it."""
        now = time.monotonic()
        turn = choose(self._groups(now), self._current)
        wanted, shape = turn.key
        try:
            pipe = self._models.get(wanted)
        except LatentmillError as error:
            self._end_all([p for p in [*self._waiting, *self._begun] if p.wanted == wanted], error)
            return
        finally:
            self.loaded = self._models.aliases
        self._current = turn.key
        pipe.ask_before_compiling(partial(self._may_compile, pipe))
        if turn.admits:
            joined = self._admit(wanted, pipe)
            shape = joined[0].key[1] if shape is None and joined else shape
        self._current = (wanted, shape)
        self._move(pipe, [p for p in self._begun if p.key == self._current])
        self._turns[self._current] = (time.monotonic(), self._ended)

    def _groups(self, now: float) -> list[Group]:
        members: dict[Any, list[Passenger]] = {}
        for passenger in self._begun:
            members.setdefault(passenger.key, []).append(passenger)
        rows = {key: len(group) for key, group in members.items()}
        for passenger in self._able():
            # With whichever rows of its model there are; its own size shows when it has begun.
            key = next((k for k in rows if k[0] == passenger.wanted), (passenger.wanted, None))
            members.setdefault(key, []).append(passenger)
        self._turns = {key: turn for key, turn in self._turns.items() if key in members}
        groups = []
        for key, group in members.items():
            first = min(passenger.arrived for passenger in group)
            since, ended = self._turns.setdefault(key, (first, self._ended))
            count = rows.get(key, 0)
            groups.append(
                Group(
                    key=key,
                    rows=count,
                    waiting=len(group) - count,
                    priority=max(passenger.request.priority for passenger in group),
                    waited=now - since,
                    loaded=key[0] in self._models,
                    passed_over=self._ended - ended,
                )
            )
        return groups

    def _able(self) -> list[Passenger]:
        """Waiting requests; while rows are in flight, those for which they need not wait."""
        able = self._compiling.able(self._waiting, self._models) if self._begun else self._waiting
        return list(able)

    def _may_compile(self, pipe: Any) -> bool:
        everyone = [*self._begun, *self._waiting]
        return self._compiling.may_grow(self._current, everyone, pipe)

    def _admit(self, wanted: Wanted, pipe: Any) -> list[Passenger]:
        """Begin what waits for this model, as far as there is room."""
        begun = [passenger for passenger in self._begun if passenger.wanted == wanted]
        most = min((self._room.rows(*p.room) for p in begun), default=UNMEASURED)
        mine = [passenger for passenger in self._able() if passenger.wanted == wanted]
        mine.sort(key=lambda passenger: (-passenger.request.priority, passenger.arrived))
        mine = mine[: max(0, most - len(begun))]
        try:
            pipe.look_ahead([arguments(passenger.request) for passenger in mine])
        except Exception as error:
            # Whose fault it is shows when each is begun alone.
            logger.warning("encoding %d requests failed: %s", len(mine), first_sentence(error))
        joined = []
        for passenger in mine:
            with self._answered(passenger):
                self._begin(passenger, pipe)
                joined.append(passenger)
        return joined

    def _begin(self, passenger: Passenger, pipe: Any) -> None:
        request, passenger.begun = passenger.request, time.monotonic()
        source = request.source
        if isinstance(source, Latent) and source.fingerprint != pipe.vae_fingerprint:
            raise InvalidModel(
                f"model {request.model.alias}: its VAE is not the one that the step before was"
                " told of; all workers of a pool need the same models"
            )
        request.model.check_size(*result_size(request.step, source, pipe.vae_scale_factor))
        passenger.row = pipe.begin(**arguments(request))
        if request.resume is not None:
            passenger.resumed_at = self._resume(passenger.row, request.resume)
        self._waiting.remove(passenger)
        self._begun.append(passenger)
        self._report(passenger, pipe)

    def _report(self, passenger: Passenger, pipe: Any) -> None:
        row = passenger.row
        preview = partial(pipe.preview, row.latent)
        passenger.request.watch.report(row.taken, row.total, preview)

    def _resume(self, row: Any, state: RowState) -> int:
        """Take a row to where it was left; the step that it goes on from."""
        from worker.diffusion import restore_row

        try:
            restore_row(row, state)
        except (ValueError, KeyError) as error:
            logger.warning("a saved row is of no use, its step begins anew: %s", error)
        return int(row.taken)

    def _move(self, pipe: Any, group: Sequence[Passenger]) -> None:
        """One denoise step of a group, and the ends of those for which it was the last."""
        if not group:
            return
        done = []
        for passenger in self._step(pipe, group):
            with self._answered(passenger):
                row = passenger.row
                if not np.isfinite(row.latent).all():
                    raise BadOutput(
                        f"after step {row.taken} of {row.total} the model's result holds"
                        " values that are not finite"
                    )
                self._report(passenger, pipe)
                if row.done:
                    done.append(passenger)
        if done:
            with self.meter.timing("finish"):
                endings = list(finish(done, pipe, self._models))
            for passenger, ending in endings:
                with self._answered(passenger):
                    if isinstance(ending, Exception):
                        raise ending
                    self.meter.add("results")
                    if passenger.request.picture:
                        self._compiling.note(need_of(passenger.request, pipe))
                    self._end(passenger, ending)

    def _step(self, pipe: Any, group: Sequence[Passenger]) -> list[Passenger]:
        """Those that took the step. An error is pinned on its row by halving: the others go on."""
        model, shape = group[0].room
        most = self._room.rows(model, shape)
        if len(group) > most:
            return [*self._step(pipe, group[:most]), *self._step(pipe, group[most:])]
        begun = time.monotonic()
        try:
            pipe.step([passenger.row for passenger in group])
        except Exception as error:
            # No row has moved.
            if len(group) == 1:
                with self._answered(group[0]):
                    raise error
                return []
            logger.warning("a call with %d rows failed: %s", len(group), first_sentence(error))
            if is_out_of_memory(error):
                self._room.halve(model, shape, len(group))
            half = len(group) // 2
            return [*self._step(pipe, group[:half]), *self._step(pipe, group[half:])]
        sides = [str(side * pipe.vae_scale_factor) for side in reversed(shape[1:])]
        size = "x".join(sides) if len(sides) == 2 else "prior"
        self.meter.step(f"{model.alias} {size}", len(group), time.monotonic() - begun)
        return list(group)

    @contextmanager
    def _answered(self, passenger: Passenger) -> Iterator[None]:
        """What goes wrong inside is this passenger's answer."""
        try:
            yield
        except Exception as error:
            self._end(passenger, error=as_told(error))

    def _end_all(self, passengers: Sequence[Passenger], error: Exception) -> None:
        for passenger in passengers:
            self._end(passenger, error=error)

    def _end(
        self,
        passenger: Passenger,
        rendered: Rendered | None = None,
        error: Exception | None = None,
    ) -> None:
        for there in (self._waiting, self._begun):
            if passenger in there:
                there.remove(passenger)
        self._ended += 1
        if rendered is not None:
            passenger.future.set_result(rendered)
        else:
            passenger.future.set_exception(error or DeviceFailed("the device loop gave no reason"))
