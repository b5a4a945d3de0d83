#!/usr/bin/env bash
# datasets 5.2.0: shuffle() after split_dataset_by_node() needs the same seed on each node. With none (its default), or
# with a seed of the rank's, two nodes read the same shards and leave others out, without a word.
#
# A streamed dataset is split by shards, and its shuffle() draws the order of all shards before each node takes its part
# of them, whichever call came first. Nodes whose seeds differ take their parts of different orders. A seed of the rank's is
# what one gives to other loaders, and a call without a seed looks as if it only filled a buffer. What a run loses looks
# like nothing: each node has the right number of rows.
#
# Seen, of 400 rows in 4 shards on two nodes: "no shuffle: 0 read by both, 0 by none", "one seed: 0 read by both, 0 by
# none", "seed of the rank: 100 read by both, 100 by none"; without a seed it depends on chance.
# Exits 1 when that changes. PYTHON may name an interpreter that has datasets 5.2.0; else it is installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${PYTHON:-} ]]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0
    PYTHON=$work/venv/bin/python
fi
cat >"$work/split.py" <<'PYTHON'
import datasets
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node

assert datasets.__version__ == "5.2.0", datasets.__version__


def rows(shards):
    for shard in shards:
        for row in range(100):
            yield {"x": 100 * shard + row}


def read(rank, seed):
    dataset = IterableDataset.from_generator(rows, gen_kwargs={"shards": [0, 1, 2, 3]})
    dataset = split_dataset_by_node(dataset, rank, 2)
    if seed is not None:
        dataset = dataset.shuffle(seed=seed, buffer_size=10)
    return [row["x"] for row in dataset]


seen = {}
for name, seeds in {"no shuffle": (None, None), "one seed": (0, 0), "seed of the rank": (0, 1)}.items():
    first, second = (read(rank, seed) for rank, seed in enumerate(seeds))
    assert len(first) == len(second) == 200
    seen[name] = len({*first} & {*second}), 400 - len({*first, *second})
    print(f"{name}: {seen[name][0]} read by both, {seen[name][1]} by none")
assert seen == {"no shuffle": (0, 0), "one seed": (0, 0), "seed of the rank": (100, 100)}, seen
PYTHON
HF_HOME=$work timeout 300 "$PYTHON" -W ignore "$work/split.py" 2>"$work/log" || { cat "$work/log"; exit 1; }
