#!/bin/sh
# The paper's CamVid table on one GPU, at 360x480 with 3 seeds: margin sampling, 10 to 100 pixels per
# image, and full masks; before it, benchmarks/step.py and round.py.
#
#   sh benchmarks/gpu_camvid.sh PACK.tar WEIGHTS.pth OUT [SECONDS]
#
# PACK.tar holds CamVid's folders (images as PNG or WebP), WEIGHTS.pth a MobileNetv2 state dict.
# Tables are written to OUT; after SECONDS (400) the runs are stopped and what they finished is
# tabulated. Called again on the same machine it goes on: the runs are in WORK (default: pixelpick in
# the temporary folder). PYTHON names the interpreter.
set -eu
pack=$1 weights=$2 out=$3 seconds=${4:-400}
python=${PYTHON:-python3}
work=${WORK:-${TMPDIR:-/tmp}/pixelpick}
here=$(dirname "$0")
mkdir -p "$work/data" "$out"
[ -e "$work/unpacked" ] || { tar -xf "$pack" -C "$work/data"; : > "$work/unpacked"; }
data=$(dirname "$(find "$work/data" -type d -name trainannot | head -n 1)")

if [ ! -e "$work/measured" ]; then
    "$python" "$here/step.py" --json "$out/step.json"
    "$python" "$here/round.py" --json "$out/round.json" --dataset_name cv \
        --dir_dataset "$data" --weights "$weights" --eval_batch_size 32
    : > "$work/measured"
fi
OMP_NUM_THREADS=2 "$python" "$here/study.py" --name camvid_mobilenetv2 --seeds 0 1 2 --parallel 6 \
    --vary "-qs margin_sampling" "--n_pixels_by_us 0" --seconds "$seconds" --out "$out" \
    --json "$out/camvid_mobilenetv2.json" \
    --note "weights: $(basename "$weights"); data: $(basename "$pack")" \
    -- --dataset_name cv --dir_dataset "$data" --weights "$weights" --n_workers 2 \
    --eval_batch_size 32 --dir_checkpoints "$work/checkpoints"
