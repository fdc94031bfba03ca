# Sourced by the other scripts: makes the virtual environment (VENV, default .venv) if it is
# missing, installs the named requirement files when they have changed, and sets PYTHON.
# It needs Python 3.10 or newer with venv, and pip's package index; no root.

VENV=${VENV:-.venv}
if [ -x "$VENV/bin/python" ]; then
    PYTHON=$VENV/bin/python
else
    PYTHON=${PYTHON:-python3}
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "error: $PYTHON is missing or older than Python 3.10; name another: PYTHON=python3.12" >&2
        exit 2
    }
    echo "making the virtual environment $VENV"
    "$PYTHON" -m venv "$VENV" || {
        echo "error: $PYTHON -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2
        exit 2
    }
    PYTHON=$VENV/bin/python
fi

install_requirements() {  # file ...
    stamp=$VENV/installed-$(cat "$@" | cksum | tr ' ' '-')
    [ -e "$stamp" ] && return
    echo "installing $* (torch is large; this can take some minutes the first time)"
    for file in "$@"; do
        "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$file" || exit 2
    done
    : > "$stamp"
}
