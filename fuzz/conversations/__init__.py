"""The conversations that fuzzing starts from, one operation a call, by theme."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.conversations import (
    another,
    bounds,
    departures,
    exchanges,
    faults,
    held,
    not_found,
    renewal,
    secrets,
    servers,
    streams,
    upstream,
)
from fuzz.operations import Conversation

THEMES = (
    exchanges.requests,
    exchanges.answers,
    exchanges.sources,
    exchanges.connecting,
    departures.departures,
    departures.bodies_that_end,
    departures.loop_ends,
    faults.faults,
    faults.descriptors,
    bounds.rates,
    bounds.rates_of_one_scope,
    bounds.bounds,
    bounds.crowds,
    streams.bodies,
    streams.slow_guests,
    upstream.kept_connections,
    upstream.silence,
    upstream.identities,
    servers.second_tries,
    servers.comings_and_goings,
    servers.warm,
    secrets.secrets,
    not_found.named,
    held.departures,
    held.answers,
    held.guests,
    renewal.renewals,
    renewal.shorter_times,
    another.another_instance,
)


def conversations() -> Iterator[tuple[str, Conversation]]:
    for theme in THEMES:
        yield from theme()
