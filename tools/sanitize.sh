#!/usr/bin/env bash
# Usage: tools/sanitize.sh VENV
# The tests of the core under the compiler's sanitizers, in copies below build/sanitize:
#   address   AddressSanitizer and UndefinedBehaviorSanitizer: all of tests/core, tests/property and tests/threads, and TLS
#   thread    ThreadSanitizer: several loops, and Python that talks to them (tests/threads)
#   planted   the same with a data race put in: ThreadSanitizer has to find it
set -euo pipefail
cd "$(dirname "$0")/.."
python=$PWD/$1/bin/python
folder=$PWD/build/sanitize

# copy NAME: the package and its tests, without what was built.
copy() {
  rm -rf "${folder:?}/$1"
  mkdir -p "$folder/$1"
  tar -c --exclude=__pycache__ --exclude='*.so' --exclude=_core.c bench fastmeta fuzz tests setup.py pyproject.toml |
    tar -x -C "$folder/$1"
}

# compile NAME SANITIZERS
compile() {
  (cd "$folder/$1" && FASTMETA_SANITIZE=$2 "$python" setup.py -q build_ext --inplace >build.log 2>&1) ||
    { cat "$folder/$1/build.log" >&2; return 1; }
}

# run NAME LIBRARY TESTS...: the tests of that copy. The sanitizer's library must come before Python's own allocator, and
# Python must ask malloc for every object, or an access behind a short bytes object goes unseen. Reports go to files: pytest
# takes what is written to the standard streams, and loses it when the process ends at once.
run() {
  local name=$1 library=$2 status=0
  shift 2
  (cd "$folder/$name" && LD_PRELOAD=$(gcc -print-file-name="$library") PYTHONMALLOC=malloc PYTHONPATH=$PWD \
    ASAN_OPTIONS="detect_leaks=0 abort_on_error=1 log_path=$PWD/report" \
    UBSAN_OPTIONS="halt_on_error=1 print_stacktrace=1 log_path=$PWD/report" \
    TSAN_OPTIONS="exitcode=66 halt_on_error=1 log_path=$PWD/report" FASTMETA_SANITIZED=$name \
    "$python" -m pytest -q -p no:cacheprovider --durations=0 --durations-min=20 "$@") || status=$?
  cat "$folder/$name"/report.* 2>/dev/null || true
  return $status
}

copy address
compile address address,undefined
# That the guard pages kill is for the build without AddressSanitizer, which reports the signal in its own way.
run address libasan.so tests/core tests/property tests/threads tests/nova_side/test_tls.py \
  --deselect tests/core/test_guard_pages.py::test_the_guards_do_kill

copy thread
compile thread thread
run thread libtsan.so tests/threads

copy planted
ring=$folder/planted/fastmeta/core/ring.pxi
sed -i 's/at_store(&loop.events.written, loop.events.written + 1)/loop.events.written += 1/' "$ring"
if cmp -s "$ring" fastmeta/core/ring.pxi; then
  echo "sanitize: the line of ring.pxi that should have been changed is not there" >&2
  exit 1
fi
compile planted thread
if run planted libtsan.so tests/threads >"$folder/planted/run.log" 2>&1; then
  echo "sanitize: ThreadSanitizer did not find the data race that was put in" >&2
  exit 1
fi
if ! grep -q 'WARNING: ThreadSanitizer: data race' "$folder/planted/run.log"; then
  tail -50 "$folder/planted/run.log" >&2
  echo "sanitize: the core with a data race failed, but not for the race" >&2
  exit 1
fi
echo "sanitize: the data race that was put in was found"
