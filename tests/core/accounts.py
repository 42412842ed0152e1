"""The books of a loop that has ended: what must add up, whatever was done to it."""

from collections.abc import Collection, Mapping

from fastmeta import _core

GAUGES = ("parked", "connections_open", "gathered")
LOOP_GAUGES = ("upstream_connections", "upstream_idle", "sources", "identities")


def check_accounts(loop: _core.Loop, scopes: Collection[int], *, all_of_them: bool) -> None:
    """Of a loop that has ended: nothing is held any more, and every request became one thing. all_of_them: these scopes
    are all that it ever had, so their numbers make the loop's."""
    stats = loop.stats()
    gauges = (*GAUGES, *LOOP_GAUGES)
    assert {name: stats[name] for name in gauges} == dict.fromkeys(gauges, 0)
    check_sums(stats, loop.histograms())
    of_scopes = [loop.stats(scope) for scope in scopes]
    for scope in scopes:
        check_sums(loop.stats(scope), loop.histograms(scope))
    for name in of_scopes[0] if of_scopes else ():
        total = sum(one[name] for one in of_scopes)
        assert (total == stats[name]) if all_of_them else (total <= stats[name]), name


def check_sums(stats: Mapping[str, int], histograms: Mapping[str, tuple[int, ...]]) -> None:
    """Of a loop or scope in which no request is in progress."""
    answers = sum(stats[f"answers_{kind}xx"] for kind in range(2, 6))
    refused = sum(stats[f"refused_{reason}"] for reason in _core.REFUSALS)
    ended = sum(stats[f"ended_{how}"] for how in _core.ENDS)
    assert stats["requests"] == answers + stats["aborted"], stats
    assert stats["connections"] == stats["connections_open"] + ended, stats
    assert stats["refused"] == refused <= stats["requests"], stats
    assert sum(histograms["total"]) == answers, (stats, histograms)
    assert sum(histograms["parked"]) <= min(answers, stats["parked_total"]), (stats, histograms)
    assert sum(histograms["upstream"]) <= min(answers, stats["identity_hits"]), (stats, histograms)
