#!/usr/bin/env bash
# datasets 5.2.0: the state of a streamed dataset that was shuffled can't be loaded again in a loader with two workers.
# torchdata's StatefulDataLoader saves it with num_workers=2 without a word, and resuming raises IndexError in each worker
# ("list index out of range", from IterableDataset.load_state_dict). Such a job learns at its first restart that its
# checkpoints hold no position. With num_workers 0 or 1 it resumes, and without shuffle() it does with any number.
#
# shuffle() reads several shards in turn, and its state has an entry for each of them. A worker saves the state of its own
# part of the shards, and loads it into the dataset before that has been cut down to this part: four entries are filled
# from a list of two. The pages of datasets recommend StatefulDataLoader for resuming a streamed dataset.
#
# Seen: "no shuffle, 2 workers: resumed", "shuffled, 1 worker: resumed", "shuffled, 2 workers: IndexError".
# Exits 1 when that changes. PYTHON may name an interpreter that has datasets 5.2.0, torchdata 0.11.0 and torch; else they
# are installed (some GB).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${PYTHON:-} ]]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 torchdata==0.11.0 torch==2.15.0
    PYTHON=$work/venv/bin/python
fi
cat >"$work/resume.py" <<'PYTHON'
import datasets
from datasets import IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

assert datasets.__version__ == "5.2.0", datasets.__version__


def rows(shards):
    for shard in shards:
        for row in range(200):
            yield {"x": 1000 * shard + row}


def loader(shuffled, workers):
    dataset = IterableDataset.from_generator(rows, gen_kwargs={"shards": [0, 1, 2, 3]})
    return StatefulDataLoader(dataset.shuffle(seed=0, buffer_size=20) if shuffled else dataset, 8, num_workers=workers)


def resumed(shuffled, workers):
    before = loader(shuffled, workers)
    batches = iter(before)
    for _ in range(5):
        next(batches)
    state = before.state_dict()
    after = loader(shuffled, workers)
    after.load_state_dict(state)
    try:
        next(iter(after))
    except Exception as error:
        return type(error).__name__
    return "resumed"


if __name__ == "__main__":
    outcomes = {case: resumed(*case) for case in ((False, 2), (True, 1), (True, 2))}
    for (shuffled, workers), outcome in outcomes.items():
        print(f"{'shuffled' if shuffled else 'no shuffle'}, {workers} workers: {outcome}")
    assert list(outcomes.values()) == ["resumed", "resumed", "IndexError"], outcomes
PYTHON
HF_HOME=$work OMP_NUM_THREADS=1 timeout 300 "$PYTHON" -W ignore "$work/resume.py" 2>"$work/log" || { cat "$work/log"; exit 1; }
