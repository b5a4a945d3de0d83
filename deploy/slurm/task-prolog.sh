#!/bin/sh
# TaskProlog of slurm.conf: has each rank put its rings where the prolog's sidecar looks. slurmd runs it as the job's user
# before each task, and what it prints becomes the task's environment.
settings=${OTEL_TRAIN_SLURM_ENV:-/etc/otel_train/slurm.env}
[ ! -r "$settings" ] || . "$settings"

echo "export OTEL_TRAIN_SIDECAR=external"
echo "export OTEL_TRAIN_RING_DIR=$OTEL_TRAIN_RINGS/$(id -u)/$SLURM_JOB_ID"
