#!/bin/sh
# PixelPick on CamVid: DeepLabv3+ with MobileNetv2, margin sampling, 10 to 100 pixels per image; 5
# seeds, as in the paper.
# Expected, mIoU in percent (arXiv 2104.06394; best epoch, 5 runs), by pixels per image:
#   20: 50.8 +- 0.2, 40: 53.9 +- 0.7, 60: 55.3 +- 0.5, 80: 55.2 +- 0.7, 100: 55.9 +- 0.1
# fully-supervised-dl-cv.sh: 58.2 +- 0.6. Once that has run, the table has its percent.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
study pixelpick-dl-cv -- --dataset_name cv --network_name deeplab --backbone mobilenetv2 \
    ${CAMVID_DIR:+--dir_dataset "$CAMVID_DIR"} \
    ${MOBILENET_WEIGHTS:+--weights "$MOBILENET_WEIGHTS"} "$@"
