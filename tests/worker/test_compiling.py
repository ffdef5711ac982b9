"""What rows in flight would wait for is compiled by another process."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import worker.compiling
from storage.models import Model
from storage.spec import Img2Img, Text2Img
from tests.reference.make_pipelines import picture
from tests.reference.tiny import write_stable_diffusion
from tests.reference.tiny_kandinsky import write_combined
from worker.compiling import Compiling, Need, compile_ahead, need_of
from worker.diffusion import keep_graphs
from worker.diffusion.models import shared
from worker.loaded_models import LoadedModels, Wanted
from worker.rendering import Latent, Request

ROOM = 2**30


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(alias="tiny", source=str(write_stable_diffusion(tmp_path / "model")))


@pytest.fixture
def pipe(model: Model, monkeypatch: pytest.MonkeyPatch) -> Any:
    # Else the models of other tests, compiled for some sizes, could be taken for these.
    monkeypatch.setattr(shared, "_held", {})
    return LoadedModels(budget=0).get(Wanted(model))


@pytest.fixture
def compiling(tmp_path: Path) -> Iterator[Compiling]:
    folder = tmp_path / "graphs"
    folder.mkdir()
    made = Compiling(folder, ROOM)
    yield made
    made.stop()


def need(model: Model, **values: Any) -> Need:
    return Need(**{"model": model, "size": (72, 64), "from_picture": True, "guided": True} | values)


def wait_until_met(compiling: Compiling, asked: Need, pipe: Any) -> None:
    end = time.monotonic() + 240
    while not compiling.is_met(asked, pipe):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_the_other_process_compiled_is_all_that_a_job_needs(
    tmp_path: Path, compiling: Compiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_held", {})
    model = Model(alias="both", source=str(write_combined(tmp_path / "both")))
    pipe, folder = LoadedModels(budget=0).get(Wanted(model)), tmp_path / "graphs"
    asked = need(model, size=pipe.default_size)
    assert not compiling.is_met(asked, pipe)
    assert not compiling.is_met(asked._replace(rows=8), pipe)  # one after the other
    wait_until_met(compiling, asked, pipe)
    made = {file.name for file in folder.glob("*.mindir")}
    # Two texts and one, the prior, the UNet, the two halves of the autoencoder.
    assert len(made) == 6
    keep_graphs(folder)
    try:
        pipe("a cat", picture(*pipe.default_size), strength=1.0, num_inference_steps=2)
    finally:
        keep_graphs(None)
    assert {file.name for file in folder.glob("*.mindir")} == made


def test_ahead_all_batches_are_compiled(
    pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.compiling, "ROWS", (1, 2))
    folder = tmp_path / "graphs"
    keep_graphs(folder)
    try:
        compile_ahead(pipe)
        made = {file.name for file in folder.iterdir()}
        # The UNet with 2 and 4 places, encoder and decoder with 1 and 2; one prompt and two.
        assert len(made) == 2 + 2 + 2 + 2
        pipe.forget_graphs()
        pipe("a cat", num_inference_steps=2)
        assert {file.name for file in folder.iterdir()} == made
    finally:
        keep_graphs(None)


def test_other_workers_find_what_one_has_compiled(
    model: Model, pipe: Any, compiling: Compiling, tmp_path: Path
) -> None:
    compiling.note(need(model))
    other = Compiling(tmp_path / "graphs", ROOM)
    assert other.is_met(need(model), pipe)
    for differs in ({"size": (64, 64)}, {"from_picture": False}, {"guided": False}, {"rows": 8}):
        other = Compiling(tmp_path / "graphs", ROOM)
        assert not other.is_met(need(model, **differs), pipe)
        other.stop()


def test_what_cannot_be_compiled_is_left_to_the_job(pipe: Any, compiling: Compiling) -> None:
    gone = need(Model(alias="gone", source="/nowhere"))
    assert not compiling.is_met(gone, pipe)
    wait_until_met(compiling, gone, pipe)


def test_where_no_process_can_be_begun_the_job_compiles(
    model: Model, pipe: Any, compiling: Compiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert not compiling.is_met(need(model), pipe)
    assert compiling.is_met(need(model), pipe)


def test_a_model_too_large_to_be_there_twice_is_compiled_here(
    model: Model, pipe: Any, tmp_path: Path
) -> None:
    assert Compiling(tmp_path, 1000).is_met(need(model), pipe)
    assert Compiling(None).is_met(need(model), pipe)


def test_a_need_is_what_the_request_runs_at(model: Model, pipe: Any) -> None:
    def needed(step: Text2Img | Img2Img, source: Any = None) -> Need:
        request = Request(step=step, model=model, source=source, following=None, picture=True)
        return need_of(request, pipe)

    assert needed(Text2Img(model="tiny", prompt="a")) == need(
        model, size=(64, 64), from_picture=False
    )
    step = Img2Img(model="tiny", prompt="a", guidance_scale=1.0)
    assert needed(step, picture(80, 75)) == need(model, size=(80, 72), guided=False)
    latent = Latent(values=np.zeros((4, 8, 10), np.float32), fingerprint="x")
    assert needed(step, latent) == need(model, size=(80, 64), from_picture=False, guided=False)
