#!/usr/bin/env bash
# VictoriaMetrics 1.151.0 (single node): one sample of 1e20 in a series makes its neighbours read 0. The samples of a series
# are stored in blocks of up to 8,192, as whole numbers with one common decimal exponent, so that what is 1e18 times smaller
# than the largest value of a block is lost: a loss that blows up once erases the losses around it. Prometheus keeps each.
#
# Seen: 199 of 199 losses near 2 read as 0, the one of 1e+20 as it was
# Exits 1 when that changes. Needs Go 1.25 or newer.
set -euo pipefail
work=$(mktemp -d)
store=
trap '[ -z "$store" ] || { kill "$store"; wait "$store" || true; }; chmod -R u+w "$work"; rm -rf "$work"' EXIT
GOBIN=$work CGO_ENABLED=0 GOFLAGS=-trimpath go install github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics@v1.151.0
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/victoria-metrics" -storageDataPath="$work/data" -httpListenAddr="127.0.0.1:$port" 2>"$work/log" &
store=$!
cat >"$work/try.py" <<'PYTHON'
import json
import sys
import time
import urllib.request

url, begin = f"http://127.0.0.1:{sys.argv[1]}", int(time.time() - 3600) * 1000
losses = [2 + 0.001 * (step % 7) for step in range(200)]
losses[50] = 1e20


def ask(path, body=None):
    with urllib.request.urlopen(url + path, body, timeout=10) as answer:
        return answer.read()


for _ in range(100):
    try:
        ask("/health")
        break
    except OSError:
        time.sleep(0.1)
times = [begin + 1000 * step for step in range(200)]
line = {"metric": {"__name__": "loss"}, "values": losses, "timestamps": times}
ask("/api/v1/import", json.dumps(line).encode())
ask("/internal/force_flush")
for _ in range(100):
    series = json.loads(ask(f"/api/v1/query?query=loss[2h]&time={time.time()}"))["data"]["result"]
    if series:
        break
    time.sleep(0.1)
values = [float(value) for _, value in series[0]["values"]]
largest = values.pop(50)
print(f"{values.count(0)} of {len(values)} losses near 2 read as 0, the one of {largest:g} as it was")
PYTHON
output=$(python3 "$work/try.py" "$port")
echo "$output"
[ "$output" = "199 of 199 losses near 2 read as 0, the one of 1e+20 as it was" ]
