"""Builds the one extension, fastmeta._core, and the programs of haproxy's stand-in; all else is in pyproject.toml.

Switches, all by environment variable:
  FASTMETA_SANITIZE=address,undefined   build with these sanitizers of the compiler
  FASTMETA_TRACE=1                      line tracing, for coverage of the .pyx and .pxi files
  FASTMETA_ANNOTATE=1                   write fastmeta/_core.html (cython -a)
  FASTMETA_WERROR=1                     compiler warnings are errors
"""

import glob
import os
import shlex
import subprocess
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

sanitize = os.environ.get("FASTMETA_SANITIZE", "")
trace = os.environ.get("FASTMETA_TRACE") == "1"

compile_args = [
    "-std=gnu11",
    "-fvisibility=hidden",
    "-fstack-protector-strong",
    "-fno-strict-aliasing",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wsign-compare",
    "-Wno-unused-parameter",
    "-Wno-missing-field-initializers",
]
link_args = []
macros: list[tuple[str, str | None]] = [
    ("_GNU_SOURCE", None),
    # What is marked inline is so for its callers' constants (lengths of literals); gcc at -O2 does not always see that.
    ("CYTHON_INLINE", "__inline__ __attribute__((always_inline))"),
]
if sanitize:
    compile_args += ["-O1", "-g3", "-fno-omit-frame-pointer", f"-fsanitize={sanitize}"]
    link_args += [f"-fsanitize={sanitize}"]
else:
    compile_args += ["-O2", "-g1", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
    link_args += ["-Wl,-z,relro,-z,now"]
if os.environ.get("FASTMETA_WERROR") == "1":
    compile_args.append("-Werror")
if trace:
    macros += [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]

core = Extension(
    "fastmeta._core",
    ["fastmeta/_core.pyx"],
    depends=glob.glob("fastmeta/core/*.pxi"),
    libraries=["ssl", "crypto"],
    define_macros=macros,
    extra_compile_args=compile_args,
    extra_link_args=link_args,
)

PROGRAMS = "fastmeta.stand_in.bin."
"""What begins so is a program and no module; its file is called as it is, without a suffix."""

PROGRAM_FLAGS = [
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
    "-Wsign-compare",
    "-D_GNU_SOURCE",
]
# The holder's own program has no C library (c/raw.h), and is to be as few pages as can be.
BARE = [
    *(
        "-ffreestanding",
        "-fno-stack-protector",
        "-fno-pie",
        "-fno-asynchronous-unwind-tables",
        "-nostdlib",
        "-static",
    ),
    *("-no-pie", "-Wl,--build-id=none", "-Wl,-z,noseparate-code", "-Wl,-z,norelro", "-s"),
]


def c_files(*names: str) -> list[str]:
    return [f"fastmeta/stand_in/c/{name}.c" for name in names]


stand_in = Extension(
    f"{PROGRAMS}haproxy",
    c_files("config", "hand_over", "hold", "holder", "listen", "main", "options", "real", "words"),
    extra_compile_args=["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"],
)
holder = Extension(f"{PROGRAMS}fastmeta-holder", c_files("hold", "holder_program"))


class BuildAll(build_ext):  # type: ignore[misc]
    """Extensions, and programs."""

    def get_ext_filename(self, fullname: str) -> str:
        # It is asked for the last part of a name, too.
        if fullname.startswith(PROGRAMS) or PROGRAMS + fullname in (stand_in.name, holder.name):
            return os.path.join(*fullname.split("."))
        return str(super().get_ext_filename(fullname))

    def copy_extensions_to_source(self) -> None:
        Path(*PROGRAMS.rstrip(".").split(".")).mkdir(exist_ok=True)
        super().copy_extensions_to_source()

    def build_extension(self, ext: Extension) -> None:
        if not ext.name.startswith(PROGRAMS):
            super().build_extension(ext)
            return
        path = Path(self.get_ext_fullpath(ext.name))
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = PROGRAM_FLAGS + ["-Werror"] * (os.environ.get("FASTMETA_WERROR") == "1")
        if ext is holder:
            # Elsewhere it has a C library, as the stand-in has.
            bare = os.uname().machine in ("x86_64", "aarch64")
            self.compile(path, [*flags, *(BARE if bare else ["-static"])], ext.sources)
            return
        try:
            # Static: nothing is to be looked up when it starts, nor shared with what the operator updates.
            self.compile(path, [*flags, *ext.extra_compile_args, "-static"], ext.sources)
        except subprocess.CalledProcessError:  # there is no static C library
            self.compile(path, [*flags, *ext.extra_compile_args], ext.sources)

    def compile(self, path: Path, flags: list[str], sources: list[str]) -> None:
        """Beside it first: one that runs may not be written to."""
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        subprocess.run([*compiler, *flags, "-o", str(fresh), *sources], check=True)
        fresh.replace(path)


setup(
    cmdclass={"build_ext": BuildAll},
    ext_modules=[
        *cythonize(
            [core],
            annotate=os.environ.get("FASTMETA_ANNOTATE") == "1",
            compiler_directives={"linetrace": trace},
        ),
        stand_in,
        holder,
    ],
)
