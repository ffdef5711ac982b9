"""`models`: what this machine has of the registered models, from a hub of our own."""

import json
from pathlib import Path

import pytest

from tests.hub import COMMIT, running_hub
from tests.producer.conftest import Run
from tests.reference.tiny import write_stable_diffusion

OWN = """
[tiny]
source = "mill/tiny"
guidance_scale = 3.0
pool = "small"
[absent]
source = "mill/absent"
[empty]
source = "{home}/empty"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with models of its own, and an empty cache."""
    home = tmp_path / "home"
    (home / "empty").mkdir(parents=True)
    (home / "models.toml").write_text(OWN.format(home=home))
    monkeypatch.setenv("LATENTMILL_HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    # The models process must find this checkout, as it does where latentmill is installed.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return home


def test_a_model_is_pulled_then_here_then_checked_without_a_network(
    unset: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_stable_diffusion(home / "published")
    with running_hub({"mill/tiny": folder}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
        pulled = unset("models", "pull", "tiny", "--json")
        absent = unset("models", "pull", "tiny", "absent")
    assert pulled.status == 0
    (line,) = map(json.loads, pulled.out.splitlines())
    assert (line["alias"], line["family"], line["error"]) == ("tiny", "stable-diffusion", None)
    assert Path(line["path"]).name == COMMIT
    files = [file for file in Path(line["path"]).rglob("*") if file.is_file()]
    assert line["bytes"] == sum(file.stat().st_size for file in files) > 100_000
    assert absent.status == 2
    assert "absent: 'mill/absent' is neither a folder here nor a repository" in absent.err

    listed = unset("models", "list", "--json")
    lines = {found["alias"]: found for found in map(json.loads, listed.out.splitlines())}
    assert {"demo", "sd15", "tiny", "absent", "empty"} <= lines.keys()
    assert [lines[name]["here"] for name in ("demo", "tiny", "absent", "empty")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert (lines["tiny"]["pool"], lines["tiny"]["guidance_scale"]) == ("small", 3.0)
    assert "model_index.json" in lines["empty"]["missing"]

    checked = unset("models", "check", "tiny", "--json")
    assert checked.status == 0
    assert json.loads(checked.out)["revision"] == COMMIT
    weights = next(Path(line["path"]).glob("vae/*.safetensors"))
    weights.resolve().write_bytes(weights.read_bytes()[:-8])
    broken = unset("models", "check", "tiny", "absent")
    assert broken.status == 2
    assert "tiny: " in broken.err
    assert "damaged or cut short" in broken.err
    assert "absent: not all of its files are here: latentmill models pull absent" in broken.err

    gone = unset("models", "pull", "absent")
    assert gone.status == 3
    assert "absent: The hub did not answer" in gone.err


def test_an_unknown_alias_is_named(unset: Run, home: Path) -> None:
    ended = unset("models", "pull", "tinny")
    assert ended.status == 2
    assert "did you mean tiny?" in ended.err
