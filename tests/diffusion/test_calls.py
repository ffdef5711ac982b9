"""A model is compiled for few batch sizes, and for another one only where that pays."""

import numpy as np
import pytest

from worker.diffusion.calls import SIZES, Calls, cover


class Machine:
    """Stands for a model and its clock: compiling lasts `compiling`, a call `run(size)` seconds."""

    def __init__(self, compiling: float = 5.0, run=lambda size: size**0.5) -> None:
        self.compiling, self.run = compiling, run
        self.now = 0.0
        self.sizes: list[int] = []
        self.compiled: list[int] = []
        self.calls = Calls(self.model, lambda: self.now)

    def model(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = len(values)
        if size not in self.compiled:
            self.compiled.append(size)
            self.now += self.compiling
        self.now += self.run(size)
        self.sizes.append(size)
        return values + 1, values[:, 0]

    def ask(self, count: int) -> list[int]:
        """The sizes of the calls for so many places, whose answers are checked."""
        self.sizes = []
        places = [(np.full((2,), i, np.float32),) for i in range(count)]
        answers = list(self.calls(places))
        assert [float(first) for _, first in answers] == list(range(count))
        assert all(
            (one == place[0] + 1).all() for (one, _), place in zip(answers, places, strict=True)
        )
        return self.sizes


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (2, [2]), (3, [4]), (9, [16]), (20, [16, 16])]
)
def test_the_first_places_go_into_one_compiled_size(count: int, sizes: list[int]) -> None:
    assert Machine().ask(count) == sizes


def test_a_size_is_compiled_once_it_would_have_saved_its_compilation() -> None:
    machine = Machine(compiling=20.0)
    for _ in range(2):
        machine.ask(1)
    asked = 0
    while machine.ask(16) == [1] * 16:
        asked += 1
    # 16 calls of 1 second, where one of 16 ** 0.8 = 9.2 seconds was expected to do.
    assert asked == 3
    assert machine.sizes == [16]
    assert machine.compiled == [1, 16]


def test_a_size_that_may_not_be_compiled_yet_is_as_soon_as_it_may() -> None:
    machine = Machine(compiling=20.0)
    machine.calls.may_compile = lambda: False
    for _ in range(10):
        machine.ask(1)
        assert machine.ask(16) == [1] * 16
    machine.calls.may_compile = lambda: True
    assert machine.ask(16) == [16]


def test_a_size_that_turns_out_slow_is_not_used_again() -> None:
    machine = Machine(compiling=1.0, run=lambda size: size * size)
    for _ in range(2):
        machine.ask(1)
    for _ in range(20):
        machine.ask(16)
    assert machine.ask(16) == [1] * 16


def test_in_the_long_run_no_more_than_twice_the_best_is_spent() -> None:
    machine = Machine(compiling=30.0)
    rng = np.random.default_rng(1)
    for _ in range(500):
        machine.ask(int(rng.integers(1, 33)))
    assert set(machine.compiled) <= set(SIZES)
    spent = machine.now
    best = Machine(compiling=0.0)
    for size in SIZES * 2:
        best.ask(size)
    rng = np.random.default_rng(1)
    best.now = 0.0
    for _ in range(500):
        best.ask(int(rng.integers(1, 33)))
    assert spent < best.now + 2 * 30.0 * len(SIZES)


def test_places_of_another_form_are_measured_apart() -> None:
    machine = Machine()
    machine.ask(2)
    list(machine.calls([(np.zeros(3, np.float32),)]))
    assert machine.compiled == [2, 1]


def test_what_was_freed_is_chosen_anew() -> None:
    machine = Machine(compiling=1000.0)
    machine.ask(1)
    machine.calls.forget()
    assert machine.ask(8) == [8]


def test_no_places_are_no_call() -> None:
    assert Machine().ask(0) == []


def test_a_cover_costs_the_least() -> None:
    costs = {1: 1.0, 2: 1.5, 4: 2.0, 8: 3.0, 16: 5.0}
    assert cover(3, costs) == ([4], 2.0)
    assert cover(9, costs) == ([8, 1], 4.0)
    assert cover(20, costs) == ([16, 4], 7.0)
    assert cover(0, costs) == ([], 0.0)
