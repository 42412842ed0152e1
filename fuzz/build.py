"""Builds the harness around the generated C of the core: with clang and libFuzzer, or with gcc to replay inputs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "fastmeta"
TARGETS = ("request", "response", "chunked", "conversation")
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
FLAGS = [
    "-std=gnu11",
    "-D_GNU_SOURCE",
    "-DCYTHON_INLINE=__inline__",
    "-g1",
    "-fno-omit-frame-pointer",
    "-fno-strict-aliasing",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-missing-field-initializers",
    "-Wno-unknown-pragmas",
]
# Python objects and their functions are in the generated file too; they are linked, and never run.
LIBRARIES = [
    f"-L{sysconfig.get_config_var('LIBDIR')}",
    f"-Wl,-rpath,{sysconfig.get_config_var('LIBDIR')}",
    f"-lpython{sysconfig.get_config_var('LDVERSION')}",
    "-lssl",
    "-lcrypto",
]


@dataclass(frozen=True)
class Defect:
    """A line of the core, and what stands there in a copy that the harness has to find fault with.

    PLANTED in it is 1 in a run for which this defect is chosen, else 0: so one copy holds all of them."""

    part: str
    right: str
    wrong: str


def sources() -> list[Path]:
    return [PACKAGE / "_core.pyx", *sorted((PACKAGE / "core").glob("*.pxi"))]


def generate(folder: Path, defects: Sequence[Defect] = ()) -> None:
    """Makes folder/_core.c of a copy of the core, with these defects; they count from 1."""
    copy = folder / "fastmeta"
    shutil.rmtree(copy, ignore_errors=True)
    (copy / "core").mkdir(parents=True)
    for path in sources():
        (copy / path.relative_to(PACKAGE)).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    shutil.copy(PACKAGE / "exceptions.py", copy)
    (copy / "__init__.py").touch()
    for number, defect in enumerate(defects, 1):
        part = copy / "core" / f"{defect.part}.pxi"
        text = part.read_text(encoding="utf-8")
        if text.count(defect.right) != 1:
            raise ValueError(f"{defect.part}.pxi has this {text.count(defect.right)} times: {defect.right!r}")
        wrong = defect.wrong.replace("PLANTED", f"(by_planted == {number})")
        part.write_text(text.replace(defect.right, wrong), encoding="utf-8")
    if defects:
        with (copy / "core" / "extern.pxi").open("a", encoding="utf-8") as file:
            file.write(
                'cdef extern from *:\n    """\n    static int by_planted;\n    """\n    int by_planted\n'
            )
    command = [sys.executable, "-m", "cython", "-3", "fastmeta/_core.pyx", "-o", "_core.c"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def compile_harness(folder: Path, source: str, program: Path, compiler: str, *flags: str) -> None:
    """Compiles fuzz/<source> around folder/_core.c."""
    include = [f"-I{folder}", f"-I{HERE}", f"-I{sysconfig.get_path('include')}"]
    command = [
        compiler,
        *FLAGS,
        *SANITIZERS,
        *flags,
        *include,
        str(HERE / source),
        "-o",
        str(program),
        *LIBRARIES,
    ]
    subprocess.run(command, check=True)


def replayer(folder: Path, defects: Sequence[Defect] = ()) -> Path:
    """A program that runs inputs, without clang: quick to build, slow to run."""
    generate(folder, defects)
    flags = ["-O0", "-DFUZZ_PLANTED"] if defects else ["-O0"]
    compile_harness(folder, "replay.c", folder / "replay", "gcc", *flags)
    return folder / "replay"


def fuzzer(folder: Path) -> Path:
    """The fuzzer, in a folder where it has the name of each target. Built anew only when something has changed."""
    program = folder / "fuzzer"
    newest = max(path.stat().st_mtime for path in (*sources(), *HERE.glob("*.[ch]"), HERE / "build.py"))
    if not program.exists() or program.stat().st_mtime < newest:
        folder.mkdir(parents=True, exist_ok=True)
        generate(folder)
        # Coverage of the core alone guides it; what Cython makes for Python is never run, and not worth the time.
        compile_harness(
            folder,
            "main.c",
            program,
            "clang",
            "-O1",
            "-fsanitize=fuzzer",
            f"-fsanitize-coverage-allowlist={HERE / 'functions.txt'}",
            f"-fsanitize-ignorelist={HERE / 'python.txt'}",
        )
    for target in TARGETS:
        link = folder / target
        link.unlink(missing_ok=True)
        link.symlink_to(program.name)
    return program
