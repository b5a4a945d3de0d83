#!/usr/bin/env bash
# pytorch-ignite 0.5.5: when the function of a trainer has raised, the next call of run() on the same trainer trains nothing,
# raises nothing, fires no event and returns None; only the call after it goes on. A loop that tries again after, say, a
# lost connection, takes that for a finished run. (run() keeps a generator that it goes on with after interrupt(); an
# exception ends the generator, and the next run() meets its end first. With Engine.interrupt_resume_enabled = False,
# where there is no generator, the first call goes on.)
#
# Seen: an exception in iteration 3 of 2 epochs of 5; run() again: None, no further iteration, no STARTED; once more: 4 and 5.
# Exits 1 when that changes. PYTHON may name an interpreter that has the packages; else they are installed (some GB).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${PYTHON:-} ]]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 pytorch-ignite==0.5.5
    PYTHON=$work/venv/bin/python
fi
cat >"$work/job.py" <<'PYTHON'
import logging
import sys
from importlib.metadata import version

from ignite.engine import Engine, Events

assert version("pytorch-ignite") == "0.5.5"
logging.disable()


def attempt(resumable):
    """Return what three calls of run() give, each with the number of iterations and of STARTED events until then."""
    iterations, started, seen = [], [], []

    def train(engine, batch):
        iterations.append(engine.state.iteration)
        if len(iterations) == 3:
            raise ConnectionError

    Engine.interrupt_resume_enabled = resumable
    trainer = Engine(train)
    trainer.add_event_handler(Events.STARTED, lambda: started.append(1))
    for _ in range(3):
        try:
            result = type(trainer.run(range(5), max_epochs=2)).__name__
        except ConnectionError:
            result = "ConnectionError"
        seen.append((result, len(iterations), len(started)))
    return seen


default, without = attempt(True), attempt(False)
print("default:", default)
print("interrupt_resume_enabled = False:", without)
sys.exit(
    default[:2] != [("ConnectionError", 3, 1), ("NoneType", 3, 1)]
    or default[2][0] != "State" or default[2][1] <= 3
    or without[1][0] != "State" or without[1][1] <= 3
)
PYTHON
timeout 120 "$PYTHON" -W ignore "$work/job.py"
