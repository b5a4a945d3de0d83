#!/usr/bin/env bash
# Check what only a GPU can show, in 8 minutes at most, on a bare machine: torch and pytest, no network, nothing installed
# of this project. Figures go into benchmarks/results.md and .json, with the card's name. Without a GPU it says so, rehearses
# the same on the CPU, keeps nothing, and ends well.
#
#     tools/gpu-check.sh            PYTHON=/path/to/python tools/gpu-check.sh
#
# OUT, where it is set, is a folder that the results are copied to.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
export PYTHONPATH=$PWD OTEL_TRAIN_SIDECAR=external OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
unset PYTHONDONTWRITEBYTECODE # each step's processes would compile torch anew
failed=()

# Run a part for so many seconds at most; one that fails does not keep the others from running.
part() {
    local seconds=$1 name=$2
    shift 2
    printf '\n== %s (%s s at most)\n' "$name" "$seconds"
    timeout --kill-after=5 "$seconds" "$@"
    local status=$?
    [ "$status" -ne 124 ] || echo "$name: stopped after $seconds s"
    [ "$status" -eq 0 ] || failed+=("$name")
}

"$python" - <<'END' || exit 2
import sys
try:
    import pytest, torch
except ModuleNotFoundError as error:
    sys.exit(f"tools/gpu-check.sh needs torch and pytest: {error}; name an interpreter that has both: PYTHON=...")
card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no device"
print(f"{card}; Python {sys.version.split()[0]}, torch {torch.__version__}, pytest {pytest.__version__}")
END
cards=$("$python" -c 'import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)')

# The core is optional: where it can't be built, its twins in Python are what is checked.
if command -v cc >/dev/null; then
    timeout 60 "$python" setup.py -q build_ext --inplace >/dev/null 2>&1 || echo "the core could not be built"
fi
"$python" -c 'from otel_train.native import IMPLEMENTATION as runs; print(f"what runs at each step: {runs}")' || exit 1

# The tests' own settings name plugins that a bare machine lacks.
tests=("$python" -m pytest -q --noconftest --config-file=/dev/null --rootdir="$PWD" --import-mode=importlib
    -p no:cacheprovider -W ignore::pytest.PytestUnknownMarkWarning -m gpu tests/distributed/test_gpu.py)
if [ "$cards" -gt 0 ]; then
    part 170 "tests of the GPU" "${tests[@]}"
else
    echo "no device: the tests of the GPU are collected only"
    part 170 "tests of the GPU" "${tests[@]}" --collect-only
fi
part 220 "figures of the GPU" "$python" -m benchmarks.gpu_check
[ "$cards" -eq 0 ] || [ -z "${OUT:-}" ] || cp benchmarks/results.md benchmarks/results.json "$OUT"

if [ ${#failed[@]} -gt 0 ]; then
    printf '\nFAILED:'
    printf ' %s;' "${failed[@]}"
    printf '\n'
    exit 1
fi
[ "$cards" -gt 0 ] && result="done: benchmarks/results.md has the figures" || result="done without a device: no figure was kept"
printf '\n%s\n' "$result"
