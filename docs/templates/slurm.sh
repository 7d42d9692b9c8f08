#!/bin/bash
# linne on several machines under SLURM: sbatch docs/templates/slurm.sh
# Change the lines up to "what to train"; the rest goes as it is.
#SBATCH --job-name=linne
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
# Five minutes before the time is up this script is told, a checkpoint is written, and the job is queued again.
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append

set -u
OUTPUT=${OUTPUT:-runs/imagenet-$SLURM_JOB_ID} # on a disk that all machines see; the same after a requeue
PORT=${PORT:-29400}                           # this port and the one above must be free on the first machine
TRAIN=(train imagenet --model timm/resnet50 --batch-size 2048 --output "$OUTPUT") # what to train

FIRST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export FIRST PORT

# One supervisor a machine; in a shell of its own, because only there SLURM_NODEID says which machine it is.
# shellcheck disable=SC2016 # meant to be expanded there
srun --kill-on-bad-exit=0 bash -c '
    exec linne launch --nodes "$SLURM_NNODES" --node-rank "$SLURM_NODEID" --rendezvous "$FIRST:$PORT" \
        --nproc "$SLURM_GPUS_ON_NODE" "$@"' launch "${TRAIN[@]}" &
STEP=$!
trap 'kill -USR1 "$STEP"' USR1
trap 'kill -TERM "$STEP"' TERM

# A signal ends `wait`, not the step: wait again until it is gone.
CODE=0
while kill -0 "$STEP" 2>/dev/null; do
    wait "$STEP"
    CODE=$?
done

if [ "$CODE" -eq 138 ]; then # 128 + SIGUSR1: it was asked to leave, and has saved
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$CODE"
