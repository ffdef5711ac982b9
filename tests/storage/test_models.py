from pathlib import Path

import pytest

from storage.errors import NotConfigured, UnknownModel
from storage.models import Model, find_model, load_models
from storage.settings import Settings


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def test_every_installation_knows_the_demo_and_stable_diffusion(home: Path) -> None:
    models = load_models(Settings(home=home))
    assert models["demo"].source == "bundled:demo"
    assert models["sd15"] == Model(
        alias="sd15", source="stable-diffusion-v1-5/stable-diffusion-v1-5", variant="fp16"
    )


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
    assert set(load_models(Settings(home=home, models_file=other))) == {"demo", "sd15", "ünï/code"}


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
        UnknownModel, match=r"model: 'sd51' is not known \(known: demo, sd15\); did you mean sd15\?"
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
