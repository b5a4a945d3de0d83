#!/usr/bin/env bash
# wandb 0.31.0: a program that ends by `raise SystemExit(3)`, or `exit(3)`, is recorded with exit code 0, so its run is one
# that has finished well; by `sys.exit(3)` with 3; and inside `with run:`, whichever of them it is, with 1.
#
# wandb replaces sys.exit to learn the code, and the interpreter keeps no SystemExit where another hook could see it. The with
# block sees an exception and makes 1 of any. So a trainer's early `raise SystemExit(3)` looks like a success in the table of
# runs, and the code that a scheduler acts on is lost inside the block.
#
# Seen:
#   raise SystemExit(3): the process 3, the run 0
#   exit(3): the process 3, the run 0
#   sys.exit(3): the process 3, the run 3
#   with run: sys.exit(3): the process 3, the run 1
# Exits 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check wandb==0.31.0
cat >"$work/try.py" <<'PYTHON'
import sys

import wandb

settings = wandb.Settings(console="off", disable_git=True, silent=True, x_disable_stats=True)
run = wandb.init(mode="offline", project="p", settings=settings)
run.log({"loss": 1.0})
exec(sys.argv[1])
PYTHON
export WANDB_MODE=offline WANDB_ERROR_REPORTING=false
while read -r statement; do
    folder=$(mktemp -d -p "$work")
    code=0
    (cd "$folder" && "$work/venv/bin/python" "$work/try.py" "$statement") >"$work/log" 2>&1 || code=$?
    recorded=$("$work/venv/bin/wandb" leet inspect --json "$folder"/wandb/offline-run-*/run-*.wandb |
        sed -n 's/.*"exit":{"exit_code":\([0-9]*\)}.*/\1/p')
    echo "$statement: the process $code, the run $recorded"
done >"$work/seen" <<'STATEMENTS'
raise SystemExit(3)
exit(3)
sys.exit(3)
with run: sys.exit(3)
STATEMENTS
cat "$work/seen"
diff - "$work/seen" <<'EXPECTED'
raise SystemExit(3): the process 3, the run 0
exit(3): the process 3, the run 0
sys.exit(3): the process 3, the run 3
with run: sys.exit(3): the process 3, the run 1
EXPECTED
