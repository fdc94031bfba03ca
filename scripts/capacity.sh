#!/bin/sh
# How large a network can pixels feed? FPN on CamVid with ResNet-18, 34, 50 and 101, and the last two
# twice as wide (torchvision's Wide ResNets). 6 variants x 5 seeds. Expected for ResNet50 (arXiv
# 2104.06394; best epoch, 5 runs): 59.7 +- 0.9 at 20 pixels per image, 65.1 +- 0.3 at 100; no number
# of the paper's is at hand for the others. Each starts from torchvision's ImageNet weights; where
# they cannot be downloaded: --weight_type random.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
study capacity --vary \
    "--backbone resnet18" \
    "--backbone resnet34" \
    "--backbone resnet50" \
    "--backbone resnet101" \
    "--backbone resnet50 --width_multiplier 2" \
    "--backbone resnet101 --width_multiplier 2" \
    -- --network_name FPN --dataset_name cv \
    ${CAMVID_DIR:+--dir_dataset "$CAMVID_DIR"} "$@"
