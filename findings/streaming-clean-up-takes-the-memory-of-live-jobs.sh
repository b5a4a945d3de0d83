#!/usr/bin/env bash
# mosaicml-streaming 0.13.0: clean_stale_shared_memory(), which its own error message has users call at the begin of a
# script, removes the names of all datasets in the host's shared memory, those of jobs that run too: it asks whether a
# name is there, not whether a process uses it.
#
# The next dataset takes the names that have become free, and a job whose epoch had not begun now has the same ones as the
# other: what that one's ranks and workers look up by name is the other job's, and its end removes them a second time. A
# rank that comes to a name in between makes an array of its own, of zeros.
#
# Seen, with a first job whose dataset is made and waits for its epoch:
#   "6 names, 0 after the clean-up", "the second job's names are the first one's: 6", "0 after the first one's end".
# Exits 1 when that changes. PYTHON may name an interpreter that has streaming 0.13.0 and torch; else they are installed
# (some GB). Refuses to run beside a job that uses streaming.
set -euo pipefail
if compgen -G "/dev/shm/000000_*" >/dev/null; then
    echo "a job uses streaming's names in /dev/shm, and would lose them" >&2
    exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${PYTHON:-} ]]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check \
        mosaicml-streaming==0.13.0 torch==2.15.0 "numpy<2.2" "xxhash<4"
    PYTHON=$work/venv/bin/python
fi
cat >"$work/job.py" <<'PYTHON'
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

from streaming import MDSWriter, StreamingDataset
from streaming.base.util import clean_stale_shared_memory

assert version("mosaicml-streaming") == "0.13.0", version("mosaicml-streaming")
work, name = Path(sys.argv[1]), sys.argv[2]


def names():
    return {path.name for path in Path("/dev/shm").glob("000000_*")}


def wait(done):
    while not done():
        time.sleep(0.01)


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


with MDSWriter(out=str(work / name), columns={"x": "int"}) as writer:
    for x in range(100):
        writer.write({"x": x})
if name == "second":
    wait((work / "first.made").exists)
    before = names()
    clean_stale_shared_memory()
    print(f"{len(before)} names, {len(names())} after the clean-up", flush=True)
dataset = StreamingDataset(local=str(work / name), batch_size=8)
(work / "own").write_text(str(os.getpid()))
(work / "own").rename(work / f"{name}.made")
if name == "first":
    wait((work / "second.made").exists)
else:
    print(f"the second job's names are the first one's: {len(names() & before)}", flush=True)
    wait(lambda: not lives((work / "first.made").read_text()))
    print(f"{len(names())} after the first one's end", flush=True)
PYTHON
export TMPDIR=$work # streaming keeps its locks there
timeout 300 "$PYTHON" "$work/job.py" "$work" first >"$work/first.log" 2>&1 &
first=$!
timeout 300 "$PYTHON" "$work/job.py" "$work" second >"$work/log" 2>"$work/errors" || { cat "$work/errors"; exit 1; }
wait "$first" || { cat "$work/first.log"; exit 1; }
cat "$work/log"
grep -qx "6 names, 0 after the clean-up" "$work/log"
grep -qx "the second job's names are the first one's: 6" "$work/log"
grep -qx "0 after the first one's end" "$work/log"
