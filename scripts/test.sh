#!/bin/sh
# The test suite; arguments go to pytest. VENV=DIR names another environment. Tests on real data run
# where CAMVID_DIR and MOBILENET_WEIGHTS are set, and are skipped elsewhere.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh
install_requirements requirements.txt requirements-dev.txt
"$PYTHON" -m ruff check .
"$PYTHON" -m pytest "$@"
