"""Rows enter by a process of their own: a long submission then has a core for each half.

To prepare rows and to enter them are both Python's work, which threads cannot share. JSON crosses,
a chunk a line; each is answered before the next is read.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from storage.batch_entry import Entered, Intake, NewRow
from storage.database import Database
from storage.errors import LatentmillError, LedgerUnavailable
from storage.submission import NewJob


def enter_aside(url: str, batch_id: str, chunks: Iterable[Sequence[NewRow]]) -> Iterator[Entered]:
    """What came of each chunk, told when the one after it is ready.

    The next chunk is asked for while one is entered. What was handed over enters even where this
    process ends. Raises what `Intake.enter` raises.
    """
    command = [sys.executable, "-P", "-m", "storage.entering"]
    # In a session of its own: Ctrl-C is ours, and closes its input.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        _say(process, [url, batch_id])
        waiting = False
        for chunk in chunks:
            _say(process, chunk)
            if waiting:
                yield _answer(process)
            waiting = True
        if waiting:
            yield _answer(process)
    finally:
        process.communicate()


def _say(process: subprocess.Popen[bytes], words: Any) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(words).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        _answer(process)  # raises why it has ended


def _answer(process: subprocess.Popen[bytes]) -> Entered:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        raise LedgerUnavailable(
            f"the process that enters rows has ended with status {process.wait()};"
            " the rows so far are there, and submitting again goes on"
        )
    answer = json.loads(line)
    if "error" in answer:
        raise _error(**answer)
    return Entered(outcomes=Counter(answer["outcomes"]), pools=Counter(answer["pools"]))


def _error(error: str, message: str) -> LatentmillError:
    kinds = [LatentmillError]
    while kinds:
        kind = kinds.pop()
        if kind.__name__ == error:
            return kind(message)
        kinds += kind.__subclasses__()
    return LatentmillError(message)


def main() -> None:
    """The other end: the ledger's URL and the batch on the first line, then chunks."""
    lines = iter(sys.stdin.buffer.readline, b"")
    url, batch_id = json.loads(next(lines))
    database = Database(url)
    intake = Intake(database, batch_id)
    for line in lines:
        if not line.endswith(b"\n"):
            break  # who was writing it has ended
        try:
            found = intake.enter([_row(values) for values in json.loads(line)])
            answer: dict[str, Any] = {"outcomes": found.outcomes, "pools": found.pools}
        except LatentmillError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        try:
            print(json.dumps(answer), flush=True)
        except BrokenPipeError:
            break  # nobody asks any more
        if "error" in answer:
            break
    database.close()


def _row(values: list[Any]) -> NewRow:
    row = NewRow(*values)
    return row if row.job is None else row._replace(job=NewJob(*row.job))


if __name__ == "__main__":
    main()
