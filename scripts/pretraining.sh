#!/bin/sh
# What the backbone starts from: FPN with ResNet50 on CamVid, from ImageNet labels (supervised), from
# MoCo v2 (no labels) and from random weights. 3 variants x 5 seeds. Expected for the first (arXiv
# 2104.06394; best epoch, 5 runs): 59.7 +- 0.9 at 20 pixels per image, 65.1 +- 0.3 at 100; no number
# of the paper's is at hand for the others.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
study pretraining --vary \
    "--weight_type '${RESNET50_WEIGHTS:-supervised}'" \
    "--weight_type '${MOCO_V2_WEIGHTS:-moco_v2}'" \
    "--weight_type random" \
    -- --network_name FPN --backbone resnet50 --dataset_name cv \
    ${CAMVID_DIR:+--dir_dataset "$CAMVID_DIR"} "$@"
