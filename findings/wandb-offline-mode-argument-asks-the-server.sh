#!/usr/bin/env bash
# wandb 0.31.0: `wandb.init(mode="offline")` asks wandb's server at the end of the process, and keeps an OpenTelemetry
# exporter for it, with two threads, which counts each `run.log`. With WANDB_MODE=offline in the environment neither happens.
#
# wandb's reports on itself look at the process' settings, not at the run's: a job on a cluster without a network waits at its
# end for an address that it can't reach, and a firewall's log shows what was said to be offline. WANDB_ERROR_REPORTING=false
# turns it off. The request is seen here by a proxy on the loopback, which refuses it.
#
# Seen:
#   mode="offline": the run is offline, exporter threads 2, requests 1
#   WANDB_MODE=offline: the run is offline, exporter threads 0, requests 0
# Exits 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check wandb==0.31.0
cat >"$work/try.py" <<'PYTHON'
import atexit
import os
import socket
import sys
import threading

requests = []


def refuse():
    while True:
        connection, _ = proxy.accept()
        requests.append(connection.recv(4096).split(b"\r\n")[0])
        connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
        connection.close()


def report():
    print(f"{how}: the run is {of}, exporter threads {exporters}, requests {len(requests)}")


proxy = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=refuse, daemon=True).start()
os.environ["https_proxy"] = f"http://127.0.0.1:{proxy.getsockname()[1]}"
by_argument = sys.argv[1] == "argument"
how = 'mode="offline"' if by_argument else "WANDB_MODE=offline"
if not by_argument:
    os.environ["WANDB_MODE"] = "offline"
atexit.register(report)  # before wandb's own, which run first then

import wandb

run = wandb.init(project="try", dir=sys.argv[2], settings=wandb.Settings(silent=True), mode="offline" if by_argument else None)
run.log({"loss": 0.5})
of = "offline" if run.offline else "online"
exporters = sum(thread.name.startswith("Otel") for thread in threading.enumerate())
run.finish()
PYTHON
mkdir "$work/runs"
unset "${!WANDB_@}" https_proxy HTTPS_PROXY no_proxy NO_PROXY 2>/dev/null || true
seen=$(for how in argument variable; do "$work/venv/bin/python" "$work/try.py" "$how" "$work/runs"; done)
echo "$seen"
[ "$seen" = 'mode="offline": the run is offline, exporter threads 2, requests 1
WANDB_MODE=offline: the run is offline, exporter threads 0, requests 0' ]
