"""The device loop takes rows of two stages, as Kandinsky's, along like any others."""

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.models import Model
from storage.spec import Img2Img, Text2Img
from tests.reference.make_pipelines import picture
from tests.reference.tiny_kandinsky import write_decoder, write_prior
from worker.device import Device
from worker.device_loop import DeviceLoop
from worker.models import find
from worker.rendering import Latent, Rendered, Request, Watch
from worker.runner import Stopping

SHORT = {"model": "kandinsky", "num_inference_steps": 4, "prior_num_inference_steps": 3, "seed": 7}
SQUARE = {"width": 64, "height": 64}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A decoder whose card names no prior: the registry does."""
    folder = tmp_path_factory.mktemp("models")
    prior = write_prior(folder / "prior")
    decoder = write_decoder(folder / "decoder", None)
    return Model(alias="kandinsky", source=str(decoder), prior=str(prior))


@pytest.fixture(scope="module")
def loop() -> Iterator[DeviceLoop]:
    loop = DeviceLoop(Device("cpu"))
    loop.start()
    yield loop
    loop.stop()


class Noting(Watch):
    """Notes each report, and leaves after `enough` steps."""

    def __init__(self, enough: int | None = None) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []
        self.enough = enough

    def report(self, done: int, total: int, *preview: Any) -> None:
        self.seen.append((done, total))
        if done == self.enough:
            self.leave = Stopping("enough")


def submit(
    loop: DeviceLoop, model: Model, step: Text2Img | Img2Img, **more: object
) -> Future[Rendered]:
    given = {"source": None, "following": None, "picture": True, **more}
    return loop.submit(Request(step=step, model=model, **given))  # type: ignore[arg-type]


def pixels(rendered: Rendered) -> np.ndarray:
    return np.asarray(rendered.picture)


def test_progress_counts_the_steps_of_both_stages(loop: DeviceLoop, model: Model) -> None:
    watch = Noting()
    step = Text2Img(prompt="a cat", **SHORT, **SQUARE)
    rendered = submit(loop, model, step, watch=watch).result()
    assert watch.seen == [(done, 7) for done in range(8)]
    assert rendered.picture is not None
    assert rendered.picture.size == (rendered.width, rendered.height) == (64, 64)
    assert rendered.scheduler == "DDPMScheduler"


@pytest.mark.parametrize("left_after", [2, 5])
def test_a_row_that_left_goes_on_where_it_was(
    loop: DeviceLoop, model: Model, left_after: int
) -> None:
    step = Img2Img(prompt="a cat", negative_prompt="low", strength=1.0, **SHORT)
    source = picture(64, 64)
    whole = submit(loop, model, step, source=source).result()
    watch = Noting(left_after)
    with pytest.raises(Stopping):
        submit(loop, model, step, source=source, watch=watch).result()
    resumed = submit(loop, model, step, source=source, resume=watch.left).result()
    assert resumed.resumed_at == left_after
    np.testing.assert_array_equal(pixels(resumed), pixels(whole))


def test_rows_of_different_stages_get_what_they_get_alone(loop: DeviceLoop, model: Model) -> None:
    steps = [
        Text2Img(prompt="a cat", **{**SHORT, "prior_num_inference_steps": 2 + i}, **SQUARE)
        for i in range(3)
    ]
    alone = [pixels(submit(loop, model, step).result()) for step in steps]
    together = [submit(loop, model, step) for step in steps]
    for future, expected in zip(together, alone, strict=True):
        difference = np.abs(np.int16(pixels(future.result())) - np.int16(expected))
        assert difference.max() <= 1


def test_a_chain_hands_over_the_latent_of_the_movq(loop: DeviceLoop, model: Model) -> None:
    following = Img2Img(prompt="a dog", strength=0.5, **SHORT)
    step = Text2Img(prompt="a cat", **SHORT, **SQUARE)
    first = submit(loop, model, step, following=(following, model), picture=False).result()
    assert isinstance(first.latent, Latent)
    assert first.latent.values.shape == (4, 8, 8)
    second = submit(loop, model, following, source=first.latent).result()
    assert second.picture is not None


def test_what_a_model_takes_on_disk_counts_its_prior(model: Model) -> None:
    found = find(model)
    folders = [Path(place) for place in (model.source, str(model.prior))]
    total = sum(f.stat().st_size for folder in folders for f in folder.rglob("*") if f.is_file())
    assert found == {"path": model.source, "family": "kandinsky", "bytes": total}
