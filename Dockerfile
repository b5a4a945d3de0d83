# `--target bridge` is the wandb bridge and a node's sidecar, `--target collector` agent and gateway, `--target train` the
# reference job.
FROM python:3.11-slim-bookworm AS build
COPY pyproject.toml setup.py constraints.txt README.md LICENSE /src/
COPY collector /src/collector
COPY deploy /src/deploy
COPY prometheus /src/prometheus
COPY otel_train /src/otel_train
RUN python -m venv /opt/otel_train \
    && /opt/otel_train/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --constraint /src/constraints.txt '/src[bridge]'

FROM python:3.11-slim-bookworm AS base
RUN useradd --system --uid 10001 --user-group --home-dir /tmp otel_train \
    && install --directory --owner otel_train --group otel_train --mode 0700 /var/lib/otel_train
# The root file system may be read-only: what wandb and Python want to write beside the state goes to /tmp.
ENV PATH=/opt/otel_train/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    WANDB_CACHE_DIR=/tmp/wandb WANDB_CONFIG_DIR=/tmp/wandb WANDB_DATA_DIR=/tmp/wandb
USER otel_train
WORKDIR /var/lib/otel_train
ENTRYPOINT ["otel-train"]

FROM base AS bridge
COPY --from=build /opt/otel_train /opt/otel_train
EXPOSE 4317 4318
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s --retries=3 CMD ["otel-train", "bridge", "--check"]
CMD ["bridge", "--listen", "0.0.0.0:4317", "--state", "/var/lib/otel_train"]

# A training process has the native core, which is built here; the bridge has no use for it.
FROM build AS train-build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN /opt/otel_train/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
    --constraint /src/constraints.txt '/src[train,bridge]'

FROM base AS train
COPY --from=train-build /opt/otel_train /opt/otel_train
CMD ["demo"]

# The distribution that collector/builder.yaml describes: static, with the authorities of the base image.
FROM golang:1.26-bookworm AS collector-build
COPY collector /src
WORKDIR /src
ENV CGO_ENABLED=0
RUN go install "go.opentelemetry.io/collector/cmd/builder@v$(sed -n 's/^  version: //p' builder.yaml)" \
    && "$(go env GOPATH)/bin/builder" --config builder.yaml \
    && install --directory --owner 10001 --group 10001 --mode 0700 /queue

FROM scratch AS collector
COPY --from=collector-build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=collector-build /src/otelcol-train/otelcol-train /otelcol-train
COPY --from=collector-build --chown=10001:10001 /queue /var/lib/otelcol
USER 10001:10001
EXPOSE 4317
ENTRYPOINT ["/otelcol-train"]
