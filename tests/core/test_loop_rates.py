"""Rate limits of [metadata_rate_limiting]: Neutron's meaning, for each address of each scope.

The windows of Neutron's own tests (tests/functional/agent/test_metadata_proxy.py) are kept, at a tenth of their
lengths.
"""

import threading
import time

import pytest

from fastmeta import _core

from .loop_kit import Rig, packed, until

LONG = 600_000


def limits(base: tuple[int, int], burst: tuple[int, int] | None = None, versions: int = 1) -> dict[str, int]:
    """Settings; each window is (limit, milliseconds). Without a burst window only the base one counts."""
    limit, window = base
    burst_limit, burst_window = burst or (1_000_000, window)
    return {
        "rate_versions": versions,
        "base_limit": limit,
        "base_window_ms": window,
        "burst_limit": burst_limit,
        "burst_window_ms": burst_window,
    }


def statuses(rig: Rig, number: int, address: str = "127.0.0.1") -> list[int]:
    """Of so many requests, each on a connection of its own."""
    return [rig.ask(address=address).status for _ in range(number)]


def passes(seconds: float) -> None:
    threading.Event().wait(seconds)


def test_base_limit(make_rig):
    """Of 2 the third gets 429, and so do those that follow; nothing of it reaches Nova."""
    rig = make_rig(settings=limits((2, LONG)))
    assert statuses(rig, 4) == [200, 200, 429, 429]
    assert len(rig.upstream.requests) == 2
    rig.wait_stat("status_429", 2)  # counted when the answer is with the guest's kernel
    assert rig.loop.stats(1)["refused_rate"] == 2
    (problem,) = until(
        lambda: [event for event in rig.events if event[:2] == (3, _core.PROBLEM_RATE_LIMITED)]
    )
    assert problem[3] == 1
    assert problem[5] == packed("127.0.0.1")


def test_burst_limit_under_a_larger_base_limit(make_rig):
    """2 in 0.5 s, 10 in 6 s: 2 pass; two windows later 2 pass again, and the next gets 429."""
    rig = make_rig(settings=limits((10, 6000), (2, 500)))
    assert statuses(rig, 2) == [200, 200]
    passes(1.01)
    assert statuses(rig, 3) == [200, 200, 429]


def test_base_limit_over_a_burst_limit(make_rig):
    """3 in 60 s, 2 in 0.5 s: 2 pass; two windows later one passes, and the next gets 429."""
    rig = make_rig(settings=limits((3, 60_000), (2, 500)))
    assert statuses(rig, 2) == [200, 200]
    passes(1.01)
    assert statuses(rig, 2) == [200, 429]


def test_denied_requests_count(make_rig):
    """Who goes on asking stays limited, window after window; who waits two of them does not."""
    rig = make_rig(settings=limits((4, 300)))
    guest = rig.guest()
    end = time.monotonic() + 1.0
    found = []
    while time.monotonic() < end:
        guest.get()
        found.append(guest.answer().status)
        passes(0.02)
    assert found[:5] == [200, 200, 200, 200, 429]
    assert set(found[5:]) == {429}
    passes(0.61)
    guest.get()
    assert guest.answer().status == 200


def test_the_answer(make_rig):
    """429 says when to come again, and the connection stays: RFC 6585 section 4."""
    rig = make_rig(settings=limits((2, 5000)))
    guest = rig.guest()
    for _ in range(2):
        guest.get()
        assert guest.answer().status == 200
    guest.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
    found = guest.answer()
    assert found.status == 429
    assert found.body == b"Too many requests from this address.\n"
    assert 1 <= int(found.all("Retry-After")[0]) <= 11
    assert not found.all("Connection")
    guest.get("/", method="HEAD")
    assert guest.answer("HEAD").status == 429
    # A body that has not come yet is not waited for.
    guest.get("/", "Content-Length: 5", "Expect: 100-continue", method="POST")
    found = guest.answer()
    assert (found.status, found.all("Connection")) == (429, ["close"])
    assert guest.ended() == "closed"


@pytest.mark.parametrize(("limit", "window_ms"), [(1, 1000), (5, 1000), (20, 1500)])
def test_retry_after_is_long_enough(make_rig, limit, window_ms):
    """Who waits for as long as it is told gets an answer."""
    rig = make_rig(settings=limits((limit, window_ms)))
    assert statuses(rig, limit) == [200] * limit
    denied = rig.ask()
    assert denied.status == 429
    passes(int(denied.all("Retry-After")[0]))
    assert rig.ask().status == 200


