"""The one thread that owns the device: slots hand it steps, it runs them and hands back results.

MindSpore may be used by one thread only, and its work must never wait for the world: fetching,
encoding, uploading and SQL happen in the slots' threads.
"""

import logging
import queue
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.errors import (
    BadOutput,
    DeviceFailed,
    InvalidModel,
    InvalidSpec,
    LatentmillError,
    Unavailable,
)
from storage.models import Model
from storage.spec import Img2Img, Step
from worker.checkpoint_source import locate
from worker.device import Device, bring_up, first_sentence

logger = logging.getLogger(__name__)

#: Models kept ready. A chain goes to and fro between two.
LOADED_MODELS = 2


@dataclass(frozen=True, kw_only=True)
class Latent:
    """What a step hands over when the next one shares its VAE."""

    values: NDArray[np.float32]  # [C, h, w], scaled
    fingerprint: str


@dataclass
class Watch:
    """How far one step is, and whether it should stop: shared by a slot and the device loop."""

    done: int = 0
    total: int = 0
    #: Set by the slot; raised in the device loop at the next step boundary.
    leave: LatentmillError | None = None

    def on_step(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if self.leave is not None:
            raise self.leave


@dataclass(frozen=True, kw_only=True)
class Request:
    """One step to run: `source` is the input picture, a latent with the model's VAE, or None."""

    step: Step
    model: Model
    source: Image.Image | Latent | None
    #: The step that follows and its model, if one does: they decide what can be handed over.
    following: tuple[Step, Model] | None
    #: Whether the picture itself is wanted, or only what the next step needs.
    picture: bool
    watch: Watch = field(default_factory=Watch)


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """What came of a request."""

    picture: Image.Image | None
    #: Set when the step that follows can take it.
    latent: Latent | None
    width: int
    height: int
    scheduler: str
    model_revision: str | None
    vae_fingerprint: str
    seconds: float
    warnings: tuple[str, ...]


class DeviceLoop:
    """Runs requests one after another on the pinned device, in the order they came."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.version = ""
        #: Aliases of the models that are ready, for other threads to read.
        self.loaded: tuple[str, ...] = ()
        self._requests: queue.SimpleQueue[tuple[Request, Future[Rendered]] | None]
        self._requests = queue.SimpleQueue()
        self._pipelines: OrderedDict[Model, Any] = OrderedDict()
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="device-loop", daemon=True)

    def start(self) -> None:
        """Bring the device up; raises what bring_up raises."""
        self._thread.start()
        self._ready.result()

    def stop(self) -> None:
        self._requests.put(None)
        self._thread.join()

    def submit(self, request: Request) -> "Future[Rendered]":
        future: Future[Rendered] = Future()
        self._requests.put((request, future))
        return future

    def _run(self) -> None:
        try:
            self.version = bring_up(self.device)
        except BaseException as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        while (item := self._requests.get()) is not None:
            request, future = item
            try:
                future.set_result(self._render(request))
            except BaseException as error:
                future.set_exception(error)

    def _render(self, request: Request) -> Rendered:
        step, watch = request.step, request.watch
        if watch.leave is not None:
            raise watch.leave
        from worker.diffusion import PipelineInputError

        pipe = self._pipeline(request.model)
        begun = time.monotonic()
        source = request.source
        if isinstance(source, Latent) and source.fingerprint != pipe.vae_fingerprint:
            raise InvalidModel(
                f"model {request.model.alias}: its VAE is not the one that the step before was"
                " told of; all workers of a pool need the same models"
            )
        try:
            (values,) = pipe(
                step.prompt,
                image=source.values if isinstance(source, Latent) else source,
                negative_prompt=step.negative_prompt or None,
                num_inference_steps=step.num_inference_steps,
                guidance_scale=step.guidance_scale,
                seed=step.seed,
                width=step.width,
                height=step.height,
                scheduler=step.scheduler,
                output_type="latent",
                on_step=watch.on_step,
                **({"strength": step.strength} if isinstance(step, Img2Img) else {}),
            )
            handed_over = self._takes_latent(request, pipe, values)
            picture = None
            if request.picture or (request.following and not handed_over):
                picture = pipe.decode_picture(values)
        except LatentmillError:
            raise
        except PipelineInputError as error:
            raise InvalidSpec(str(error)) from None
        except FloatingPointError as error:
            raise BadOutput(str(error)) from None
        except RuntimeError as error:
            logger.exception("the device failed")
            raise DeviceFailed(first_sentence(error)) from error
        if not np.isfinite(values).all():
            raise BadOutput("the model's result holds values that are not finite")
        latent = Latent(values=values, fingerprint=pipe.vae_fingerprint) if handed_over else None
        scale = pipe.vae_scale_factor
        return Rendered(
            picture=picture,
            latent=latent,
            width=values.shape[2] * scale,
            height=values.shape[1] * scale,
            scheduler=pipe.scheduler_name(step.scheduler),
            model_revision=pipe.revision,
            vae_fingerprint=pipe.vae_fingerprint,
            seconds=time.monotonic() - begun,
            warnings=tuple(_warnings(pipe, step)),
        )

    def _takes_latent(self, request: Request, pipe: Any, values: NDArray[np.float32]) -> bool:
        """Whether the next step can go on from the latent: the same VAE, and no other size."""
        if request.following is None:
            return False
        step, model = request.following
        height, width = (side * pipe.vae_scale_factor for side in values.shape[1:])
        if (step.width or width, step.height or height) != (width, height):
            return False
        return bool(self._pipeline(model).vae_fingerprint == pipe.vae_fingerprint)

    def _pipeline(self, model: Model) -> Any:
        if model in self._pipelines:
            self._pipelines.move_to_end(model)
            return self._pipelines[model]
        from worker.diffusion import CheckpointError, HubError, Pipeline, reclaim_memory

        if len(self._pipelines) >= LOADED_MODELS:
            self._pipelines.popitem(last=False)
            reclaim_memory()
        begun = time.monotonic()
        try:
            pipe = Pipeline.from_pretrained(
                locate(model), revision=model.revision, variant=model.variant, dtype=model.dtype
            )
        except CheckpointError as error:
            raise InvalidModel(f"model {model.alias}: {error}") from None
        except (HubError, OSError) as error:
            raise Unavailable(f"model {model.alias} could not be read: {error}") from None
        logger.info("loaded model %s in %.1f s", model.alias, time.monotonic() - begun)
        self._pipelines[model] = pipe
        self.loaded = tuple(model.alias for model in self._pipelines)
        return pipe


def _warnings(pipe: Any, step: Step) -> list[str]:
    return [
        f"{name} is longer than the model's 77 tokens; not used: {cut!r}"
        for name, text in (("prompt", step.prompt), ("negative_prompt", step.negative_prompt))
        if (cut := pipe.tokenizer.cut_off(text))
    ]
