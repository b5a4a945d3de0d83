#!/usr/bin/env bash
# Slurm 22.05.8: a job that is submitted from a task of another job, as one that submits its own continuation is, has
# that task's variables for its whole life. sbatch takes the environment along (--export=ALL), and the batch script's
# start sets what a batch script has (SLURM_JOB_ID, SLURM_PROCID, SLURM_NTASKS), but clears nothing that only a step or
# an array has. So the one process of `sbatch -n2` sees SLURM_STEP_ID=0 and SLURM_STEP_NUM_TASKS=2 of no step of its
# own, the array's task of its parent, and PMI_RANK=1 of PMI_SIZE=2: to whoever takes these for a launcher's it is rank 1
# of a job whose rank 0 does not exist, and ARRAY_JOB_ID_TASK_ID names its parent.
#
# Seen: "SLURM_ARRAY_TASK_ID=5 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 PMI_RANK=1 PMI_SIZE=2" in the second job's batch
# script. Exits 1 when that changes. Needs Debian 12, whose packages are unpacked below a folder of this script's own, and
# root, which Slurm's daemon for a node takes; its ports are 27817 and 27818 on this machine.
set -euo pipefail
version=22.05.8-4+deb12u3
work=$(mktemp -d)
stop() { for file in "$work"/*.pid; do kill "$(cat "$file")" 2>/dev/null || true; done; sleep 1; rm -rf "$work"; }
trap stop EXIT
chmod 755 "$work"
mkdir "$work/debs" "$work/state" "$work/spool"
cd "$work/debs"
apt-get download -qq {slurmctld,slurmd,slurm-client,slurm-wlm-basic-plugins}="$version" \
    munge libmunge2 libhwloc15 libnuma1 liblz4-1 libjson-c5 libltdl7 libreadline8 libfreeipmi17 librrd8 2>"$work/apt.log"
for deb in *.deb; do dpkg -x "$deb" "$work/root"; done
cd "$work"
libraries=$(dirname "$(find "$work/root" -name 'libslurmfull.so*' | head -n 1)")
export LD_LIBRARY_PATH=$libraries:$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu
export PATH=$work/root/usr/bin:$work/root/usr/sbin:$PATH SLURM_CONF=$work/slurm.conf
head -c 1024 /dev/urandom >key
chmod 600 key
munged --force --socket "$work/munge" --key-file "$work/key" --pid-file "$work/munged.pid" \
    --log-file "$work/munged.log" --seed-file "$work/seed"
cat >slurm.conf <<CONF
ClusterName=pilot
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=27817
SlurmdPort=27818
AuthInfo=socket=$work/munge
SlurmUser=root
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
PluginDir=$libraries
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=8
PartitionName=batch Nodes=ALL Default=YES State=UP
CONF
slurmctld
slurmd -d "$(command -v slurmstepd)"
cat >second.sh <<JOB
#!/bin/bash
for name in SLURM_ARRAY_TASK_ID SLURM_STEP_ID SLURM_STEP_NUM_TASKS PMI_RANK PMI_SIZE; do
    printf '%s=%s ' "\$name" "\${!name:-}"
done >$work/new
mv $work/new $work/second
JOB
cat >first.sh <<JOB
#!/bin/bash
#SBATCH --array=5
#SBATCH --ntasks=2
srun --mpi=pmi2 bash -c '[[ \$SLURM_PROCID == 0 ]] || sbatch --ntasks=2 --output=/dev/null $work/second.sh'
JOB
sbatch --version
sbatch --output=first.log first.sh
for _ in {1..300}; do
    [[ ! -e second ]] || break
    sleep 0.2
done
cat second
[[ $(cat second) == "SLURM_ARRAY_TASK_ID=5 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 PMI_RANK=1 PMI_SIZE=2 " ]]