def test_each_address_of_each_scope_by_itself(make_rig):
    """Another address, and the same one in another network, have limits of their own."""
    rig = make_rig(settings=limits((1, LONG)))
    rig.add_listener(2, 2)
    assert statuses(rig, 2) == [200, 429]
    assert statuses(rig, 2, "127.0.0.2") == [200, 429]
    guest = rig.guest("127.0.0.1", 2)
    for status in (200, 429):
        guest.get()
        assert guest.answer().status == status
    assert [rig.loop.stats(scope)["refused_rate"] for scope in (1, 2)] == [2, 1]


@pytest.mark.parametrize(
    ("versions", "found4", "found6"),
    [
        (0, [200, 200], [200, 200]),
        (1, [200, 429], [200, 200]),
        (2, [200, 200], [200, 429]),
        (3, [200, 429], [200, 429]),
    ],
)
def test_versions(make_rig, versions, found4, found6):
    """0, or 4, 6, 4 and 6; an IPv4 guest of a listener for both is an IPv4 guest."""
    rig = make_rig(settings=limits((1, LONG), versions=versions))
    rig.add_listener(2, 1, "::")
    rig.listeners[3] = ("127.0.0.1", rig.listeners[2][1])
    for address, listener, found in (("127.0.0.1", 1, found4), ("127.0.0.9", 3, found4), ("::1", 2, found6)):
        guest = rig.guest(address, listener)
        for status in found:
            guest.get()
            assert guest.answer().status == status


def test_a_full_table_forgets_the_oldest(make_rig):
    """10,000 addresses without a connection are remembered for each scope; then the oldest may ask anew."""
    rig = make_rig(settings=limits((1, LONG)))
    rig.add_listener(2, 2)
    rig.put("127.0.0.1")
    rig.put("127.0.0.2")
    assert statuses(rig, 2, "127.0.0.1") == [200, 429]
    assert statuses(rig, 1, "127.0.0.2") == [200]

    def asks(number: int) -> None:
        guest = rig.guest(f"127.1.{number >> 8}.{number & 255}")
        rig.guests.pop()
        guest.send(b"\r\n \r\n")
        assert guest.answer().status == 400
        guest.close()

    for number in range(9_999):
        asks(number)
    rig.wait_stat("connections_open", 0)
    rig.wait_stat("sources", 10_000)
    assert statuses(rig, 1, "127.0.0.2") == [429]
    assert statuses(rig, 1, "127.0.0.1") == [200]
    rig.wait_stat("sources", 10_000)


def test_an_address_is_forgotten_in_time(make_rig):
    """When nothing of its rate reaches into the present any more."""
    rig = make_rig(settings=limits((5, 100)))
    for number in range(2, 12):
        assert rig.ask(address=f"127.0.0.{number}").status == 200
    rig.wait_stat("sources", 0)


def test_without_limits_nobody_is_remembered(rig):
    """An address is known as long as it has a connection."""
    guest = rig.guest()
    guest.get()
    assert guest.answer().status == 200
    assert rig.stat("sources") == 1
    guest.close()
    rig.wait_stat("sources", 0)


@pytest.mark.parametrize(
    "settings", [{}, limits((1, LONG), versions=3)], ids=["no limits", "stricter limits"]
)
def test_limits_of_one_scope(make_rig, settings):
    """They hold there whatever the settings say, also after a change of these, and nowhere else."""
    rig = make_rig(settings=settings)
    rig.add_listener(2, 2)
    rig.loop.set_rates(1, limits((2, LONG)))
    assert statuses(rig, 4) == [200, 200, 429, 429]
    guest = rig.guest("127.0.0.1", 2)
    found = []
    for _ in range(3):
        guest.get()
        found.append(guest.answer().status)
    assert found == ([200, 429, 429] if settings else [200] * 3)
    rig.loop.set_settings()
    assert statuses(rig, 1) == [429]
    assert statuses(rig, 3, "127.0.0.3") == [200, 200, 429]
    # Others take their place; a scope that there is not has none.
    rig.loop.set_rates(1, limits((5, LONG)))
    rig.loop.set_rates(77, limits((5, LONG)))
    assert statuses(rig, 3, "127.0.0.4") == [200] * 3


def test_limits_of_one_scope_that_cannot_be(make_rig):
    rig = make_rig()
    with pytest.raises(ValueError):
        rig.loop.set_rates(1, {"base_window_ms": 0})
    with pytest.raises(ValueError):
        rig.loop.set_rates(1, {"nonsense": 1})
    assert statuses(rig, 1) == [200]
