#!/bin/sh
# The test suite; arguments go to pytest. VENV=DIR names another environment. Tests on real data run
# where CAMVID_DIR and MOBILENET_WEIGHTS are set, and are skipped elsewhere.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/environment.sh"
install_requirements "$root/requirements.txt" "$root/requirements-dev.txt"
cd "$root"
"$PYTHON" -m ruff check .
"$PYTHON" -m pytest "$@"
