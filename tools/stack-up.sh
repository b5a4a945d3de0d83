#!/usr/bin/env bash
# Bring the compose stack up, with passwords made up where none were given; one line names what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

missing() {
    echo "make stack: $1; without docker, \`make demo\` shows the same values, wandb offline" >&2
    exit 1
}
command -v docker >/dev/null || missing "docker is not installed: install Docker Engine and its compose plugin"
docker compose version >/dev/null 2>&1 || missing "docker has no compose plugin: install docker-compose-plugin"
docker info >/dev/null 2>&1 || missing "no docker engine answers: start it, and see that this user may use it"

if [ ! -f .env ]; then
    (
        umask 077
        secret() { head -c 18 /dev/urandom | base64 | tr '+/' '-_'; }
        sed -e "s/^GRAFANA_ADMIN_PASSWORD=$/&$(secret)/" -e "s/^OTEL_TRAIN_BRIDGE_TOKEN=$/&$(secret)/" .env.example >.env
    )
    echo "made .env with a password for Grafana and a token for the bridge"
fi
docker compose up --detach --build --wait
cat <<'END'
Grafana     http://127.0.0.1:3000   (user admin, GRAFANA_ADMIN_PASSWORD in .env)
Prometheus  http://127.0.0.1:9090
a job       OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 torchrun ...
to try it   .venv/bin/otel-train smoke healthy --endpoint http://127.0.0.1:4317
END
