import json
from pathlib import Path

import pytest

from storage.embedded.lock import locked
from storage.errors import NotConfigured
from storage.settings import STACK_FILE, Settings, load_settings, require

SECRETS = {
    "database_url": "postgresql://mill:geheim@host/db",
    "redis_url": "redis://:geheim@host",
    "s3_access_key": "geheim-key",
    "s3_secret_key": "geheim-secret",
}


def test_secrets_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(f"LATENTMILL_{name.upper()}", value)
    settings = load_settings()
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "geheim" not in shown
    assert require(settings, "database_url") == SECRETS["database_url"]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("lease_seconds", "soon", "LATENTMILL_LEASE_SECONDS: Input should be a valid number"),
        ("poll_seconds", "0", "LATENTMILL_POLL_SECONDS: Input should be greater than 0"),
        ("max_image_pixels", "1.5", "LATENTMILL_MAX_IMAGE_PIXELS: Input should be a valid integer"),
        (
            "allow_private_urls",
            "pictures.intern, http://x",
            "LATENTMILL_ALLOW_PRIVATE_URLS: .*'http://x' is no host name, address or network",
        ),
        ("allow_any_model", "maybe", "LATENTMILL_ALLOW_ANY_MODEL: Input should be a valid boolean"),
    ],
)
def test_a_value_that_cannot_be_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(f"LATENTMILL_{name.upper()}", value)
    with pytest.raises(NotConfigured, match=sentence):
        load_settings()


def test_a_list_stands_in_one_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTMILL_ALLOW_PRIVATE_URLS", "pictures.intern, 10.2.0.0/16 ::1")
    monkeypatch.setenv("LATENTMILL_INPUT_BUCKETS", "photos,scans")
    settings = load_settings()
    assert settings.allow_private_urls == ("pictures.intern", "10.2.0.0/16", "::1")
    assert settings.input_buckets == ("photos", "scans")


def test_what_is_missing_is_named_with_what_to_do(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    with pytest.raises(
        NotConfigured,
        match=rf"LATENTMILL_REDIS_URL is not set and no embedded stack runs in {tmp_path}: start",
    ):
        require(settings, "redis_url")


def test_a_running_stack_fills_in_what_the_environment_leaves_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / STACK_FILE).write_text(json.dumps({"redis_url": "redis://stack", "s3_bucket": "s"}))
    monkeypatch.setenv("LATENTMILL_S3_BUCKET", "mine")
    with locked(tmp_path):
        settings = load_settings(home=tmp_path)
    assert require(settings, "redis_url") == "redis://stack"
    assert settings.s3_bucket == "mine"


def test_what_a_killed_stack_left_behind_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / STACK_FILE).write_text(json.dumps({"redis_url": "redis://stack"}))
    with locked(tmp_path):
        pass
    assert load_settings(home=tmp_path).redis_url is None


def test_a_stack_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / STACK_FILE).write_text("{")
    with locked(tmp_path), pytest.raises(NotConfigured, match=r"stack.json cannot be read"):
        load_settings(home=tmp_path)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().s3_bucket = "other"  # type: ignore[misc]
