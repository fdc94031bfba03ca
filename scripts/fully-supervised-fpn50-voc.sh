#!/bin/sh
# Full masks on PASCAL VOC 2012: FPN with ResNet50; 3 seeds, as in the paper.
# Expected (arXiv 2104.06394; best epoch, 3 runs): 69.4 +- 0.3 percent mIoU.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
SEEDS=${SEEDS:-0 1 2}
study fully-supervised-fpn50-voc -- --dataset_name voc --network_name FPN --backbone resnet50 \
    ${VOC_DIR:+--dir_dataset "$VOC_DIR"} \
    ${RESNET50_WEIGHTS:+--weights "$RESNET50_WEIGHTS"} --n_pixels_by_us 0 "$@"
