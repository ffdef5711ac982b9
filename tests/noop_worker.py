"""A worker process as it is, but for its device: no MindSpore, and the same picture at once.

What a real device does badly stands in the prompt: "dies", "out of memory". Steps beyond the first
take ten milliseconds. `--clock SECONDS` sets this host's clock wrong.
"""

import faulthandler
import os
import signal
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import numpy as np
from PIL import Image

from storage.errors import DeviceFailed
from worker import service
from worker.__main__ import main
from worker.device import Device
from worker.meter import Meter
from worker.rendering import Latent, Rendered, Request

STEP_SECONDS = 0.01


class NoOpLoop:
    """Answers as the device loop does."""

    version, loaded = "none", ()

    def __init__(self, device: Device, *_: Any) -> None:
        self.device = device
        self.meter = Meter()
        self._threads = ThreadPoolExecutor(16)

    def start(self) -> None:
        """There is nothing to bring up."""

    def stop(self) -> None:
        self._threads.shutdown()

    def expect(self, _: Any) -> None:
        """Nothing is loaded ahead."""

    def figures(self) -> dict[str, Any]:
        return self.meter.figures()

    def submit(self, request: Request) -> "Future[Rendered]":
        return self._threads.submit(self._run, request)

    def _run(self, request: Request) -> Rendered:
        step, watch = request.step, request.watch
        for done in range(step.num_inference_steps):
            if watch.leave is not None:
                raise watch.leave
            if done:
                time.sleep(STEP_SECONDS)
            watch.report(done + 1, step.num_inference_steps)
            if step.prompt == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
        if step.prompt == "out of memory":
            raise DeviceFailed("out of memory")
        latent = Latent(values=np.zeros((4, 8, 8), np.float32), fingerprint="none")
        known: dict[str, Any] = {
            "picture": Image.linear_gradient("L").convert("RGB") if request.picture else None,
            "latent": latent if request.following else None,
            "width": 64,
            "height": 64,
            "scheduler": "none",
            "options": {"num_inference_steps": 1, "guidance_scale": 1.0, "strength": 1.0},
            "model_revision": None,
            "vae_fingerprint": "none",
            "seconds": 0.0,
            "resumed_at": 0,
            "warnings": (),
        }
        return Rendered(**{f.name: known[f.name] for f in fields(Rendered)})


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR2)  # says where every thread is
    service.DeviceLoop = NoOpLoop  # type: ignore[misc, assignment]
    if "--clock" in sys.argv:
        place = sys.argv.index("--clock")
        wrong, right = float(sys.argv[place + 1]), time.time
        del sys.argv[place : place + 2]
        time.time = lambda: right() + wrong
    sys.exit(main())
