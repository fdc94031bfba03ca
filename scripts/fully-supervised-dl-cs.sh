#!/bin/sh
# Full masks on Cityscapes at 256x512: DeepLabv3+ with MobileNetv2; 5 seeds, as in the paper.
# Expected (arXiv 2104.06394; best epoch, 5 runs): 61.4 +- 0.5 percent mIoU.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
study fully-supervised-dl-cs -- --dataset_name cs --network_name deeplab --backbone mobilenetv2 \
    ${CITYSCAPES_DIR:+--dir_dataset "$CITYSCAPES_DIR"} \
    ${MOBILENET_WEIGHTS:+--weights "$MOBILENET_WEIGHTS"} --n_pixels_by_us 0 "$@"
