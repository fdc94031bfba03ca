#!/bin/sh
# Few images with many pixels, or many images with few? 3600 pixels of CamVid in all, uniformly
# drawn, over 360, 180, 72 or 36 images; one round, the same number of training steps for each, and
# as many evaluations. 4 variants x 5 seeds. No number of the paper's is at hand.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
study diversity --budget total --vary \
    "--n_images 360 --n_pixels_by_us 10 --max_budget 10" \
    "--n_images 180 --n_pixels_by_us 20 --max_budget 20 --n_epochs 100 --eval_interval 2" \
    "--n_images 72 --n_pixels_by_us 50 --max_budget 50 --n_epochs 250 --eval_interval 5" \
    "--n_images 36 --n_pixels_by_us 100 --max_budget 100 --n_epochs 500 --eval_interval 10" \
    -- --dataset_name cv \
    ${CAMVID_DIR:+--dir_dataset "$CAMVID_DIR"} \
    ${MOBILENET_WEIGHTS:+--weights "$MOBILENET_WEIGHTS"} "$@"
