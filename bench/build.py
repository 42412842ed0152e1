"""Compiles the C programs of bench/c into bench/bin, when they are missing or older than their source."""

import os
import subprocess
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE / "c"
BINARIES = HERE / "bin"
PROGRAMS = ("floor", "stub", "load")
CORE = HERE.parent / "fastmeta" / "_core.c"
CFLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wshadow")


class BuildError(Exception):
    """The compiler is missing or refused a program."""


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise BuildError(f"no C compiler: {error}") from error
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stderr}")


def compile_program(name: str, folder: Path, *extra: str) -> Path:
    """Compiles one program into folder. No -march=native: what is measured is what a package would hold."""
    folder.mkdir(parents=True, exist_ok=True)
    binary = folder / name
    # Into a file of its own first: no bench that starts meanwhile runs a half-written program.
    fresh = folder / f".{name}.{os.getpid()}"
    command = [os.environ.get("CC", "cc"), *CFLAGS, *extra, "-o", str(fresh), str(SOURCES / f"{name}.c")]
    _run(command)
    fresh.replace(binary)
    return binary


def compile_parser(folder: Path) -> Path:
    """Compiles c/parse.c around the core's own C, which building fastmeta has left there, with the flags that setup.py
    gives the extension: what is measured is the code that the loop runs."""
    if not CORE.exists():
        raise BuildError(f"{CORE} is not there: it is made when fastmeta is built (make setup)")
    folder.mkdir(parents=True, exist_ok=True)
    binary = folder / "parse"
    fresh = folder / f".parse.{os.getpid()}"
    libraries = sysconfig.get_config_var("LIBDIR")
    command = [
        os.environ.get("CC", "cc"),
        *("-std=gnu11", "-O2", "-fno-strict-aliasing", "-fstack-protector-strong", "-w"),
        *("-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-D_GNU_SOURCE"),
        "-DCYTHON_INLINE=__inline__ __attribute__((always_inline))",
        *(f"-I{CORE.parent}", f"-I{sysconfig.get_path('include')}", str(SOURCES / "parse.c")),
        *("-o", str(fresh), f"-L{libraries}", f"-Wl,-rpath,{libraries}"),
        *(f"-lpython{sysconfig.get_config_var('LDVERSION')}", "-lssl", "-lcrypto", "-ldl"),
    ]
    _run(command)
    fresh.replace(binary)
    return binary


def build() -> dict[str, Path]:
    """The binaries by name, compiled where needed."""
    header = (SOURCES / "common.h").stat().st_mtime
    binaries = {}
    for name in PROGRAMS:
        binary = BINARIES / name
        newest = max(header, (SOURCES / f"{name}.c").stat().st_mtime)
        if not binary.exists() or binary.stat().st_mtime < newest:
            compile_program(name, BINARIES)
        binaries[name] = binary
    return binaries
