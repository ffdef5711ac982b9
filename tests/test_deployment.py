"""The files for production, read by a real compose parser."""

import re
from pathlib import Path
from typing import Any

import pytest
from compose_spec import PyOptions

from producer.commands.serve import PORT

ROOT = Path(__file__).parent.parent
SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    text = (ROOT / "docker-compose.yml").read_text()
    parsed = PyOptions(apply_merge=True).from_yaml(text)
    parsed.validate()
    return parsed.to_dict()


def test_the_parser_refuses_a_broken_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    with pytest.raises(ValueError, match="expected"):
        PyOptions(apply_merge=True).from_yaml(text.replace("restart: on-failure", "restart: [1]"))


def test_every_service_that_stays_has_a_health_check(compose: dict[str, Any]) -> None:
    missing = {n for n, s in compose["services"].items() if "healthcheck" not in s}
    assert missing == {"migrate"}


def test_eight_ascend_workers_are_pinned_to_a_card_each(compose: dict[str, Any]) -> None:
    workers = {n: s for n, s in compose["services"].items() if s.get("profiles") == ["ascend"]}
    cards = []
    for service in workers.values():
        own = [d for d in service["devices"] if re.fullmatch(r"/dev/davinci\d:/dev/davinci\d", d)]
        assert len(own) == 1
        cards.append(own[0].split(":")[0])
        shared = {d.split(":")[0] for d in service["devices"]} - {cards[-1]}
        assert shared == {"/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc"}
        assert any(v.startswith("/usr/local/Ascend/driver:") for v in service["volumes"])
        assert service["command"] == ["worker", "--device", "ascend:0"]
    assert sorted(cards) == [f"/dev/davinci{n}" for n in range(8)]


def test_the_api_is_published_to_its_host_only(compose: dict[str, Any]) -> None:
    api = compose["services"]["api"]
    assert api["profiles"] == ["api"]
    assert api["command"] == ["serve", "--host", "0.0.0.0"]
    (port,) = api["ports"]
    assert str(port) == f"127.0.0.1:{PORT}:{PORT}"
    assert f":{PORT}/readyz" in str(api["healthcheck"]["test"])


def test_without_the_profile_one_worker_runs_on_the_cpu(compose: dict[str, Any]) -> None:
    plain = {n for n, s in compose["services"].items() if "profiles" not in s}
    assert plain == {"redis", "postgres", "objects", "migrate", "worker"}
    assert compose["services"]["worker"]["command"] == ["worker", "--device", "cpu"]


def test_no_file_holds_a_password_and_compose_insists_on_one(compose: dict[str, Any]) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for secret in SECRETS:
        uses = re.findall(r"\$\{" + secret + r"([^}]*)\}", text)
        assert uses
        assert all(use.startswith(":?") for use in uses)
    example = (ROOT / ".env.example").read_text()
    settings = [line for line in example.splitlines() if line and not line.startswith("#")]
    assert {line.split("=")[0] for line in settings} >= set(SECRETS)
    assert all(line.endswith("=") for line in settings)


def test_redis_keeps_what_it_was_given(compose: dict[str, Any]) -> None:
    command = compose["services"]["redis"]["command"]
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.ascend"])
def test_a_dockerfile_copies_only_what_is_there(name: str) -> None:
    lines = (ROOT / "docker" / name).read_text().splitlines()
    copied = [part for line in lines if line.startswith("COPY ") for part in line.split()[1:-1]]
    assert copied
    assert all((ROOT / part).exists() for part in copied)


def test_the_ascend_image_takes_its_base_as_an_argument() -> None:
    text = (ROOT / "docker" / "Dockerfile.ascend").read_text()
    assert re.search(r"^ARG BASE\nFROM \$\{BASE\}$", text, re.MULTILINE)
