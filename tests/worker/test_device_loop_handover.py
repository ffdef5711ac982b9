"""From SDXL's base to its refiner in the middle of the way, through the device loop."""

from collections.abc import Iterator

import numpy as np
import pytest

from storage.errors import InvalidSpec
from storage.models import Model
from storage.spec import Img2Img, Text2Img
from tests.reference.tiny import write_stable_diffusion
from tests.reference.tiny_sdxl import write_base, write_refiner
from worker.device import Device
from worker.device_loop import DeviceLoop
from worker.diffusion import Pipeline
from worker.rendering import Rendered, Request

RUN = {"num_inference_steps": 5, "seed": 7}
BASE = Text2Img(model="base", prompt="a cat", denoising_end=0.6, width=64, height=64, **RUN)
REFINER = Img2Img(model="refiner", prompt="a cat", denoising_start=0.6, **RUN)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    write_base(folder / "base")
    write_refiner(folder / "refiner")
    write_stable_diffusion(folder / "other")
    return {
        name: Model(alias=name, source=str(folder / name)) for name in ("base", "refiner", "other")
    }


@pytest.fixture(scope="module")
def loop() -> Iterator[DeviceLoop]:
    loop = DeviceLoop(Device("cpu"))
    loop.start()
    yield loop
    loop.stop()


def test_the_refiner_goes_on_where_the_base_ended(
    loop: DeviceLoop, models: dict[str, Model]
) -> None:
    following = (REFINER, models["refiner"])
    request = Request(
        step=BASE, model=models["base"], source=None, following=following, picture=False
    )
    first = loop.submit(request).result()
    assert first.latent is not None
    request = Request(
        step=REFINER, model=models["refiner"], source=first.latent, following=None, picture=True
    )
    last: Rendered = loop.submit(request).result()

    base, refiner = (Pipeline.from_pretrained(models[name].source) for name in ("base", "refiner"))
    size = {"width": 64, "height": 64}
    (latent,) = base("a cat", denoising_end=0.6, output_type="latent", **size, **RUN)
    (expected,) = refiner("a cat", latent, denoising_start=0.6, **RUN)
    # Encoded in other company, which may turn the last bit.
    one, other = (np.asarray(each, np.int16) for each in (last.picture, expected))
    assert np.abs(one - other).max() <= 1


def test_what_is_still_noisy_is_never_made_a_picture_of(
    loop: DeviceLoop, models: dict[str, Model]
) -> None:
    following = (
        Img2Img(model="other", prompt="a cat", denoising_start=0.6, **RUN),
        models["other"],
    )
    request = Request(
        step=BASE, model=models["base"], source=None, following=following, picture=False
    )
    with pytest.raises(InvalidSpec, match="denoising_end: what it leaves is noisy"):
        loop.submit(request).result()
