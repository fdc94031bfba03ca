#!/bin/sh
# Three rounds of PixelPick on drawn street scenes, from random weights: 10, 20 and 30 labelled
# pixels per image. Nothing is downloaded but Python packages. VENV=DIR names another environment.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh
install_requirements requirements.txt
"$PYTHON" -m datasets.synthetic --output data/demo
"$PYTHON" train.py --dataset_name demo "$@"
