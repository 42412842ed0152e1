"""No function of the request path can take the GIL.

Cython does not prevent it: a function that is `noexcept nogil` may hold a raise, or call one that may, and then takes
the GIL to print what it cannot propagate. So the C that Cython makes is read: in the functions of core/*.pxi, nothing
of Python's may occur."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.build.conftest import run

FEWEST_FUNCTIONS = 120

BODY = re.compile(r"^static [^;{}]*?\b(__pyx_f_\w+)\([^;{}]*\)\s*\{(.*?)^\}", re.S | re.M)
# All names of Python's C API and of Cython's helpers, and those of Cython's variables that only objects and tracebacks
# need. Allowed is a type that is no object.
PYTHONS = re.compile(
    r"\b(_?Py[A-Z_]\w*|__Pyx_\w+|__pyx_(?:lineno|clineno|filename|mstate\w*|builtin\w*|n_\w+|kp_\w+))"
)
HARMLESS = {"Py_ssize_t"}

# A function of a part: cdef, maybe inline, a type, the name.
DEFINITION = re.compile(r"^cdef (?:inline )?[\w *]*?\b([a-z][a-z0-9]_\w+)\(", re.M)


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def bodies(c: str, module: str) -> dict[str, str]:
    """Name in the source -> body, of all functions of this module whose name has a part's prefix."""
    mangled = re.compile(rf"__pyx_f_{module}_([a-z][a-z0-9]_\w+)\Z")
    found = {}
    for match in BODY.finditer(without_comments(c)):
        name = mangled.match(match[1])
        if name:
            found[name[1]] = match[2]
    return found


def offenders(c: str, module: str) -> dict[str, set[str]]:
    """Function -> what of Python's it uses, or which function it calls that is not one of these."""
    functions = bodies(c, module)
    found = {}
    for name, body in functions.items():
        used = {match[1] for match in PYTHONS.finditer(body)} - HARMLESS
        called = re.findall(rf"\b__pyx_f_{module}_(\w+)\(", body)
        used |= {callee for callee in called if callee not in functions}
        if used:
            found[name] = used
    return found


CORE = "8fastmeta_5_core"


def test_no_function_of_the_core_can_take_the_gil(generated_c: str) -> None:
    assert offenders(generated_c, CORE) == {}


def test_all_functions_of_the_parts_are_seen(generated_c: str, root: Path) -> None:
    """A change of how Cython mangles names must not make the audit one of nothing."""
    defined = set()
    for part in (root / "fastmeta" / "core").glob("*.pxi"):
        defined |= set(DEFINITION.findall(part.read_text(encoding="utf-8")))
    seen = set(bodies(generated_c, CORE))
    assert len(defined) >= FEWEST_FUNCTIONS
    assert defined <= seen


PROBE = """
# cython: language_level=3
from libc.string cimport memcpy

cdef int by_clean(const unsigned char *data, int n) noexcept nogil:
    cdef int i
    cdef int total = 0
    for i in range(n):
        total += data[i]
    return total

cdef int by_calls_clean(const unsigned char *data) noexcept nogil:
    return by_clean(data, 3) // 2 if data is not NULL else -1

cdef int by_raises(int n) noexcept nogil:
    if n < 0:
        raise ValueError
    return n

cdef int by_asserts(int n) noexcept nogil:
    assert n > 0
    return n

cdef ssize_t may_raise(int n) nogil:
    return -1 if n else 0

cdef void may_raise_too(int n) nogil:
    pass

cdef int by_checks(int n) noexcept nogil:
    return <int> may_raise(n)

cdef int by_checks_too(int n) noexcept nogil:
    may_raise_too(n)
    return 0

cdef int by_takes(int n) noexcept nogil:
    with gil:
        n += 1
    return n

cdef int by_holds_objects(int n) noexcept:
    return len(str(n))

cdef int outside(int n) noexcept nogil:
    return n

cdef int by_calls_outside(int n) noexcept nogil:
    return outside(n)

def use(bytes data):
    return (by_calls_clean(data), by_raises(1), by_asserts(1), by_checks(1), by_checks_too(1), by_takes(1),
            by_holds_objects(1), by_calls_outside(1))
"""


def test_the_audit_finds_offenders(tmp_path: Path) -> None:
    (tmp_path / "probe.pyx").write_text(PROBE)
    run(sys.executable, "-m", "cython", "-3", "-X", "cdivision=True", "probe.pyx", cwd=tmp_path)
    found = offenders((tmp_path / "probe.c").read_text(encoding="utf-8"), "5probe")
    assert set(found) == {
        "by_raises",
        "by_asserts",
        "by_checks",
        "by_checks_too",
        "by_takes",
        "by_holds_objects",
        "by_calls_outside",
    }
    assert found["by_calls_outside"] == {"outside"}


@pytest.mark.parametrize(
    "name", ["PyGILState_Ensure", "__Pyx_ErrOccurredWithGIL", "PyErr_Occurred", "Py_INCREF", "Py_XDECREF",
             "__Pyx_WriteUnraisable", "__Pyx_Raise", "__Pyx_PyObject_Call", "_PyLong_Sign", "__pyx_lineno"],
)  # fmt: skip
def test_names_of_python_are_known(name: str) -> None:
    c = f"static int __pyx_f_5probe_by_x(int n) {{\n  if (n) {{\n    {name}(n);\n  }}\n  return 0;\n}}\n"
    assert offenders(c, "5probe") == {"by_x": {name}}
