"""Pictures that were tampered with are refused with a sentence, or read: nothing else happens."""

import io
import os
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from storage.errors import InvalidImage
from storage.picture import FORMATS, check_picture, load_picture

#: Tries for each format; `FUZZ=10000` for a long run.
EXAMPLES = int(os.environ.get("FUZZ", "100"))
MOST = 100_000


def sample(form: str) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((32, 32)).convert("RGB").save(out, form)
    return out.getvalue()


@pytest.mark.parametrize("form", FORMATS)
def test_a_changed_file_is_read_or_refused(form: str) -> None:
    whole = sample(form)

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    @given(
        changes=st.lists(
            st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=8
        ),
        # Most of what decides stands at the beginning.
        near=st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=4),
        length=st.integers(0, len(whole)) | st.just(len(whole)),
    )
    def reads(changes: list[tuple[int, int]], near: list[tuple[int, int]], length: int) -> None:
        data = bytearray(whole)
        for place, value in [*changes, *near]:
            data[place] = value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about what is odd in the file
            for read in (check_picture, load_picture):
                try:
                    found = read(bytes(data[:length]), MOST)
                except InvalidImage:
                    continue
                assert found.width * found.height <= MOST

    reads()


@settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
@given(data=st.binary(max_size=300))
def test_bytes_that_are_no_picture_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidImage):
        check_picture(data, MOST)
