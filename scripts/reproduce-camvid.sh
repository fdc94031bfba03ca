#!/bin/sh
# The paper's CamVid table with MobileNetv2 at 360x480, and the paper's numbers beside it: margin
# sampling, 10 to 100 pixels per image, and full masks.
#
#   sh scripts/reproduce-camvid.sh [SEED ...] [flags of train.py]
#
# Expected, mIoU in percent (arXiv 2104.06394; best epoch, 5 runs), by pixels per image:
#   20: 50.8 +- 0.2, 40: 53.9 +- 0.7, 60: 55.3 +- 0.5, 80: 55.2 +- 0.7, 100: 55.9 +- 0.1;
#   full masks: 58.2 +- 0.6
#
# scripts/study.sh says what comes from the environment (PARALLEL runs side by side). Besides:
#
#   SECONDS_LIMIT  stop after so long and tabulate what is finished; the same command goes on. At 540
#                  it comes in pieces of less than ten minutes
#   WORK           where runs are (the repository's checkpoints)
#   CAMVID_TAR     a tar file with CamVid's folders, unpacked once into WORK, instead of CAMVID_DIR
#   OUT            a folder for what to keep of a machine that is given back: table, figures and
#                  state.tar.gz, a few megabytes in at most 6 files. It holds all but networks: the
#                  rounds that were under way are begun again
#   RESUME         a state.tar.gz to go on from, on a machine that has no runs yet (the one in OUT)
#   USE_PYTHON     an interpreter that has all packages, where none can be installed
#   OMP_NUM_THREADS  of each run (cores / PARALLEL, so that runs side by side do not get in each
#                  other's way); on a CPU the numbers depend on it in their last digits
#
# On a GPU that is lent for minutes at a time, with DIR/ carried there and back:
#
#   USE_PYTHON=python3 CAMVID_TAR=DIR/CamVid-webp.tar MOBILENET_WEIGHTS=DIR/weights.pth \
#       RESUME=DIR/state.tar.gz OUT=... WORK=/tmp/runs PARALLEL=4 SECONDS_LIMIT=480 \
#       sh scripts/reproduce-camvid.sh 0 1 2 --eval_batch_size 32
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
seeds=
while [ $# -gt 0 ]; do
    case $1 in
        *[!0-9]*|'') break ;;
        *) seeds="$seeds $1" && shift ;;
    esac
done
SEEDS=${seeds:-${SEEDS:-}}
STUDY="${STUDY:-} ${SECONDS_LIMIT:+--seconds $SECONDS_LIMIT}"
if [ -z "${OMP_NUM_THREADS:-}" ]; then
    OMP_NUM_THREADS=$(($(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN) / ${PARALLEL:-1}))
    [ "$OMP_NUM_THREADS" -gt 0 ] || OMP_NUM_THREADS=1
fi
export OMP_NUM_THREADS
work=${WORK:-$root/checkpoints}
runs=camvid_*deeplab_mobilenetv2_*
. "$root/scripts/study.sh"

if [ -n "${CAMVID_TAR:-}" ]; then
    if [ ! -e "$work/data/unpacked" ]; then
        mkdir -p "$work/data"
        tar -xf "$CAMVID_TAR" -C "$work/data"
        : > "$work/data/unpacked"
    fi
    CAMVID_DIR=$(dirname "$(find "$work/data" -type d -name trainannot | head -n 1)")
fi
resume=${RESUME:-${OUT:+$OUT/state.tar.gz}}
if [ -n "$resume" ] && [ -e "$resume" ] && [ -z "$(find "$work" -maxdepth 1 -name "$runs")" ]; then
    mkdir -p "$work"
    tar -xzf "$resume" -C "$work"
fi

code=0
study reproduce-camvid --vary "-qs margin_sampling" "--n_pixels_by_us 0" \
    --note "data: $(basename "${CAMVID_TAR:-CamVid}"); weights: $(basename "${MOBILENET_WEIGHTS:-}")" \
    -- --dataset_name cv --network_name deeplab --backbone mobilenetv2 --dir_checkpoints "$work" \
    ${CAMVID_DIR:+--dir_dataset "$CAMVID_DIR"} \
    ${MOBILENET_WEIGHTS:+--weights "$MOBILENET_WEIGHTS"} "$@" || code=$?

if [ -n "${OUT:-}" ]; then
    mkdir -p "$OUT"
    (cd "$work" && find . -path "./$runs" -type f \( -name args.json -o -name metrics.csv \
        -o -name query.json -o -name query_stats.json -o -name labels.csv \) > kept.txt)
    tar -czf "$OUT/.state.tmp" -C "$work" -T "$work/kept.txt"
    mv "$OUT/.state.tmp" "$OUT/state.tar.gz"
    rm "$work/kept.txt"
    for name in table.md table.json miou_last.png miou_best.png published.png; do
        [ ! -e "$work/studies/reproduce-camvid/$name" ] ||
            cp "$work/studies/reproduce-camvid/$name" "$OUT"
    done
fi
exit $code
