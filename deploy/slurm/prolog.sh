#!/bin/sh
# Prolog of slurm.conf, for sites that want one sidecar for each job and node outside of the job: neither a step's end nor
# scancel ends it. slurmd runs it as root on each node of a job. Needs epilog.sh, task-prolog.sh and the same settings:
# OTEL_TRAIN_RINGS names a folder on the node's disk. With job_container/tmpfs a job's /dev/shm and /tmp are its own, and
# nobody outside of it sees what is there: the folder must be elsewhere.
# Any other code would drain the node, whatever is in the settings.
trap 'exit 0' EXIT
set -a
settings=${OTEL_TRAIN_SLURM_ENV:-/etc/otel_train/slurm.env}
[ ! -r "$settings" ] || . "$settings"
set +a
# Without such a folder the ranks start a sidecar of their own: task-prolog.sh prints nothing then.
case $OTEL_TRAIN_RINGS in /*) ;; *) exit ;; esac

group=$(id -g "$SLURM_JOB_UID")
user="setpriv --reuid=$SLURM_JOB_UID --regid=$group --clear-groups"
own=$OTEL_TRAIN_RINGS/$SLURM_JOB_UID
run=${OTEL_TRAIN_RUN:-/run/otel_train}
mkdir -p "$OTEL_TRAIN_RINGS" "$run"
[ -d "$own" ] || install -d -m 700 -o "$SLURM_JOB_UID" -g "$group" "$own"
# All below `own` is done as the user: links there may lead anywhere. slurmd kills what its prolog leaves in its group, so
# the sidecar's session is made before this script goes on.
# shellcheck disable=SC2016,SC2086
setsid sh -c '"$@" </dev/null >/dev/null 2>&1 & echo $! >"$0"' "$run/$SLURM_JOB_ID.pid" \
    $user sh -c 'umask 077; mkdir -p "$1" && exec "$0" sidecar "$1" >>"$1/sidecar.log" 2>&1' \
    "${OTEL_TRAIN_COMMAND:-otel-train}" "$own/$SLURM_JOB_ID"
