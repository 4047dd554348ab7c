"""Run all benchmarks: `python benchmarks [--quick] [...]`, with their common options."""

import subprocess
import sys
from pathlib import Path

import measure

NAMES = (
    "attention",
    "bias",
    "packing",
    "encoder",
    "events",
    "trackml",
    "jets",
    "hypervae",
    "xec",
    "data",
)


def main() -> None:
    measure.parse(measure.make_parser(__doc__), None)  # refuses other options at once
    for name in NAMES:
        script = Path(__file__).with_name(f"{name}.py")
        subprocess.run([sys.executable, script, *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
