#!/bin/sh
# PixelPick on CamVid: FPN with ResNet50, margin sampling, 10 to 100 pixels per image; 5 seeds, as
# in the paper.
# Expected, mIoU in percent (arXiv 2104.06394; best epoch, 5 runs), by pixels per image:
#   20: 59.7 +- 0.9, 40: 62.3 +- 0.5, 60: 64.0 +- 0.3, 80: 64.4 +- 0.6, 100: 65.1 +- 0.3
# fully-supervised-fpn50-cv.sh: 67.8 +- 0.3. Once that has run, the table has its percent.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
study pixelpick-fpn50-cv -- --dataset_name cv --network_name FPN --backbone resnet50 \
    ${CAMVID_DIR:+--dir_dataset "$CAMVID_DIR"} \
    ${RESNET50_WEIGHTS:+--weights "$RESNET50_WEIGHTS"} "$@"
