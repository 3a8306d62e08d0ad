"""How long `attnkit --help` takes beside importing what it is made of.

    python tests/bench/startup.py [--rounds 15]

Runs are interleaved, so that a busy machine hurts all alike; the medians and their ratios to
`python -c "import typer, rich.console"` are printed. The aim is a ratio of at most 1.5.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

BASE = "import typer, rich.console"
COMMANDS = {
    BASE: [sys.executable, "-c", BASE],
    "attnkit --help": [sys.executable, "-m", "attnkit", "--help"],
    "attnkit tonemap --help": [sys.executable, "-m", "attnkit", "tonemap", "--help"],
    "attnkit --version": [sys.executable, "-m", "attnkit", "--version"],
}


def measure(rounds: int) -> dict[str, float]:
    """Median wall seconds of each command, piped, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(rounds + 1):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.PIPE)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    medians = measure(parser.parse_args().rounds)
    for name, value in medians.items():
        print(f"{name:32} {value:7.3f} s {value / medians[BASE]:6.2f}")


if __name__ == "__main__":
    main()
