"""Compiled graphs kept on disk: to load one takes a tenth of the time that compiling takes.

MindSpore's compile cache names its files by the order of compilation in a process, and trusts a
file once the program's main script is the same. So nothing of its own is relied on: each graph is
kept under a hash of all that it is made from, and lies where MindSpore looks for it only while
that one graph is compiled. What is not found is compiled as ever.
"""

import atexit
import functools
import hashlib
import itertools
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MethodType
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn

logger = logging.getLogger(__name__)

#: Seconds after which a graph that nobody has used is removed.
UNUSED = 60 * 86400

#: The ending of files that say what has been compiled.
MARK = ".met"

#: MindSpore's: whether it keeps graphs, where, and that it takes what lies there.
ENABLE, PLACE, TRUST = (
    "MS_COMPILER_CACHE_ENABLE",
    "MS_COMPILER_CACHE_PATH",
    "MS_DEV_FORCE_USE_COMPILE_CACHE",
)


class Graphs:
    """Where this process keeps its graphs: used by MindSpore's one thread."""

    def __init__(self) -> None:
        #: Processes may share it. None: nothing is kept.
        self.folder: Path | None = None
        #: MindSpore remembers the first place it is given, and counts what it compiles there.
        self._desk: Path | None = None
        self._count = 0

    def use(self, folder: Path | None) -> None:
        """Raises OSError if the folder cannot be made."""
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            remove_unused(folder)
            if self._desk is None:
                self._desk = Path(tempfile.mkdtemp(prefix="latentmill-graphs-"))
                atexit.register(shutil.rmtree, self._desk, ignore_errors=True)
                # Set once: to add a variable later could move what other threads are reading.
                os.environ |= {PLACE: str(self._desk), ENABLE: "0", TRUST: "0"}
        self.folder = folder

    @contextmanager
    def at_hand(self, key: str) -> Iterator[bool]:
        """Compile one graph in the block; says whether it lies ready. It is kept afterwards."""
        assert self.folder is not None
        assert self._desk is not None
        inner = self._desk / "rank_0" / "graph_cache"
        inner.mkdir(parents=True, exist_ok=True)
        kept, here = self._file(key), inner / f"compile_cache_{self._count}.mindir"
        try:
            shutil.copyfile(kept, here)
            os.utime(kept)
        except OSError:
            here.unlink(missing_ok=True)
        found = here.exists()
        lent = here.stat().st_mtime_ns if found else None
        os.environ |= {ENABLE: "1", TRUST: "1" if found else "0"}
        try:
            yield found
        finally:
            os.environ |= {ENABLE: "0", TRUST: "0"}
            self._put_away(inner, kept, lent)

    def drop(self, key: str) -> None:
        """A graph that would not load."""
        self._file(key).unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.mindir"

    def _put_away(self, inner: Path, kept: Path, lent: int | None) -> None:
        for file in inner.glob("compile_cache_*.mindir"):
            self._count = max(self._count, int(file.stem.rpartition("_")[2]) + 1)
            # What was lent and could not be read has been written anew.
            if file.stat().st_mtime_ns != lent:
                with suppress(OSError):  # a full disk: next time then
                    whole = kept.with_suffix(f".mindir.{os.getpid()}")
                    shutil.copyfile(file, whole)
                    whole.replace(kept)
            file.unlink()


def remove_unused(folder: Path) -> None:
    for file in [*folder.glob("*.mindir*"), *folder.glob(f"*{MARK}")]:
        with suppress(OSError):
            if file.stat().st_mtime < time.time() - UNUSED:
                file.unlink()


_graphs = Graphs()
#: How often all graphs of this process were freed.
_freed = 0


def keep_graphs(folder: Path | None) -> None:
    """From now on compiled graphs are kept in this folder, and taken from it."""
    try:
        _graphs.use(folder)
    except OSError as error:
        logger.warning("compiled graphs are not kept: %s", error)


def forget() -> None:
    """All graphs of this process were freed, and compile again when they are called."""
    global _freed
    _freed += 1


def kept(construct: MethodType, cell: nn.Cell, made_of: object) -> MethodType:
    """A compiled `construct` whose graphs are kept, one for each form of its arguments.

    `made_of` is all that the cell was built from, weights aside; its repr must say it all.
    """
    ready: set[object] = set()

    @functools.cache
    def identity() -> str:
        parameters = [(p.name, p.shape, str(p.dtype)) for p in cell.get_parameters()]
        return repr((type(cell).__qualname__, made_of, parameters, *surroundings()))

    # MindSpore looks for the method, and its source, behind a cell's `construct`.
    @functools.wraps(construct.__func__)
    def call(_: nn.Cell, *arguments: Tensor) -> Any:
        forms = [(argument.shape, str(argument.dtype)) for argument in arguments]
        place = (_freed, *forms)
        if _graphs.folder is None or place in ready:
            return construct(*arguments)
        key = hashlib.sha256(f"{identity()}{forms}".encode()).hexdigest()
        try:
            with _graphs.at_hand(key) as found:
                outputs = construct(*arguments)
        except Exception:
            if not found:
                raise
            _graphs.drop(key)
            outputs = construct(*arguments)
        ready.add(place)
        return outputs

    return MethodType(call, cell)


@functools.cache
def surroundings() -> tuple[str, ...]:
    """What a graph depends on beside its model: MindSpore, the machine, and these sources."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted(itertools.chain(root.glob("*.py"), root.glob("models/*.py"))):
        digest.update(file.read_bytes())
    return ms.__version__, platform.machine(), digest.hexdigest()
