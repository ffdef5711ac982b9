"""How many rows a group may have is measured, kept in a file, and halved where it was too much."""

from pathlib import Path

import pytest

from storage.models import Model
from worker.room import UNMEASURED, Room

MODEL = Model(alias="tiny", source="mill/tiny")
SHAPE = (4, 8, 8)


def test_what_nobody_has_measured_has_a_usual_number(tmp_path: Path) -> None:
    assert Room(tmp_path, "cpu").rows(MODEL, SHAPE) == UNMEASURED


def test_what_was_measured_is_known_after_a_restart_for_that_group_alone(tmp_path: Path) -> None:
    Room(tmp_path, "cpu").note(MODEL, SHAPE, 6)
    assert Room(tmp_path, "cpu").rows(MODEL, SHAPE) == 6
    assert Room(tmp_path, "ascend:0").rows(MODEL, SHAPE) == UNMEASURED
    assert Room(tmp_path, "cpu").rows(MODEL, (4, 8, 16)) == UNMEASURED
    half = MODEL.model_copy(update={"dtype": "float16"})
    assert Room(tmp_path, "cpu").rows(half, SHAPE) == UNMEASURED


def test_half_of_too_many_is_remembered_and_never_none(tmp_path: Path) -> None:
    room = Room(tmp_path, "cpu")
    for rows in (7, 3, 1):
        room.halve(MODEL, SHAPE, rows)
    assert room.rows(MODEL, SHAPE) == 1
    assert Room(tmp_path, "cpu").rows(MODEL, SHAPE) == 1


def test_two_workers_keep_each_others_numbers(tmp_path: Path) -> None:
    one, other = Room(tmp_path, "ascend:0"), Room(tmp_path, "ascend:1")
    one.note(MODEL, SHAPE, 4)
    other.note(MODEL, SHAPE, 8)
    assert Room(tmp_path, "ascend:0").rows(MODEL, SHAPE) == 4
    assert Room(tmp_path, "ascend:1").rows(MODEL, SHAPE) == 8


@pytest.mark.parametrize("text", ["", "[1]", '{"a": "x"}', '{"a": null}'])
def test_a_broken_file_is_written_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "room.json").write_text(text)
    room = Room(tmp_path, "cpu")
    assert room.rows(MODEL, SHAPE) == UNMEASURED
    room.note(MODEL, SHAPE, 3)
    assert Room(tmp_path, "cpu").rows(MODEL, SHAPE) == 3
