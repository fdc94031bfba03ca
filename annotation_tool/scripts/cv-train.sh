#!/bin/sh
# The annotation window on CamVid's training images (CAMVID_DIR, or data/CamVid), or on the demo's
# drawn scenes where there is no CamVid. It needs Python with tkinter, numpy and Pillow; no torch.
#
#   CAMVID_DIR  the data set (README, "Data sets")
#   VENV        another place for the virtual environment
#
# Further arguments go to launch_gui.py, e.g. --n_imgs -1 or --path_query FILE. Without a query, 10
# random pixels of each image are asked, always the same ones for the same --seed.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
. "$root/scripts/environment.sh"
install_requirements "$root/annotation_tool/requirements.txt"
dataset=camvid
if [ ! -d "${CAMVID_DIR:-$root/data/CamVid}/train" ]; then
    dataset=demo
    echo "no CamVid at ${CAMVID_DIR:-$root/data/CamVid}: opening the demo's drawn scenes instead"
    (cd "$root" && "$PYTHON" -m datasets.synthetic --output data/demo)
fi
"$PYTHON" "$root/annotation_tool/launch_gui.py" --dataset_name "$dataset" "$@"
