#!/bin/sh
# Full masks on PASCAL VOC 2012: DeepLabv3+ with MobileNetv2; 3 seeds, as in the paper.
# Expected (arXiv 2104.06394; best epoch, 3 runs): 57.9 +- 0.5 percent mIoU.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
SEEDS=${SEEDS:-0 1 2}
study fully-supervised-dl-voc -- --dataset_name voc --network_name deeplab --backbone mobilenetv2 \
    ${VOC_DIR:+--dir_dataset "$VOC_DIR"} \
    ${MOBILENET_WEIGHTS:+--weights "$MOBILENET_WEIGHTS"} --n_pixels_by_us 0 "$@"
