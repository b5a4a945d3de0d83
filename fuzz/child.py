"""Fuzz one target in this process, guided by the coverage of the source; started by `python -m fuzz`.

Given are the name of the target and arguments of libFuzzer.
"""

from __future__ import annotations

import sys

import atheris

from fuzz import load


def main() -> None:
    """Instrument what the target imports of ours, and run it until libFuzzer ends the process."""
    with atheris.instrument_imports(include=["otel_train", "tomllib", "fuzz.choices", "fuzz.targets"]):
        run = load(sys.argv[1])
    atheris.Setup([sys.argv[0], *sys.argv[2:]], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
