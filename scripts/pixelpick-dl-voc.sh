#!/bin/sh
# PixelPick on PASCAL VOC 2012: DeepLabv3+ with MobileNetv2, margin sampling, 10 to 50 pixels per
# image; 3 seeds, as in the paper.
# Expected, mIoU in percent (arXiv 2104.06394; best epoch, 3 runs), by pixels per image:
#   10: 51.7 +- 0.2, 20: 53.9 +- 0.8, 30: 56.7 +- 0.3, 40: 56.9 +- 0.7, 50: 57.2 +- 0.3
# fully-supervised-dl-voc.sh: 57.9 +- 0.5. Once that has run, the table has its percent.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
SEEDS=${SEEDS:-0 1 2}
study pixelpick-dl-voc -- --dataset_name voc --network_name deeplab --backbone mobilenetv2 \
    ${VOC_DIR:+--dir_dataset "$VOC_DIR"} \
    ${MOBILENET_WEIGHTS:+--weights "$MOBILENET_WEIGHTS"} "$@"
