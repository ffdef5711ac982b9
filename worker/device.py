"""The device that this process is pinned to. Everything else asks here and knows no brand.

Pinning comes before MindSpore is imported: on Ascend a process must see its own card only.
"""

import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from storage.errors import DeviceFailed, NotConfigured

#: The Ascend runtime shows a process only the cards named here.
VISIBLE_DEVICES = "ASCEND_RT_VISIBLE_DEVICES"
#: How MindSpore says that memory is short, on either device, in lower case.
OUT_OF_MEMORY = ("out of memory", "memory not enough", "allocate memory failed", "bad_alloc")


@dataclass(frozen=True)
class Device:
    """`cpu`, or one Ascend card by its number on this host."""

    kind: str
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> "Device":
        if text == "cpu":
            return cls("cpu")
        if match := re.fullmatch(r"ascend:(\d{1,3})", text):
            return cls("ascend", int(match[1]))
        raise NotConfigured(f"device {text!r}: it must be cpu or ascend:N, N a card's number")

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.number}"


def pin(device: Device) -> None:
    """Let this process see `device` alone. Called once, before MindSpore is imported."""
    if "mindspore" in sys.modules:
        raise RuntimeError("a process must be pinned before it imports mindspore")
    # Of its compiler's warnings each graph that comes from disk gives some; errors stay.
    os.environ.setdefault("MS_SUBMODULE_LOG_v", "{PIPELINE:3}")
    if device.kind == "ascend":
        os.environ[VISIBLE_DEVICES] = str(device.number)


def bring_up(device: Device, graphs: Path | None = None) -> str:
    """Import MindSpore on the pinned device and run one operator; returns MindSpore's version.

    On the CPU, compiled graphs are kept in the folder `graphs`, if it is given.
    Raises NotConfigured when MindSpore is not installed, DeviceFailed when the device is not there.
    """
    try:
        import mindspore
    except ImportError:
        raise NotConfigured(
            "MindSpore is not installed here: pip install 'latentmill[worker]'"
        ) from None
    try:
        # The pinned card is the only one in sight, so its number is 0. MindSpore refuses to be
        # told once it has computed, even what it does already.
        target = "CPU" if device.kind == "cpu" else "Ascend"
        if mindspore.get_context("device_target") != target:
            mindspore.set_device(target, 0)
        two = mindspore.ops.add(mindspore.Tensor(1.0), mindspore.Tensor(1.0)).asnumpy()
    except Exception as error:
        raise DeviceFailed(f"device {device} does not answer: {first_sentence(error)}") from None
    if two != 2.0:
        raise DeviceFailed(f"device {device} computes 1 + 1 = {two}")
    if graphs is not None and keeps_graphs(device):
        from worker.diffusion import keep_graphs

        keep_graphs(graphs)
    return str(mindspore.__version__)


def keeps_graphs(device: Device) -> bool:
    """Whether compiled graphs are kept on disk.

    Elsewhere MindSpore keeps files of its backend beside them: that could not be tried.
    """
    return device.kind == "cpu"


def memory_bytes(device: Device) -> int:
    """Memory of the device that was brought up: a card's own, or what this process may use."""
    if device.kind == "ascend":
        import mindspore

        return int(mindspore.hal.get_device_properties(0).total_memory)
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError, ValueError):
        # A container's; "max" where there is none.
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a call failed for want of the device's memory: fewer rows may then do."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY)


def first_sentence(error: BaseException) -> str:
    """What MindSpore says first; the rest of its messages is about its own sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].split(". ")[0] if lines else type(error).__name__
