"""Which models stay loaded within a budget of bytes."""

from pathlib import Path
from typing import Any

import pytest

import worker.diffusion
from storage.models import Model
from tests.reference.tiny import write_stable_diffusion
from worker.loaded_models import LoadedModels, Wanted

#: Bytes and seconds of loading, by the model's name.
SIZES = {"small": (100, 1.0), "large": (1000, 5.0), "dear": (100, 60.0), "other": (100, 1.0)}


class Pipe:
    vae_fingerprint = "f"

    def __init__(self, name: str) -> None:
        self.bytes, self.seconds = SIZES[name]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of SIZES in place of real ones, on a clock that only loading moves."""
    clock = [0.0]

    class Loader:
        @staticmethod
        def expected_bytes(name: Path, **_: Any) -> int:
            return SIZES[str(name)][0]

        @staticmethod
        def from_pretrained(name: Path, **_: Any) -> Pipe:
            pipe = Pipe(str(name))
            clock[0] += pipe.seconds
            return pipe

    monkeypatch.setattr(worker.diffusion, "Pipeline", Loader)
    monkeypatch.setattr(worker.diffusion, "reclaim_memory", lambda _: None)
    monkeypatch.setattr(worker.diffusion, "weight_bytes", lambda p: sum(one.bytes for one in p))
    monkeypatch.setattr("worker.loaded_models.locate", lambda model: model.source)
    monkeypatch.setattr("worker.loaded_models.time.monotonic", lambda: clock[0])


def use(models: LoadedModels, *names: str) -> None:
    for name in names:
        models.get(Wanted(Model(alias=name, source=name)))


@pytest.mark.usefixtures("now")
def test_models_stay_while_the_budget_lasts() -> None:
    models = LoadedModels(budget=1200)
    use(models, "small", "large", "dear", "small", "large")
    assert models.loads == 3
    assert models.aliases == ("small", "large", "dear")


@pytest.mark.usefixtures("now")
def test_what_is_dear_to_load_stays_longer() -> None:
    models = LoadedModels(budget=200)
    use(models, "dear", "small", "other")
    assert models.aliases == ("dear", "other")


@pytest.mark.usefixtures("now")
def test_what_was_not_used_for_long_leaves_however_dear() -> None:
    models = LoadedModels(budget=200)
    use(models, "dear", *["small", "other"] * 100)
    assert set(models.aliases) == {"small", "other"}


@pytest.mark.usefixtures("now")
def test_what_jobs_wait_for_stays() -> None:
    models = LoadedModels(budget=200)
    models.demand = {"small": 5000}
    use(models, "small", "dear", "other")
    assert models.aliases == ("small", "other")


@pytest.mark.usefixtures("now")
def test_a_model_over_the_budget_is_loaded_alone() -> None:
    models = LoadedModels(budget=500)
    use(models, "small", "large")
    assert models.aliases == ("large",)
    use(models, "small")
    assert models.aliases == ("small",)


def test_checkpoints_share_the_models_that_are_the_same(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_stable_diffusion(tmp_path / name)
    config = tmp_path / "other" / "vae" / "config.json"
    config.write_text(config.read_text().replace('"sample_size": 64', '"scaling_factor": 0.5'))
    models = LoadedModels(budget=10**9)
    one, other = (
        models.get(Wanted(Model(alias=name, source=str(tmp_path / name))))
        for name in ("one", "other")
    )
    assert one.unet is other.unet
    assert one.encode_prompt.text_encoder is other.encode_prompt.text_encoder
    assert one.vae is not other.vae
    both = worker.diffusion.weight_bytes([one, other])
    assert worker.diffusion.weight_bytes([one]) < both < 2 * worker.diffusion.weight_bytes([one])
