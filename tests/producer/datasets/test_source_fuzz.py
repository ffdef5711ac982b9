"""Manifests of any content: each row can be read, or has its reason; never another error."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer.datasets import make_recipe, read_source
from producer.datasets.entry import BadEntry, Entry
from producer.datasets.recipe import drafts
from storage.errors import InvalidSpec

#: Tries for each kind; `FUZZ=10000` for a long run.
EXAMPLES = int(os.environ.get("FUZZ", "100"))
RECIPE = make_recipe({"model": "demo", "prompt": "{prompt}, comic style", "strength": 0.6})

cell = st.text(max_size=20) | st.sampled_from(["a.png", "../a.png", "/etc/passwd", "https://x.y/"])
row = st.dictionaries(
    st.sampled_from(["file_name", "prompt", "seed", "strength", "image", "key"]) | st.text(),
    cell | st.integers() | st.floats() | st.none() | st.booleans() | st.lists(cell, max_size=2),
    max_size=5,
)
jsonl = st.lists(
    row.map(json.dumps) | st.text(max_size=40) | st.just('{"custom_id": "a", "body": {}}'),
    max_size=6,
).map(lambda lines: "\n".join(lines).encode(errors="surrogatepass"))
csv = st.lists(st.lists(cell, max_size=4).map(",".join), max_size=6).map(
    lambda lines: ("file_name,prompt\n" + "\n".join(lines)).encode(errors="surrogatepass")
)
junk = st.binary(max_size=600)


@pytest.mark.parametrize(
    ("name", "contents"),
    [("x.jsonl", jsonl | junk), ("x.csv", csv | junk), ("x.tar", junk), ("x.parquet", junk)],
)
def test_any_manifest_is_read_or_refused(
    tmp_path: Path, name: str, contents: st.SearchStrategy[bytes]
) -> None:
    file = tmp_path / name

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=contents)
    def reads(data: bytes) -> None:
        file.write_bytes(data)
        try:
            found = list(read_source(str(file)))
        except InvalidSpec:
            return
        for entry in found:
            assert isinstance(entry, Entry | BadEntry)
            if isinstance(entry, Entry):
                assert not entry.name.startswith(("/", ".."))
                assert list(drafts(RECIPE, entry))
            else:
                assert entry.reason

    reads()
