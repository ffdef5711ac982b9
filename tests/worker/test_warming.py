"""Compiling ahead leaves the graphs of every part, for batches of each size."""

from pathlib import Path

import pytest

from storage.models import Model
from tests.reference.tiny import write_stable_diffusion
from worker import warming
from worker.diffusion import keep_graphs
from worker.diffusion.models import shared
from worker.loaded_models import LoadedModels, Wanted


def test_a_process_finds_what_another_compiled_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warming, "ROWS", (1, 2))
    # Else the models of other tests, compiled for some sizes, could be taken for these.
    monkeypatch.setattr(shared, "_held", {})
    source = write_stable_diffusion(tmp_path / "model")
    pipe = LoadedModels(budget=0).get(Wanted(Model(alias="tiny", source=str(source))))
    folder = tmp_path / "graphs"
    keep_graphs(folder)
    try:
        warming.compile_ahead(pipe)
        made = {file.name for file in folder.iterdir()}
        # The UNet with 2 and 4 places, encoder and decoder with 1 and 2; one prompt and two.
        assert len(made) == 2 + 2 + 2 + 2
        pipe.forget_graphs()
        pipe("a cat", num_inference_steps=2)
        assert {file.name for file in folder.iterdir()} == made
    finally:
        keep_graphs(None)
