#!/bin/sh
# PixelPick on Cityscapes at 256x512: FPN with ResNet50, margin sampling, 10 to 100 pixels per
# image; 5 seeds, as in the paper.
# Expected, mIoU in percent (arXiv 2104.06394; best epoch, 5 runs), by pixels per image:
#   20: 56.1 +- 0.4, 40: 60.0 +- 0.3, 60: 61.6 +- 0.4, 80: 62.3 +- 0.4, 100: 62.8 +- 0.4
# fully-supervised-fpn50-cs.sh: 68.5 +- 0.3. Once that has run, the table has its percent.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
study pixelpick-fpn50-cs -- --dataset_name cs --network_name FPN --backbone resnet50 \
    ${CITYSCAPES_DIR:+--dir_dataset "$CITYSCAPES_DIR"} \
    ${RESNET50_WEIGHTS:+--weights "$RESNET50_WEIGHTS"} "$@"
