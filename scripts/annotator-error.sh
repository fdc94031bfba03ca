#!/bin/sh
# Annotators err: of the answers after the first round none, 5, 10 or 20 percent become a wrong class,
# and 20 percent drawn anew in every epoch; DeepLabv3+ with MobileNetv2 on CamVid. 5 variants x 5
# seeds. Expected without errors (arXiv 2104.06394; best epoch, 5 runs): 50.8 +- 0.2 at 20 pixels
# per image, 55.9 +- 0.1 at 100; no number of the paper's is at hand for the others.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
study annotator-error --vary \
    "--label_noise 0" \
    "--label_noise 0.05" \
    "--label_noise 0.1" \
    "--label_noise 0.2" \
    "--label_noise 0.2 --label_noise_redraw" \
    -- --dataset_name cv \
    ${CAMVID_DIR:+--dir_dataset "$CAMVID_DIR"} \
    ${MOBILENET_WEIGHTS:+--weights "$MOBILENET_WEIGHTS"} "$@"
