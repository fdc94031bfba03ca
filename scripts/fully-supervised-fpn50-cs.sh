#!/bin/sh
# Full masks on Cityscapes at 256x512: FPN with ResNet50; 5 seeds, as in the paper.
# Expected (arXiv 2104.06394; best epoch, 5 runs): 68.5 +- 0.3 percent mIoU.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
study fully-supervised-fpn50-cs -- --dataset_name cs --network_name FPN --backbone resnet50 \
    ${CITYSCAPES_DIR:+--dir_dataset "$CITYSCAPES_DIR"} \
    ${RESNET50_WEIGHTS:+--weights "$RESNET50_WEIGHTS"} --n_pixels_by_us 0 "$@"
