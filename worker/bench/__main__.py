"""`latentmill bench calibrate` and `latentmill bench simulate`."""

import argparse
import json
import sys

from storage.errors import LatentmillError
from storage.settings import load_settings
from worker.bench import calibrate, simulate
from worker.device import Device, pin


def main() -> int:
    parser = argparse.ArgumentParser(prog="latentmill bench")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in (("calibrate", calibrate), ("simulate", simulate)):
        command = commands.add_parser(name, help=(module.__doc__ or "").split(": ")[1])
        module.add_options(command)
        command.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args()
    try:
        settings = load_settings()
        if options.command == "calibrate":
            pin(Device.parse(options.device))
            figures = calibrate.calibrate(options, settings)
        else:
            figures = simulate.simulate(options, settings)
    except LatentmillError as error:
        print(f"latentmill bench: {error}", file=sys.stderr)
        return 3 if error.retryable else 2
    print(json.dumps(figures) if options.json else table(figures))
    return 0


def table(figures: dict[str, object]) -> str:
    """Names and values; where the values are figures themselves, a column for each."""
    columns = [value for value in figures.values() if isinstance(value, dict)]
    if len(columns) < len(figures):
        return "\n".join(f"{name:<16} {value}" for name, value in figures.items())
    lines = [f"{'':<24}" + "".join(f"{name:>16}" for name in figures)]
    lines += [
        f"{name:<24}" + "".join(f"{each[name]:>16}" for each in columns) for name in columns[0]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
