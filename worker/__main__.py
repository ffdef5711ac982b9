"""`latentmill worker`: a worker process for each device, and one that looks after them."""

import argparse
import logging
import os
import signal
import sys
import warnings

from celery.exceptions import SecurityWarning

from storage.embedded.process import dying_with
from storage.errors import LatentmillError
from storage.settings import load_settings
from worker.device import Device, bring_up, pin
from worker.limits import Limits, parse_size
from worker.supervisor import ascend_cards, parse_devices, supervise, worker_command


def main() -> int:
    options = _options()
    _log()
    try:
        if options.healthy:
            from worker.service import healthy

            return 0 if healthy(load_settings()) else 1
        if options.device is None:
            return _supervise(options)
        if options.supervisor is not None:
            dying_with(options.supervisor, signal.SIGTERM)()
        device = Device.parse(options.device)
        pin(device)
        if options.check:
            print(f"MindSpore {bring_up(device)} on {device}")
            return 0
        from worker.service import serve

        limits = Limits(max_jobs=options.max_jobs, max_memory=options.max_memory)
        serve(
            load_settings(), device, slots=options.slots, pool=options.pool, limits=limits,
            warmed=options.warm,
        )  # fmt: skip
    except LatentmillError as error:
        print(f"latentmill worker: {error}", file=sys.stderr)
        return os.EX_TEMPFAIL if error.retryable else 3
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="latentmill worker",
        description=__doc__,
        epilog="Exit status: 0 stopped in order, 1 had to be killed, 2 a value is not allowed,"
        " 3 not configured, 75 a service or the device is away.",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--devices", default="auto", metavar="LIST",
        help="a process for each of: cpu, ascend:0-7, ascend:0,2, auto (all cards, else cpu)",
    )  # fmt: skip
    where.add_argument("--device", help="one process alone, on cpu or ascend:N")
    parser.add_argument("--slots", type=_at_least_one, default=16, help="jobs at once, a device")
    parser.add_argument("--pool", default="default", help="whose jobs these workers take")
    parser.add_argument(
        "--max-jobs", type=_at_least_one, metavar="N", help="a fresh process after so many jobs"
    )
    parser.add_argument(
        "--max-memory", type=_size, metavar="SIZE", help="a fresh process past this, such as 8G"
    )
    parser.add_argument(
        "--warm", action="append", default=[], metavar="MODEL",
        help="load and compile this model before the first job; may be repeated",
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="try --device, then leave")
    parser.add_argument(
        "--healthy", action="store_true", help="leave with 0 if a worker of this host is alive"
    )
    parser.add_argument("--supervisor", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.check and options.device is None:
        parser.error("--check: name one device with --device")
    return options


def _supervise(options: argparse.Namespace) -> int:
    devices = parse_devices(options.devices, ascend_cards())
    own = ["--slots", str(options.slots), "--pool", options.pool]
    for name in ("max_jobs", "max_memory"):
        if (value := getattr(options, name)) is not None:
            own += [f"--{name.replace('_', '-')}", str(value)]
    own += [word for alias in options.warm for word in ("--warm", alias)]
    return supervise({str(device): worker_command(device, own) for device in devices})


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"at least 1 (got {text})")
    return int(text)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _log() -> None:
    """One line an event, on standard error."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(threadName)s %(message)s"
    )
    # A line for each message, and for each table looked at, says nothing that ours do not.
    for chatty in ("alembic", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # Celery warns of root because of pickled messages: ours are JSON that names one task.
    warnings.simplefilter("ignore", SecurityWarning)


if __name__ == "__main__":
    sys.exit(main())
