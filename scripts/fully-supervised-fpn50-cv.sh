#!/bin/sh
# Full masks on CamVid: FPN with ResNet50; 5 seeds, as in the paper.
# Expected (arXiv 2104.06394; best epoch, 5 runs): 67.8 +- 0.3 percent mIoU.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
study fully-supervised-fpn50-cv -- --dataset_name cv --network_name FPN --backbone resnet50 \
    ${CAMVID_DIR:+--dir_dataset "$CAMVID_DIR"} \
    ${RESNET50_WEIGHTS:+--weights "$RESNET50_WEIGHTS"} --n_pixels_by_us 0 "$@"
