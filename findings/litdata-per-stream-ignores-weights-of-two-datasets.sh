#!/usr/bin/env bash
# litdata 0.2.76: CombinedStreamingDataset with batching_method="per_stream" and two datasets takes a batch of each in turn,
# whatever their weights: 1:9 gives half of the samples to each. With more datasets the light ones get several times
# their share. "stratified", the default, keeps the weights. The docstring has batches of "a single dataset, which is
# selected randomly".
#
# After each batch a dataset is drawn by weight until it is another one than before, so none ever comes twice in
# succession, which a weight above one half can't do without.
#
# Seen, shares of the first dataset:
#   "stratified, weights 1:9: 0.10", "per_stream, weights 1:9: 0.50", "per_stream, weights 1:1:18: 0.23".
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
cat >"$work/mix.py" <<'PYTHON'
import sys
from importlib.metadata import version
from itertools import islice

from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset
from litdata.streaming import Cache

assert version("litdata") == "0.2.76", version("litdata")
folder = sys.argv[1]
for name in "abc":
    cache = Cache(f"{folder}/{name}", chunk_size=100)  # what litdata.optimize writes with
    for row in range(2000):
        cache[row] = name
    cache.done()
    cache.merge()


def share(method, *weights):
    datasets = [StreamingDataset(f"{folder}/{name}") for name in "abc"[: len(weights)]]
    mix = CombinedStreamingDataset(datasets, weights=weights, iterate_over_all=False, batching_method=method)
    rows = [row for batch in islice(StreamingDataLoader(mix, batch_size=8), 200) for row in batch]
    return rows.count("a") / len(rows)


for method, weights in ("stratified", (1, 9)), ("per_stream", (1, 9)), ("per_stream", (1, 1, 18)):
    print(f"{method}, weights {':'.join(map(str, weights))}: {share(method, *weights):.2f}")
PYTHON
timeout 300 "$PYTHON" "$work/mix.py" "$work/data" >"$work/log" 2>"$work/errors" || { cat "$work/errors"; exit 1; }
grep weights "$work/log"
grep -q "^stratified, weights 1:9: 0.10" "$work/log"
grep -q "^per_stream, weights 1:9: 0.50" "$work/log"
grep -q "^per_stream, weights 1:1:18: 0.23" "$work/log"
