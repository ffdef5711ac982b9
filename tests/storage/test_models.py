from pathlib import Path
from typing import Any

import pytest

from storage.errors import InvalidSpec, NotConfigured, UnknownModel
from storage.models import Model, find_model, load_models
from storage.settings import Settings
from storage.spec import Img2Img, Text2Img


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


PACKAGE = ["comic", "demo", "kandinsky22", "pixel-art", "sd15", "sd21", "sdxl", "sdxl-refiner"]


def a_model(**values: Any) -> Model:
    return Model(**{"alias": "mine", "source": "a/b", **values})


def test_every_installation_knows_the_demo_and_the_published_models(home: Path) -> None:
    models = load_models(Settings(home=home))
    assert sorted(models) == PACKAGE
    assert models["demo"].source == "bundled:demo"
    assert models["sd15"].source == "stable-diffusion-v1-5/stable-diffusion-v1-5"


def test_a_model_fills_in_what_a_step_leaves_open() -> None:
    euler = {"class": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}
    model = a_model(scheduler=euler, num_inference_steps=4, guidance_scale=0.0, strength=0.5)
    bare = Img2Img(model="mine", prompt="", seed=1)
    filled = model.fill(bare)
    assert filled.model_dump() == {
        **bare.model_dump(), "scheduler": euler, "num_inference_steps": 4, "guidance_scale": 0.0,
        "strength": 0.5,
    }  # fmt: skip
    asked = Img2Img(model="mine", prompt="", num_inference_steps=9, guidance_scale=3.0,
                    strength=0.9, scheduler="DDIMScheduler")  # fmt: skip
    assert model.fill(asked) == asked
    assert not hasattr(model.fill(Text2Img(model="mine", prompt="")), "strength")
    assert a_model().fill(bare) == bare


def test_what_a_model_and_a_step_say_must_go_together() -> None:
    with pytest.raises(InvalidSpec, match=r"strength 0.2 of 4 steps leaves no step to run"):
        a_model(num_inference_steps=4).fill(Img2Img(model="mine", prompt="", strength=0.2))


@pytest.mark.parametrize(
    ("limits", "size", "sentence"),
    [
        ({"max_side": 64}, (72, None), r"width: model mine allows sides of at most 64 \(got 72\)"),
        ({"min_side": 64}, (64, 56), r"height: model mine allows sides of at least 64 \(got 56\)"),
        ({"min_side": 8, "max_side": 64}, (72, 8), "of at least 8 and at most 64"),
        ({"max_pixels": 4096}, (72, 64), r"at most 4,096 pixels \(got 72x64, 4,608\)"),
    ],
)
def test_a_size_that_a_model_is_not_allowed_is_named(
    limits: dict[str, int], size: tuple[int, int | None], sentence: str
) -> None:
    with pytest.raises(InvalidSpec, match=sentence):
        a_model(**limits).check_size(*size)
    a_model(**limits).check_size(64, 64)
    a_model(**limits).check_size(None, None)


def test_a_file_in_the_home_adds_models_and_replaces_them(home: Path) -> None:
    (home / "models.toml").write_text(
        '[mine]\nsource = "/data/mine"\ndtype = "float16"\npool = "big"\n[sd15]\nsource = "x/y"\n'
    )
    models = load_models(Settings(home=home))
    assert models["mine"] == Model(alias="mine", source="/data/mine", dtype="float16", pool="big")
    assert (models["sd15"].source, models["sd15"].variant) == ("x/y", None)
    assert "demo" in models


def test_a_file_that_is_named_is_read_instead_of_the_home_s(home: Path) -> None:
    (home / "models.toml").write_text('[mine]\nsource = "a"\n')
    other = home / "other.toml"
    other.write_text('["ünï/code"]\nsource = "b"\n')
    assert set(load_models(Settings(home=home, models_file=other))) == {*PACKAGE, "ünï/code"}


def test_a_file_that_is_named_and_missing_is_an_error(home: Path) -> None:
    with pytest.raises(NotConfigured, match=r"models_file: .*gone.toml cannot be read"):
        load_models(Settings(home=home, models_file=home / "gone.toml"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[mine", "models.toml: Expected"),
        ('mine = "x"', "mine: a model is a table"),
        ("[mine]\n", "mine.source: Field required"),
        ('[mine]\nsource = "x"\ndtype = "int8"', "mine.dtype: Input should be 'float32'"),
        ('[mine]\nsource = "x"\nsize = 3', "mine.size: Extra inputs are not permitted"),
        ('[mine]\nsource = "x"\nscheduler = "Eular"', "mine.scheduler: .*'Eular' is not one of"),
        ('[mine]\nsource = "x"\nscheduler = {steps = 1}', "mine.scheduler: .*is not one of"),
        ('[mine]\nsource = "x"\nstrength = 2.0', "mine.strength: .*less than or equal to 1"),
        ('[mine]\nsource = "x"\nmax_side = 0', "mine.max_side: .*greater than 0"),
        ("[mine]\nsource = 3", "mine.source: Input should be a valid string"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(home: Path, text: str, sentence: str) -> None:
    (home / "models.toml").write_text(text)
    with pytest.raises(NotConfigured, match=sentence):
        load_models(Settings(home=home))


def test_an_unknown_model_is_named_with_those_that_are_known(home: Path) -> None:
    settings = Settings(home=home)
    with pytest.raises(
        UnknownModel,
        match=r"model: 'sd51' is not known \(known: comic, .*did you mean sd21 or sd15\?",
    ):
        find_model(load_models(settings), "sd51", settings)


def test_only_who_allows_any_model_gets_what_is_not_registered(home: Path) -> None:
    closed, open_ = Settings(home=home), Settings(home=home, allow_any_model=True)
    for name in ("owner/model", str(home)):
        with pytest.raises(UnknownModel):
            find_model({}, name, closed)
        assert find_model({}, name, open_) == Model(alias=name, source=name)
    for name in ("no-such-folder", "../x/y", "a/b/c", "/no/such/folder", "bundled:demo", ""):
        with pytest.raises(UnknownModel):
            find_model({}, name, open_)
