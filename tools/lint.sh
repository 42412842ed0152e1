#!/usr/bin/env bash
# Usage: tools/lint.sh VENV: every static check; the first that fails ends it.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1/bin
# cython-lint calls pycodestyle by name.
PATH="$PWD/$bin:$PATH"
set -x
ruff check .
ruff format --check .
cython-lint fastmeta/_core.pyx fastmeta/core/*.pxi
mypy
python -m mypy.stubtest fastmeta._core --allowlist tests/build/stubtest-allow.txt
python tools/config_reference.py --check
python tools/compatibility.py --check
