"""User instructions of the loop's thread for each request, counted by callgrind. They are the same in each run to one
in a thousand, whatever the machine does meanwhile; another compiler or C library may move them."""

from __future__ import annotations

import pytest

from bench import instructions
from bench.instructions import Instructions
from bench.peers import Setting
from bench.report import CORE
from bench.scenarios import SCENARIOS

# What was counted, and 3 % more, but no more than docs/performance.md promises: lower it whenever something got
# cheaper.
LIMITS = {"keep-1": 5610, "close-1": 6000}
SHOWN = 25


@pytest.fixture(scope="module")
def counted(setting: Setting) -> dict[str, Instructions]:
    found = instructions.count("fastmeta", setting, [SCENARIOS[name] for name in LIMITS])
    return {one.scenario: one for one in found}


@pytest.mark.parametrize("name", LIMITS)
def test_a_request_takes_no_more_instructions(counted: dict[str, Instructions], name: str):
    one = counted[name]
    most = [f"{each:9,.1f} {function.removeprefix(CORE)}" for function, each in one.by_function.items()][
        :SHOWN
    ]
    # It is the loop that was counted.
    assert any(function.startswith(f"{CORE}gs_") for function in one.by_function), most
    assert one.busiest_thread <= LIMITS[name], "\n".join(
        [
            f"{name}: {one.busiest_thread:,.0f} instructions for each request, {LIMITS[name]:,} at most; by function:",
            *most,
        ]
    )
