from __future__ import annotations

from fastmeta.repeats import MAX_KEYS, Repeats, more


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_says_a_thing_once_in_a_period_and_counts_the_rest() -> None:
    clock = Clock()
    repeats = Repeats(10.0, clock)
    assert [repeats.admit("a") for _ in range(4)] == [0, None, None, None]
    assert repeats.admit("b") == 0
    clock.now += 10
    assert repeats.admit("a") == 3
    assert repeats.admit("a") is None


def test_what_is_over_is_news_when_it_comes_again() -> None:
    repeats = Repeats(10.0, Clock())
    assert not repeats.forget("a")
    repeats.admit("a")
    assert repeats.forget("a")
    assert repeats.admit("a") == 0


def test_remembers_a_bounded_number_of_things() -> None:
    repeats = Repeats(10.0, Clock())
    for key in range(MAX_KEYS + 1):
        repeats.admit(key)
    assert repeats.admit(MAX_KEYS) is None
    assert repeats.admit(0) == 0


def test_more() -> None:
    assert more(0) == ""
    assert "3 times" in more(3)
