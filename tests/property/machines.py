"""What happens between a cloud, a source, a bus, guests, Nova and time, as rules of hypothesis; and what must hold.

Ports come, move and go, events are late, lost and in the wrong order, announcements begin and end, the source is
slow, wrong and away, Nova is slow, guests ask, or are asked for before they do, and time goes on. The resolver and the
core are the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from fastmeta.models import Change

from .clouds import ADDRESSES, FAILURES, NETWORKS, RED, SCOPES, Cloud, CloudSource, Event, Span
from .stage import Arrival, Asked, Stage

SHORT, LONG = 10.0, 60.0
SLACK = 0.5
"""Seconds that a head may be on its way from the core to Nova."""

KEYS = [(scope, address) for scope in SCOPES for address in ADDRESSES]
CHANGES = (
    "another port gets the address",
    "a port goes",
    "a port moves",
    "a port goes to another instance",
    "a router gets or loses a network",
)
addresses = st.sampled_from(ADDRESSES)
networks = st.sampled_from(NETWORKS)
seconds = st.sampled_from([0.1, 1.0, 5.0, 9.0, 30.0, 55.0])
fates = st.sampled_from(["told", "late", "lost", "lost"])


def one_change(*what: str, fate: st.SearchStrategy[str] | str = fates) -> st.SearchStrategy[list[Any]]:
    """One of these, somewhere."""
    fate = st.just(fate) if isinstance(fate, str) else fate
    return st.tuples(st.sampled_from(what), networks, addresses, fate).map(lambda change: [change])


EVERYTHING: dict[str, st.SearchStrategy[Any]] = {
    "announcing": st.booleans(),
    "known": st.sampled_from(["nothing", "what was", "all"]),
    "asked_by": st.sampled_from(["guests", "guests", "nobody", "both"]),
    "slow": st.booleans(),
    "changes": st.lists(
        st.tuples(st.sampled_from(CHANGES), networks, addresses, fates), min_size=1, max_size=2
    ),
    "between": st.lists(st.sampled_from(["announcements", "4 s", "7 s"]), max_size=2),
    "early": st.booleans(),
    "seconds": seconds,
    "held": st.booleans(),
}
"""What a danger is made of."""


def near(**some: Any) -> dict[str, st.SearchStrategy[Any]]:
    """A part of that: dangers of which all is so, and the rest as it comes. A value that is no strategy is the only
    one."""
    assert some.keys() <= EVERYTHING.keys()
    return EVERYTHING | {
        name: value if isinstance(value, st.SearchStrategy) else st.just(value)
        for name, value in some.items()
    }


class Violation(AssertionError):
    """A rule of identity safety was broken."""


class Dangerous(RuleBasedStateMachine):
    """Things change between a question and its answer, or between that and the next request. Each step ends with
    everything quiet. found: what was broken in any run."""

    found: ClassVar[list[str]] = []
    answers: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.cloud = Cloud(lambda: self.stage.clock())
        self.source = CloudSource(self.cloud)
        self.stage = Stage(
            SCOPES,
            self.source,
            self.arrived,
            self.answered,
            self.violated,
            identity_ttl=SHORT,
            identity_ttl_with_events=LONG,
            negative_ttl=2.0,
            lookup_timeout=8.0,
            park_timeout=8.0,
        )
        self.late: list[Event] = []
        self.announcing_since: float | None = None
        # Of each address the newest span under which anything reached Nova.
        self.newest: dict[tuple[int, str], int] = {}
        self.before: dict[tuple[int, str], int] = {}
        self.targets: dict[str, tuple[int, str]] = {}
        for network in NETWORKS:
            for address in ADDRESSES:
                self.cloud.create(network, address)

    def teardown(self) -> None:
        self.stage.end()

    # What must hold.

    def arrived(self, arrival: Arrival) -> None:
        """Nova was asked in the name of somebody."""
        key = self.targets[arrival.target]
        spans = self.cloud.spans[key]
        mine = [span for span in spans if span.instance == arrival.instance]
        if not any(self.may_go_out(span, arrival.at) for span in mine):
            self.violated(f"{arrival} for {key}, of whom is known: {spans}")
        self.newest[key] = max(self.newest.get(key, 0), max(map(spans.index, mine)))

    def may_go_out(self, span: Span, at: float) -> bool:
        if span.until is None:
            return True
        if span.told is not None and at > span.told:
            return False
        # The question was sent before it was over; if that was before changes were announced, for the short time.
        steady = self.announcing_since is not None and span.until >= self.announcing_since
        return at <= span.until + (LONG if steady else SHORT) + SLACK

    def answered(self, asked: Asked) -> None:
        """A guest got an answer. (503, when something was revoked that may not be asked twice, never comes: all is
        GET.)"""
        Dangerous.answers += 1
        assert asked.answer is not None
        if asked.answer.status != 200:
            return
        key = asked.scope, asked.address
        spans = self.cloud.spans[key]
        mine = [span for span in spans if span.instance == asked.instance]
        if not any(span.told is None for span in mine):
            self.violated(f"{asked} was answered after an event had said that it is over: {spans}")
        if max(map(spans.index, mine)) < self.before.get(key, 0):
            self.violated(f"{asked} was answered after the source had named another: {spans}")

    def violated(self, what: str) -> None:
        self.found.append(what)
        raise Violation(what)

    def step(self, action: Callable[[], object]) -> None:
        self.before = dict(self.newest)
        self.stage.run(action)

    # What happens.

    def happened(self, event: Event, fate: str) -> None:
        if fate == "told":
            self.tell(event)
        elif fate == "late":
            self.late.append(event)

    def tell(self, event: Event) -> None:
        self.step(lambda: self.stage.resolver.changed(event.change))
        for span in event.ends:
            span.told = self.stage.clock()

    def ask(self, keys: Iterable[tuple[int, str]], held: bool) -> None:
        def action() -> None:
            for scope, address in keys:
                asked = self.stage.ask(scope, address, held=held)
                self.targets[asked.target] = scope, address

        if len(self.stage.asked) < 12:
            self.step(action)

    @initialize(announcing=st.booleans(), known=st.booleans())
    def begins(self, announcing: bool, known: bool) -> None:
        if announcing:
            self.announcements()
        if known:
            self.ask(KEYS, held=False)

    def guests_ask(self, key: tuple[int, str] | None, slow: bool, held: bool) -> None:
        """One or all. slow: if it must be asked who they are, the source takes its time; held: Nova does."""
        self.source.holds = slow
        self.ask(KEYS if key is None else [key], held)

    def all_are_asked_for(self, slow: bool) -> None:
        """Before guests ask."""
        self.source.holds = slow

        def action() -> None:
            for scope in SCOPES:
                self.stage.resolver.prefetch(scope)

        self.step(action)

    def nova_answers(self) -> None:
        self.step(self.stage.release)

    def the_source_answers(self, early: bool) -> None:
        """What was so at the question, or what is so now."""
        self.source.failure = None
        self.step(lambda: self.source.release(early=early))

    def the_source_fails(self, failure: type[Exception]) -> None:
        self.source.failure = failure

    def something_changes(self, what: str, network: str, address: str, fate: str) -> None:
        other = ADDRESSES[1 - ADDRESSES.index(address)]
        cloud = self.cloud
        names = cloud.having(network, address)
        if what == "a router gets or loses a network":
            self.happened(cloud.attach(RED), fate)
        elif what == "a port goes to another instance":
            for name in names:
                self.happened(cloud.give(name), fate)
        elif what == "a port moves":
            for name in cloud.having(network, other):
                self.happened(cloud.delete(name), fate)
            for name in names:
                self.happened(cloud.move(name, other), fate)
        else:
            for name in names:
                self.happened(cloud.delete(name), fate)
            if what == "another port gets the address":
                self.happened(cloud.create(network, address), fate)

    def a_late_event_comes(self, which: int) -> None:
        """Not in order."""
        if self.late:
            self.tell(self.late.pop(which % len(self.late)))

    def announcements(self) -> None:
        """Begin, or can no longer be relied on."""
        announcing = self.announcing_since is None
        self.announcing_since = self.stage.clock() if announcing else None
        self.step(lambda: self.stage.resolver.announcing(announcing))

    def time_goes_on(self, seconds: float) -> None:
        self.before = dict(self.newest)
        self.stage.forward(seconds)

    def danger(
        self,
        announcing: bool,
        known: str,
        asked_by: str,
        slow: bool,
        changes: list[tuple[str, str, str, str]],
        between: list[str],
        early: bool,
        seconds: float,
        held: bool,
    ) -> None:
        """All of the above in an order in which it seldom comes by itself: things change between question and answer,
        or between the answer and the next request."""
        self.the_source_answers(early)
        self.nova_answers()
        if announcing is (self.announcing_since is None):
            self.announcements()
        if known != "what was":
            self.step(lambda: self.stage.resolver.changed(Change(everything=True)))
        if known == "all":
            self.guests_ask(None, slow=False, held=False)
        if asked_by != "guests":
            self.all_are_asked_for(slow)
        if asked_by != "nobody":
            self.guests_ask(None, slow, held)
        for what, network, address, fate in changes:
            self.something_changes(what, network, address, fate)
        for step in between:
            if step == "announcements":
                self.announcements()
            else:
                self.time_goes_on(float(step.split()[0]))
        self.the_source_answers(early)
        self.time_goes_on(seconds)
        self.guests_ask(None, slow=False, held=False)
        self.nova_answers()

    what_is_dangerous = rule(**EVERYTHING)(danger)


def only(dangers: dict[str, st.SearchStrategy[Any]]) -> type[Dangerous]:
    """A machine that knows only such dangers."""
    return type("Only", (Dangerous,), {"what_is_dangerous": rule(**dangers)(Dangerous.danger)})


class Anything(Dangerous):
    """All of that, and each thing by itself, in any order."""

    ask_ = rule(key=st.sampled_from([None, *KEYS]), slow=st.booleans(), held=st.booleans())(
        Dangerous.guests_ask
    )
    nova_answers_ = rule()(Dangerous.nova_answers)
    source_answers_ = rule(early=st.booleans())(Dangerous.the_source_answers)
    source_fails_ = rule(failure=st.sampled_from(FAILURES))(Dangerous.the_source_fails)
    changes_ = rule(what=st.sampled_from(CHANGES), network=networks, address=addresses, fate=fates)(
        Dangerous.something_changes
    )
    late_event_ = rule(which=st.integers(0, 7))(Dangerous.a_late_event_comes)
    announcements_ = rule()(Dangerous.announcements)
    time_ = rule(seconds=seconds)(Dangerous.time_goes_on)
    prefetch_ = rule(slow=st.booleans())(Dangerous.all_are_asked_for)
