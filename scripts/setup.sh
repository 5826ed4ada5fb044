#!/usr/bin/env bash
# Fill .venv with exactly the packages of requirements/$PLATFORM.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
lock=requirements/$PLATFORM.txt

"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || {
    echo "Python 3.11 is needed, but '$PYTHON' is not Python 3.11. Name it: make PYTHON=/path/to/python3.11" >&2
    exit 1
}
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv

uv=$(grep '^uv==' "$lock" | cut -d' ' -f1)
.venv/bin/pip install --quiet "$uv"

# uv does not read pip's settings. If pip can find the CPU build of torch, it installs it, and uv keeps it; if not, the
# build comes from PyTorch's index.
torch=$(grep '^torch==' "$lock" | cut -d' ' -f1)
if [ "$PLATFORM" = cpu ]; then
    .venv/bin/pip install --quiet --no-deps "$torch" 2>/dev/null ||
        .venv/bin/pip install --quiet --no-deps --index-url https://download.pytorch.org/whl/cpu "$torch"
fi

.venv/bin/uv pip install --quiet --no-deps --compile-bytecode -r "$lock"
.venv/bin/uv pip install --quiet --no-deps --no-build-isolation -C editable_mode=compat -e .
