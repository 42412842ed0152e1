#!/usr/bin/env bash
# Usage: tools/setup.sh VENV [bench | fuzz]
# Makes everything that is missing for building and running fastmeta: Debian packages (when root; else names them), the
# virtual environment VENV with the project in it (editable), the compiled core. With "bench" also the peers that the
# benchmarks compare with; with "fuzz" also the fuzzer's compiler. Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
what=${2:-}

packages=(python3-venv python3-dev gcc libc6-dev libssl-dev iproute2 iptables curl slowhttptest strace util-linux valgrind
  # Servers in Nova's place: tests/nova_side.
  apache2-bin nginx-light uwsgi-core uwsgi-plugin-python3
  # The message bus: tests/bus.
  rabbitmq-server
  # An operator's tools, which are run over our units and log files: tests/operator.
  systemd python3-systemd logrotate)
[ "$what" = fuzz ] && packages=(clang llvm libclang-rt-dev python3-dev libc6-dev libssl-dev)
[ "$what" = bench ] && packages=(gcc libc6-dev haproxy nginx-light strace valgrind)

missing=()
for package in "${packages[@]}"; do
  # "nginx-light" is satisfied by any nginx: what counts is the program.
  if [ "$package" = nginx-light ] && [ -x /usr/sbin/nginx ]; then continue; fi
  if command -v dpkg-query >/dev/null; then
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  fi
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null || true
    # A benchmark peer must not start as a service of this machine.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
      printf '#!/bin/sh\nexit 101\n' > $policy && chmod 0755 $policy
      trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "setup: these Debian packages are missing; as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
fi
[ -n "$what" ] && exit 0

# An interpreter that other users can run too comes before one in somebody's home.
interpreter=
for candidate in /usr/bin/python3 /usr/local/bin/python3 "$(command -v python3 || true)"; do
  if [ -x "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    interpreter=$candidate
    break
  fi
done
if [ -z "$interpreter" ]; then
  echo "setup: no Python of version 3.10 or later found" >&2
  exit 1
fi
if [ ! -x "$venv/bin/pip" ]; then
  echo "setup: virtual environment $venv of $interpreter"
  "$interpreter" -m venv "$venv"
fi
echo "setup: Python packages, and the core (compiled)"
"$venv/bin/pip" install -q --disable-pip-version-check "setuptools>=77" "Cython>=3.2,<3.4" wheel
"$venv/bin/pip" install -q --disable-pip-version-check --no-build-isolation -e '.[rpc,test,bench,lint,build]'
