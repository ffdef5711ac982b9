"""The shape of the house: who may import whom."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("storage", "producer", "worker")
ENGINE = "worker.diffusion"
SOURCES = sorted(file for part in OURS for file in (ROOT / part).rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, package: str) -> set[str]:
    """Every module that a source imports, wherever in it; `from a import b` counts as a.b too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            found.update([base, *(f"{base}.{alias.name}" for alias in node.names)])
    return found


def is_in(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def forbidden_to(module: str) -> tuple[str, ...]:
    """Packages that a module of ours must not import."""
    if is_in(module, "storage"):
        return ("producer", "worker")
    if is_in(module, "producer"):
        return ("worker",)
    if is_in(module, f"{ENGINE}.models"):
        return ("storage", "producer", f"{ENGINE}.schedulers", f"{ENGINE}.pipelines")
    if is_in(module, f"{ENGINE}.schedulers"):
        return ("storage", "producer", f"{ENGINE}.models", f"{ENGINE}.pipelines")
    if is_in(module, ENGINE):
        return ("storage", "producer")
    return ("producer",)


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_imports_only_what_it_may(file: Path) -> None:
    module = module_of(file)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    imports = imports_of(file.read_text(), package)
    wrong = {name for name in imports if is_in(name, *forbidden_to(module))}
    if is_in(module, ENGINE):
        wrong |= {n for n in imports if is_in(n, "worker") and not is_in(n, ENGINE)} - {"worker"}
    assert wrong == set()


def test_imports_are_seen_wherever_and_however_they_stand() -> None:
    source = """
import json.decoder
from . import near
from ..above import thing
def later():
    if True:
        from worker import device
"""
    assert imports_of(source, "storage.embedded") == {
        "json.decoder",
        "storage.embedded",
        "storage.embedded.near",
        "storage.above",
        "storage.above.thing",
        "worker",
        "worker.device",
    }


@pytest.mark.parametrize("module", ["producer", "storage", "storage.ledger", "storage.objects"])
def test_asking_for_pictures_needs_no_numerics(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert loaded & {"mindspore", "numpy", "scipy", "tokenizers", "safetensors"} == set()


def test_the_door_of_storage_opens_quickly() -> None:
    code = "import json, sys, storage; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert loaded & {"sqlalchemy", "boto3", "celery", "alembic", "PIL"} == set()


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_has_one_noun_and_is_no_longer_than_the_house_allows(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 350
