# Sourced by the recipes, which set `root` to the repository. `study NAME ...` runs
# benchmarks/study.py; from the environment:
#
#   SEEDS       "0 1 2 3 4" if not set
#   PARALLEL    how many runs side by side (1); their output is then in files
#   STUDY       further flags of benchmarks/study.py: --list shows the commands and runs nothing
#   CAMVID_DIR, CITYSCAPES_DIR, VOC_DIR                    the data sets (README, "Data sets")
#   MOBILENET_WEIGHTS, RESNET50_WEIGHTS, MOCO_V2_WEIGHTS   files of weights; torchvision's, or MoCo's,
#                                                          are downloaded if not set
#
# Table, numbers and pictures go to checkpoints/studies/NAME. The same command continues what was
# interrupted and reuses runs of other recipes; do not run two recipes that share some at once.
. "$root/scripts/environment.sh"
install_requirements "$root/requirements.txt"

study() {  # name, flags of study.py, --, flags of train.py
    name=$1
    shift
    # shellcheck disable=SC2086
    "$PYTHON" "$root/benchmarks/study.py" --name "$name" --seeds ${SEEDS:-0 1 2 3 4} \
        --parallel "${PARALLEL:-1}" ${STUDY:-} "$@"
}
