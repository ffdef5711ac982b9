"""How idle a device is while its object store is far away and its queue is full.

    python -m benchmarks.idle [--latency 0.1] [--jobs 300] [--slots 16]

A real stack with one worker, and a proxy that holds every request to the object store up for the
latency in each direction. The worker's own meter is read, between the first and the last moment at
which jobs waited for a slot.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from storage.embedded.process import running_process
from storage.embedded.stack import running_stack
from storage.ledger import Ledger
from storage.settings import require
from tests.faults.s3_proxy import running_proxy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.1, help="seconds, each way")
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--slots", type=int, default=16)
    given = parser.parse_args()

    def hold_up(method: str, path: str) -> None:
        time.sleep(2 * given.latency)

    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = stack.enter_context(running_stack(home))
        proxy = stack.enter_context(running_proxy(str(settings.s3_endpoint_url)))
        proxy.choose = hold_up
        places = {
            f"LATENTMILL_{name.upper()}": require(settings, name)
            for name in ("database_url", "redis_url", "s3_bucket", "s3_access_key", "s3_secret_key")
        }
        env = {**os.environ, **places, "LATENTMILL_HOME": str(home)}
        far = {**env, "LATENTMILL_S3_ENDPOINT_URL": proxy.url}
        options = ["--device", "cpu", "--slots", str(given.slots), "--warm", "demo"]
        command = [sys.executable, "-P", "-m", "worker", *options]
        stack.enter_context(running_process(command, home / "worker.log", far))
        ledger = Ledger.open(require(settings, "database_url"))
        while not ledger.workers():
            time.sleep(0.1)
        near = {**env, "LATENTMILL_S3_ENDPOINT_URL": str(settings.s3_endpoint_url)}
        latentmill = [str(Path(sys.executable).parent / "latentmill"), "bench", "run", "--json"]
        for jobs in (32, given.jobs):  # the first compiles
            done = subprocess.run(
                [*latentmill, "--jobs", str(jobs)], env=near, stdout=subprocess.PIPE, check=True
            )
        ledger.close()
    figures = json.loads(done.stdout)
    print(f"object store {given.latency * 1000:.0f} ms away each way, {given.slots} slots")
    for name, value in figures.items():
        print(f"{name:<24} {value}")


if __name__ == "__main__":
    main()
