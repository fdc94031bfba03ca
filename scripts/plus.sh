#!/bin/sh
# Better networks from the same pixels: the paper's recipe, --recipe plus, and random pixels with the
# paper's recipe; DeepLabv3+ with MobileNetv2 on CamVid. 3 variants x 5 seeds.
# Expected of the paper's recipe (arXiv 2104.06394; best epoch, 5 runs): 50.8 +- 0.2 at 20 pixels per
# image, 53.9 +- 0.7 at 40. At a quarter of the size see the README, "Results so far".
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
study plus --vary "-qs margin_sampling" "--recipe plus" "-qs random" \
    -- --dataset_name cv \
    ${CAMVID_DIR:+--dir_dataset "$CAMVID_DIR"} \
    ${MOBILENET_WEIGHTS:+--weights "$MOBILENET_WEIGHTS"} "$@"
