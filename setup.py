"""Builds the one extension, fastmeta._core; everything else is in pyproject.toml.

Switches, all by environment variable:
  FASTMETA_SANITIZE=address,undefined   build with these sanitizers of the compiler
  FASTMETA_TRACE=1                      line tracing, for coverage of the .pyx and .pxi files
  FASTMETA_ANNOTATE=1                   write fastmeta/_core.html (cython -a)
  FASTMETA_WERROR=1                     compiler warnings are errors
"""

import glob
import os

from Cython.Build import cythonize
from setuptools import Extension, setup

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

setup(
    ext_modules=cythonize(
        [core],
        annotate=os.environ.get("FASTMETA_ANNOTATE") == "1",
        compiler_directives={"linetrace": trace},
    )
)
