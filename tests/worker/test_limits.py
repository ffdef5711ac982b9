"""When a worker leaves for a fresh process."""

import pytest

from worker.limits import Limits, parse_size, resident_bytes


@pytest.mark.parametrize(
    ("text", "size"), [("8G", 8 * 2**30), ("500m", 500 * 2**20), ("1.5K", 1536), ("77", 77)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "0", "8 GB", "eight"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="8G"):
        parse_size(text)


def test_without_limits_a_worker_stays() -> None:
    assert Limits().reached(10**9) is None


def test_a_worker_leaves_after_its_jobs_or_past_its_memory() -> None:
    assert Limits(max_jobs=3).reached(2) is None
    assert Limits(max_jobs=3).reached(3) == "3 jobs are done"
    used = resident_bytes()
    assert 2**20 < used < 2**40
    assert Limits(max_memory=2 * used).reached(1) is None
    assert "GiB" in str(Limits(max_memory=used // 2).reached(1))
