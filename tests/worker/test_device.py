"""Pinning, in processes of their own: it must come before MindSpore."""

import subprocess
import sys

import pytest

from storage.errors import NotConfigured
from worker.device import Device


def worker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker", *arguments], capture_output=True, text=True, timeout=120
    )


def test_a_device_is_the_cpu_or_one_card() -> None:
    assert str(Device.parse("cpu")) == "cpu"
    assert str(Device.parse("ascend:7")) == "ascend:7"
    for wrong in ("gpu", "ascend", "ascend:", "ascend:x", "npu:0", ""):
        with pytest.raises(NotConfigured, match=r"cpu or ascend:N"):
            Device.parse(wrong)


def test_the_cpu_answers() -> None:
    done = worker("--device", "cpu", "--check")
    assert (done.returncode, done.stdout) == (0, "MindSpore 2.8.0 on cpu\n"), done.stderr


def test_a_missing_card_is_one_sentence() -> None:
    done = worker("--device", "ascend:3", "--check")
    assert done.returncode == 75
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("latentmill worker: device ascend:3 does not answer: ")
    assert "Traceback" not in done.stderr


def test_a_process_sees_its_own_card_before_mindspore_is_imported() -> None:
    code = (
        "import os, sys; from worker.device import Device, pin; pin(Device.parse('ascend:5'));"
        "assert 'mindspore' not in sys.modules; print(os.environ['ASCEND_RT_VISIBLE_DEVICES'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr


def test_pinning_too_late_is_refused() -> None:
    code = (
        "import sys; sys.modules['mindspore'] = sys; from worker.device import Device, pin;"
        "pin(Device.parse('ascend:5'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "before it imports mindspore" in done.stderr
