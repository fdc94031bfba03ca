#!/bin/sh
# PixelPick on Cityscapes at 256x512: DeepLabv3+ with MobileNetv2, margin sampling, 10 to 100 pixels
# per image; 5 seeds, as in the paper.
# Expected, mIoU in percent (arXiv 2104.06394; best epoch, 5 runs), by pixels per image:
#   20: 52.0 +- 0.6, 40: 54.7 +- 0.4, 60: 55.5 +- 0.6, 80: 56.1 +- 0.3, 100: 56.5 +- 0.3
# fully-supervised-dl-cs.sh: 61.4 +- 0.5. Once that has run, the table has its percent.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
study pixelpick-dl-cs -- --dataset_name cs --network_name deeplab --backbone mobilenetv2 \
    ${CITYSCAPES_DIR:+--dir_dataset "$CITYSCAPES_DIR"} \
    ${MOBILENET_WEIGHTS:+--weights "$MOBILENET_WEIGHTS"} "$@"
