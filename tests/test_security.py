"""docs/security.md names a test for each threat, and each of these tests is there."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
DOCUMENT = (TESTS.parent / "docs" / "security.md").read_text()


def test_every_threat_names_tests_that_are_there() -> None:
    threats = DOCUMENT.partition("## Fuzzing")[0]
    rows = [line for line in threats.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 20
    for row in rows:
        threat, _, named = (cell.strip() for cell in row.strip("| ").split(" | "))
        file: Path | None = None
        found = re.findall(r"`([^`]+)`", named)
        assert found, threat
        for name in found:
            path, _, function = name.partition("::")
            if path and not path.startswith("…"):
                [file] = [each for each in TESTS.rglob("test_*.py") if str(each).endswith(path)]
            assert file is not None, threat
            function = (function or path.partition("…")[2] if "…" in name else function).strip("_")
            assert function in file.read_text(), (threat, name)
