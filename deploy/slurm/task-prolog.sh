#!/bin/sh
# TaskProlog of slurm.conf: has each rank put its rings where the prolog's sidecar looks. slurmd runs it as the job's user
# before each task, and what it prints becomes the task's environment. So the settings must be readable to all users.
#
# With any other code Slurm would not start the task.
trap 'exit 0' EXIT
# A variable of the job's with this name is not the prolog's.
OTEL_TRAIN_RINGS=
settings=${OTEL_TRAIN_SLURM_ENV:-/etc/otel_train/slurm.env}
[ ! -r "$settings" ] || . "$settings"
# Else nobody would send what the ranks record: they start a sidecar of their own.
case $OTEL_TRAIN_RINGS in /*) ;; *) exit ;; esac

echo "export OTEL_TRAIN_SIDECAR=external"
echo "export OTEL_TRAIN_RING_DIR=$OTEL_TRAIN_RINGS/$(id -u)/$SLURM_JOB_ID"
