#!/bin/sh
# PixelPick on CamVid: DeepLabv3+ with MobileNetv2, margin sampling, 10 to 100 pixels per image,
# one run for each seed. Paper (arXiv 2104.06394, table 1; 5 runs, best epoch): 50.8 +- .2 mIoU at
# 20 pixels, 55.9 +- .1 at 100, 58.2 +- .6 with full masks.
#
#   CAMVID_DIR         the data set (README, "Data sets"); data/CamVid if not set
#   MOBILENET_WEIGHTS  a MobileNetv2 state dict; torchvision's weights are downloaded if not set
#   SEEDS              "0 1 2 3 4" if not set
#
# Further arguments go to train.py, e.g. --downsample 2 or --n_pixels_by_us 0. An interrupted run is
# continued by the same command.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/environment.sh"
install_requirements "$root/requirements.txt"

for seed in ${SEEDS:-0 1 2 3 4}; do
    "$PYTHON" "$root/train.py" --dataset_name cv --seed "$seed" \
        ${CAMVID_DIR:+--dir_dataset "$CAMVID_DIR"} \
        ${MOBILENET_WEIGHTS:+--weights "$MOBILENET_WEIGHTS"} "$@"
done
