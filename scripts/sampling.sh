#!/bin/sh
# Which pixels to ask: every acquisition function against random ones, DeepLabv3+ with MobileNetv2 on
# CamVid; those below the first four ask a committee (dropout, 20 passes). 11 variants x 5 seeds.
# Expected for margin sampling (arXiv 2104.06394; best epoch, 5 runs): 50.8 +- 0.2 at 20 pixels per
# image, 55.9 +- 0.1 at 100; no number of the paper's is at hand for the others.
#
# Further arguments go to train.py; scripts/study.sh says what comes from the environment.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/study.sh"
study sampling --vary \
    "-qs random" \
    "-qs margin_sampling" \
    "-qs least_confidence" \
    "-qs entropy" \
    "-qs margin_sampling --use_mc_dropout" \
    "-qs least_confidence --use_mc_dropout" \
    "-qs entropy --use_mc_dropout" \
    "-qs margin_sampling --use_mc_dropout --vote_type hard" \
    "-qs vote_entropy --use_mc_dropout" \
    "-qs bald --use_mc_dropout" \
    "-qs balent --use_mc_dropout" \
    -- --dataset_name cv \
    ${CAMVID_DIR:+--dir_dataset "$CAMVID_DIR"} \
    ${MOBILENET_WEIGHTS:+--weights "$MOBILENET_WEIGHTS"} "$@"
