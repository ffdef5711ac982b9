"""`python -m worker`: one worker process, pinned to one device."""

import argparse
import logging
import sys
import warnings

from celery.exceptions import SecurityWarning

from storage.errors import LatentmillError
from storage.settings import load_settings
from worker.device import Device, bring_up, pin


def main() -> int:
    parser = argparse.ArgumentParser(prog="latentmill worker", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, or ascend:N")
    parser.add_argument("--slots", type=int, default=2, help="jobs in flight at once")
    parser.add_argument("--pool", default="default", help="whose jobs this worker takes")
    parser.add_argument("--check", action="store_true", help="try the device, then leave")
    parser.add_argument(
        "--healthy", action="store_true", help="leave with 0 if a worker of this host is alive"
    )
    options = parser.parse_args()
    if options.slots < 1:
        parser.error(f"--slots: at least 1 (got {options.slots})")
    _log()
    try:
        device = Device.parse(options.device)
        pin(device)
        if options.check:
            print(f"MindSpore {bring_up(device)} on {device}")
            return 0
        from worker.service import healthy, serve

        if options.healthy:
            return 0 if healthy(load_settings()) else 1
        serve(load_settings(), device, slots=options.slots, pool=options.pool)
    except LatentmillError as error:
        print(f"latentmill worker: {error}", file=sys.stderr)
        return 3
    return 0


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
