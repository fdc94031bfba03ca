#!/bin/sh
# Three rounds of PixelPick on drawn street scenes, from random weights: 10, 20 and 30 labelled
# pixels per image. Nothing is downloaded but Python packages. VENV=DIR names another environment;
# arguments go to train.py.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/environment.sh"
install_requirements "$root/requirements.txt"
(cd "$root" && "$PYTHON" -m datasets.synthetic --output data/demo)
"$PYTHON" "$root/train.py" --dataset_name demo "$@"
