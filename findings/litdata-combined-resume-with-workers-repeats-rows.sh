#!/usr/bin/env bash
# litdata 0.2.76: a StreamingDataLoader over a CombinedStreamingDataset with two workers that is resumed from its own
# state_dict, with nothing changed, repeats some samples of the epoch and leaves out as many. Nothing is said. With
# num_workers=0 the resumed epoch is right to the sample; with more workers the wrong ones are up to a batch for each
# dataset and worker at each resume.
#
# The loader saves how many samples each worker has had of each dataset, and hands the datasets the sums over the workers.
# A dataset then works out each worker's part by the rule for a dataset that stands alone, whole batches in turn, but in a
# mix a batch has only some rows of each.
#
# Seen, of 400 samples in an epoch that is resumed after 16 batches of 8:
#   "0 workers: 0 repeated, 0 left out", "2 workers: 8 repeated, 8 left out".
# Exits 1 when that changes. PYTHON may name an interpreter that has litdata 0.2.76 and torch; else they are installed
# (some GB).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${PYTHON:-} ]]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check litdata==0.2.76 torch==2.15.0
    PYTHON=$work/venv/bin/python
fi
cat >"$work/resume.py" <<'PYTHON'
import sys
from collections import Counter
from importlib.metadata import version

from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset
from litdata.streaming import Cache

assert version("litdata") == "0.2.76", version("litdata")
folder = sys.argv[1]
ROWS = {"a": 100, "b": 300}
for name, rows in ROWS.items():
    cache = Cache(f"{folder}/{name}", chunk_size=10)  # what litdata.optimize writes with
    for row in range(rows):
        cache[row] = f"{name}{row}"
    cache.done()
    cache.merge()


def loader(workers):
    datasets = [StreamingDataset(f"{folder}/{name}") for name in ROWS]
    return StreamingDataLoader(CombinedStreamingDataset(datasets), batch_size=8, num_workers=workers)


for workers in 0, 2:
    first, seen = loader(workers), Counter()
    for number, batch in enumerate(first, start=1):
        seen.update(batch)
        if number == 16:
            state = first.state_dict()
            break
    resumed = loader(workers)
    resumed.load_state_dict(state)
    for batch in resumed:
        seen.update(batch)
    repeated = sum(times - 1 for times in seen.values())
    print(f"{workers} workers: {repeated} repeated, {sum(ROWS.values()) - len(seen)} left out")
PYTHON
timeout 300 "$PYTHON" "$work/resume.py" "$work/data" >"$work/log" 2>"$work/errors" || { cat "$work/errors"; exit 1; }
grep repeated "$work/log"
grep -q "^0 workers: 0 repeated, 0 left out" "$work/log"
grep -q "^2 workers: 8 repeated, 8 left out" "$work/log"
