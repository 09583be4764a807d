#!/usr/bin/env bash
# One night's job on Slurm: a Ray cluster over the job's nodes, and the archive job on it.
#   ARCHIVE=/project/archive OUT=/project/tables sbatch configs/cluster/slurm.sh --model naturelm-8b
# Arguments after the script's name are passed to `naturelm process`. Recordings and tables are on a file system that
# all nodes share, or in an object store. Submit it again to resume; the tables contain every row once.
#SBATCH --job-name=naturelm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Ten minutes before the time is up: stop feeding, commit what is in flight, end.
#SBATCH --signal=B:INT@600
set -euo pipefail

: "${ARCHIVE:?give the directory with the recordings, like ARCHIVE=/project/archive}"
: "${OUT:?give the directory for the tables, like OUT=/project/tables}"

hosts=$(scontrol show hostnames "${SLURM_JOB_NODELIST:?run this with sbatch}")
mapfile -t nodes <<<"$hosts"
# The batch script runs on the first node. Not --ip-address: many a node knows its own name as 127.0.1.1.
addresses=$(hostname --all-ip-addresses)
head_ip=${addresses%% *}
# Jobs that share a node must not share a port.
port=$((20000 + ${SLURM_JOB_ID:?} % 20000))
address=$head_ip:$port
cpus=${SLURM_CPUS_PER_TASK:-1}
gpus=${SLURM_GPUS_ON_NODE:-0}

# Whoever reaches a Ray cluster can run code on it: only those with this job's token may.
RAY_AUTH_TOKEN=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

on() { srun --nodes=1 --ntasks=1 --nodelist="$1" "${@:2}"; }

on "${nodes[0]}" ray start --head --node-ip-address="$head_ip" --port="$port" \
  --num-cpus="$cpus" --num-gpus="$gpus" --include-dashboard=false --block &
head_step=$!
until (exec 3<>"/dev/tcp/$head_ip/$port") 2>/dev/null; do
  if ! kill -0 "$head_step" 2>/dev/null; then
    echo "slurm.sh: the Ray head on ${nodes[0]} has ended; see above why" >&2
    exit 1
  fi
  sleep 2
done
for node in "${nodes[@]:1}"; do
  on "$node" ray start --address="$address" --num-cpus="$cpus" --num-gpus="$gpus" --block &
done

# In the background, so that the signal reaches this script while the job runs; and with job control, without which the
# job would ignore it.
set -m
naturelm process "$ARCHIVE" --out "$OUT" --address "$address" "$@" &
driver=$!
trap 'kill -INT "$driver"' INT TERM
status=0
wait "$driver" || status=$?
# A signal ends `wait`, not the job.
while kill -0 "$driver" 2>/dev/null; do
  status=0
  wait "$driver" || status=$?
done
# The steps with Ray end with the job.
exit "$status"
