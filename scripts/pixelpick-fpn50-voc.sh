#!/bin/sh
# PixelPick on PASCAL VOC 2012: FPN with ResNet50, margin sampling, 10 to 50 pixels per image; 3
# seeds, as in the paper.
# Expected, mIoU in percent (arXiv 2104.06394; best epoch, 3 runs), by pixels per image:
#   10: 59.7 +- 0.8, 20: 65.6 +- 0.5, 30: 66.4 +- 0.2, 40: 67.2 +- 0.1, 50: 67.4 +- 0.5
# fully-supervised-fpn50-voc.sh: 69.4 +- 0.3. Once that has run, the table has its percent.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
SEEDS=${SEEDS:-0 1 2}
study pixelpick-fpn50-voc -- --dataset_name voc --network_name FPN --backbone resnet50 \
    ${VOC_DIR:+--dir_dataset "$VOC_DIR"} \
    ${RESNET50_WEIGHTS:+--weights "$RESNET50_WEIGHTS"} "$@"
