#!/bin/sh
# Full masks on CamVid: DeepLabv3+ with MobileNetv2; 5 seeds, as in the paper.
# Expected (arXiv 2104.06394; best epoch, 5 runs): 58.2 +- 0.6 percent mIoU.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
study fully-supervised-dl-cv -- --dataset_name cv --network_name deeplab --backbone mobilenetv2 \
    ${CAMVID_DIR:+--dir_dataset "$CAMVID_DIR"} \
    ${MOBILENET_WEIGHTS:+--weights "$MOBILENET_WEIGHTS"} --n_pixels_by_us 0 "$@"
