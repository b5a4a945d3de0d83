#!/bin/sh
# Epilog of slurm.conf: delivers what the rings of the job's user still hold on this node, now that the job's processes
# have ended and the sidecar with them. slurmd runs it as root on each node of a job.
#
# /etc/otel_train/slurm.env, or what OTEL_TRAIN_SLURM_ENV names, sets what a daemon's scripts don't inherit:
#   OTEL_EXPORTER_OTLP_ENDPOINT=http://collector.example:4317
#   OTEL_TRAIN_COMMAND=/opt/otel_train/bin/otel-train
#   OTEL_TRAIN_RINGS=/local/otel_train      a disk's folder with one of each user in it, where rings are on a disk
# Any other code would drain the node, whatever is in the settings.
trap 'exit 0' EXIT
set -a
settings=${OTEL_TRAIN_SLURM_ENV:-/etc/otel_train/slurm.env}
[ ! -r "$settings" ] || . "$settings"
set +a

# The prolog's sidecar, where there is one, leaves once it has delivered.
pid=${OTEL_TRAIN_RUN:-/run/otel_train}/$SLURM_JOB_ID.pid
if [ -r "$pid" ]; then
    # As the user: another user's process may have the number by now.
    setpriv --reuid="$SLURM_JOB_UID" --clear-groups kill "$(cat "$pid")" 2>/dev/null
    rm -f "$pid"
fi

send() {
    "${OTEL_TRAIN_COMMAND:-otel-train}" send --timeout "${OTEL_TRAIN_SEND_TIMEOUT:-60}" "$@"
}
set --
for directory in "/dev/shm/otel_train-$SLURM_JOB_UID" "/dev/shm/otel_train-$SLURM_JOB_UID"-[1-7]; do
    [ ! -d "$directory" ] || set -- "$@" "$directory"
done
# Both at once: the timeout is for all that the node is held for. What is left stays in the rings; the next job's epilog
# tries again.
[ $# = 0 ] || send "$@" &
# In memory the next job's sidecar bounds what is kept; on a disk nobody would.
directory=${OTEL_TRAIN_RINGS:+$OTEL_TRAIN_RINGS/$SLURM_JOB_UID}
[ ! -d "$directory" ] || send --clean "$directory"
wait
