#!/bin/sh
# Everything that is measured on an accelerator, into one Markdown file.
#
#   benchmarks/gpu_all.sh [PART ...]        all parts without one: doctor cifar10 rate photographs
#                                         resnet50 vit inception
#
# A part takes at most ten minutes and is kept when it is done: run the same line again to go on where it was cut off.
# From the environment, all of them optional:
#   RECORD_SCRIPT  your copy of airbench94_muon.py, for `cifar10`; without it linne's side is measured alone
#   CIFAR10        the folder of the set's official files; else `linne data get cifar10` must have brought them
#   RESULTS        the file to write; docs/benchmarks/results-DATE-gpu.md
#   KEPT           the folder for what is done; build/bench-gpu. Remove it to begin anew
#   PYTHON         the Python that has linne's `train` extra; .venv/bin/python
#   OPTIONS        more options for every script, as "--quick --device cpu"
cd "$(dirname "$0")/.." || exit 1

python=${PYTHON:-.venv/bin/python}
kept=${KEPT:-build/bench-gpu}
mkdir -p "$kept" || exit 1
[ -f "$kept/date" ] || date -u +%Y-%m-%d > "$kept/date"
date=$(cat "$kept/date")
results=${RESULTS:-docs/benchmarks/results-$date-gpu.md}
missing=""

# part NAME COMMAND...: what the command prints is the part, when it ends well.
part() {
    name=$1
    shift
    [ -f "$kept/$name.md" ] && return
    case " $wanted " in *" $name "*) ;; *) return ;; esac
    echo "+ $*" >&2
    timeout 600 "$@" > "$kept/$name.part"
    case $name-$? in
        *-0 | doctor-3) mv "$kept/$name.part" "$kept/$name.md" ;; # 3: the doctor found something, and says so
        *) missing="$missing $name" ;;
    esac
}

wanted=${*:-doctor cifar10 rate photographs resnet50 vit inception}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
# shellcheck disable=SC2086  # OPTIONS is several words
{
    part doctor "$python" -m linne doctor
    part cifar10 "$python" benchmarks/gpu_cifar10.py --keep "$kept/cifar10.jsonl" \
        ${RECORD_SCRIPT:+--record-script "$RECORD_SCRIPT"} ${CIFAR10:+--data "$CIFAR10"} $OPTIONS
    part rate "$python" benchmarks/gpu_imagenet_rate.py --no-photographs --timm-channels-last $OPTIONS
    part photographs "$python" benchmarks/gpu_imagenet_rate.py --columns "bf16, channels_last" $OPTIONS
    # Deployed, tuned over eager AMP: expected are 1.8, 1.15 and 1.8 times as many images a second on an H200.
    for network in "resnet50=ResNet-50" "vit=ViT-B/16" "inception=Inception v3"; do
        part "${network%%=*}" "$python" benchmarks/deploy_networks.py --folder "$kept/deployed" --device cuda \
            --batch 256 --networks "${network#*=}" $OPTIONS
    done
}

{
    echo "# What was measured on an accelerator, $date"
    echo
    echo "As \`benchmarks/gpu_all.sh\` printed it. What the rows mean is in [the summary](README.md) and in the scripts."
    for name in doctor cifar10 rate photographs resnet50 vit inception; do
        [ -f "$kept/$name.md" ] || continue
        if [ "$name" = doctor ]; then
            printf '\n## The machine\n\n```\n'
            cat "$kept/$name.md"
            echo '```'
        else
            sed 's/^### /## /' "$kept/$name.md"
        fi
    done
} > "$results"
echo "wrote $results" >&2
if [ -n "$missing" ]; then
    echo "not done:$missing; run it again to go on" >&2
    exit 1
fi
