"""`doctor`: one line for each part, and what to do about those that fail."""

import json
from pathlib import Path

import pytest

from producer.commands import doctor
from producer.commands.doctor import Finding, examine
from storage.jobs import Worker
from storage.settings import PREFIX, Settings
from tests.producer.conftest import Hand, Run

NOBODY = "127.0.0.1:9"


@pytest.fixture(autouse=True)
def _shipped(settings: Settings, tmp_path: Path) -> None:
    """A checkpoint for the alias demo, whether or not this checkout has the bundled one."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    settings.home.mkdir()
    (settings.home / "models.toml").write_text(f'[demo]\nsource = "{folder}"\n')


def statuses(findings: list[Finding]) -> dict[str, str]:
    return {finding.part: finding.status for finding in findings}


def test_where_all_is_well_every_line_is_ok(run: Run, hand: Hand) -> None:
    me = Worker(name="me", device="cpu", pool="default", slots=2, loaded=(), started_at=0)
    hand.ledger.report_worker(me)
    ended = run("doctor", "--json")
    said = json.loads(ended.out)
    assert (ended.status, said["ok"]) == (0, True), said
    assert [check["part"] for check in said["checks"]] == [
        "python", "home", "device", "broker", "bucket", "database", "models", "workers",
    ]  # fmt: skip
    assert {check["status"] for check in said["checks"]} == {"ok"}
    assert "MindSpore 2.8.0 on cpu" in ended.out


def test_each_part_that_fails_says_how_to_mend_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", [c for c in doctor.CHECKS if c.part != "device"])
    broken = {
        "redis_url": f"redis://:hunter2@{NOBODY}",
        "s3_endpoint_url": f"http://{NOBODY}",
        "database_url": f"postgresql://mill:hunter2@{NOBODY}/mill",
        "models_file": tmp_path / "missing.toml",
    }
    findings = examine(Settings.model_validate({**settings.model_dump(), **broken}))
    assert statuses(findings) == {
        "python": "ok", "home": "ok", "broker": "failed", "bucket": "failed",
        "database": "failed", "models": "failed", "workers": "failed",
    }  # fmt: skip
    assert all(finding.mend for finding in findings if finding.status == "failed")
    assert "hunter2" not in str(findings)


def test_a_database_without_tables_names_the_command(
    run: Run, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", [c for c in doctor.CHECKS if c.part == "database"])
    monkeypatch.setenv(f"{PREFIX}DATABASE_URL", sqlite_url.replace("ledger", "new"))
    ended = run("doctor")
    assert ended.status == 1
    assert "it has no tables" in ended.out
    assert "run `latentmill migrate`" in ended.out
    assert run("migrate").status == 0
    assert run("doctor").status == 0


def test_what_is_not_set_is_named_once(unset: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", [c for c in doctor.CHECKS if c.part == "broker"])
    ended = unset("doctor")
    assert ended.status == 1
    assert ended.out.count("REDIS_URL") == 1


def test_a_device_that_is_not_there_fails_with_its_reason(settings: Settings) -> None:
    found = {finding.part: finding for finding in examine(settings, "gpu:0")}["device"]
    assert found.status == "failed"
    assert found.says == "device 'gpu:0': it must be cpu or ascend:N, N a card's number"


def test_a_model_whose_folder_is_gone_is_named(settings: Settings) -> None:
    (settings.home / "models.toml").write_text('[mine]\nsource = "/nowhere/mine"\n')
    found = {finding.part: finding for finding in examine(settings)}["models"]
    assert found.status == "failed"
    assert "mine: there is no folder /nowhere/mine" in found.says
