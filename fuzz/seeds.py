"""Writes the inputs that fuzzing starts from: python -m fuzz.seeds FOLDER makes FOLDER/<target>/<name>.

The heads and chunked messages are those of tests/vectors, cut in several ways. The conversations are written below, one
operation a call; their numbers come from the C enums, so an operation that is renamed there is an error here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.vectors import cases, load, to_bytes

HERE = Path(__file__).parent
SETTING_BYTES = 40
AMOUNT_CODES = 200  # codes below are amounts themselves
WHOLE, EVERY_BYTE = 0, 13  # how a head is cut: read_cuts in heads.h


def enumeration(header: str, name: str) -> dict[str, int]:
    """The names of a C enum, without their common prefix, in lower case."""
    text = (HERE / header).read_text(encoding="utf-8")
    (body,) = re.findall(rf"\benum {name} {{(.*?)}}", text, re.DOTALL)
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)
    names = [part.strip() for part in body.split(",") if part.strip()]
    return {each.partition("_")[2].lower() or each.lower(): number for number, each in enumerate(names)}


def amounts() -> dict[int, int]:
    """Code by amount: next_amount in common.h."""
    text = (HERE / "common.h").read_text(encoding="utf-8")
    (body,) = re.findall(r"sizes\[\] = {(.*?)}", text, re.DOTALL)
    found = {amount: amount for amount in range(AMOUNT_CODES)}
    for code, amount in enumerate(re.findall(r"\d+", body), AMOUNT_CODES):
        found.setdefault(int(amount), code)
    return found


def amount(number: int) -> int:
    """The code of the amount that is nearest to this one."""
    return AMOUNTS[min(AMOUNTS, key=lambda known: abs(known - number))]


def times() -> dict[int, int]:
    """Code by milliseconds: next_time_ms in script.h."""
    text = (HERE / "script.h").read_text(encoding="utf-8")
    (body,) = re.findall(r"times\[\] = {(.*?)}", text, re.DOTALL)
    return {int(ms): code for code, ms in reversed(list(enumerate(re.findall(r"\d+", body))))}


def setting_codes() -> dict[str, tuple[int, list[int]]]:
    """Place and values by name: settings in conversation.h."""
    text = (HERE / "conversation.h").read_text(encoding="utf-8")
    found = re.findall(r"^    SETTING\((\w+), ([\d, ]+)\),$", text, re.MULTILINE)
    return {
        name: (place, [int(value) for value in values.split(",")])
        for place, (name, values) in enumerate(found)
    }


OPERATIONS = enumeration("script.h", "operation")
ASKS = enumeration("requests.h", "ask")
ANSWERS = enumeration("requests.h", "answer")
POLICIES = enumeration("python.h", "policy")
CALLS = enumeration("kernel.h", "call")
AMOUNTS = amounts()
TIMES = times()
SETTINGS = setting_codes()
UNBOUNDED = 200_000  # as a window: the far end reads at once
TO_TIMER = 128
FIN, RESET, CLOSE = 0, 1, 2


class Conversation:
    """An input of the target conversation. Every method is one operation; guests, servers (connections to Nova) and
    listeners are counted among those that are open."""

    def __init__(
        self,
        *,
        access_log: bool = False,
        quiet: bool = True,
        settles: bool = True,
        opens: bool = True,
        connecting: int = 0,
        answers: bool = True,
        drain: bool = False,
        early: bool = False,
        start_fault: int = 0,
        answer: str = "length",
        length: int = 100,
        policy: str = "known",
        other_policy: str = "known",
        **settings: int,
    ) -> None:
        head = bytearray(SETTING_BYTES)
        head[0] = access_log | (not quiet) << 1 | (not settles) << 2 | (not opens) << 3 | connecting << 5
        head[1] = (not answers) | drain << 1 | early << 2
        head[3:7] = bytes(
            [start_fault, ANSWERS[answer], amount(length), POLICIES[policy] | POLICIES[other_policy] << 4]
        )
        for name, value in settings.items():
            place, values = SETTINGS[name]
            head[7 + place] = values.index(value)
        self.data = head

    def put(self, operation: str, *parameters: int) -> Conversation:
        self.data += bytes([OPERATIONS[operation], *parameters])
        return self

    def turn(self, times: int = 1, rotation: int = 0) -> Conversation:
        for _ in range(times):
            self.put("turn", rotation)
        return self

    def connect(self, listener: int = 0, address: int = 0) -> Conversation:
        return self.put("connect", listener, address)

    def ask(self, ask: str = "get", number: int = 0, guest: int = 0) -> Conversation:
        return self.put("ask", guest, ASKS[ask], amount(number))

    def queue(self, ask: str = "get", number: int = 0, guest: int = 0) -> Conversation:
        return self.put("queue", guest, ASKS[ask], amount(number))

    def deliver(self, number: int, guest: int = 0) -> Conversation:
        return self.put("deliver", guest, amount(number))

    def body(self, number: int, guest: int = 0) -> Conversation:
        return self.put("body", guest, amount(number))

    def raw(self, data: bytes, guest: int = 0) -> Conversation:
        self.put("raw", guest, len(data))
        self.data += data
        return self

    def guest_ends(self, how: int = FIN, guest: int = 0) -> Conversation:
        return self.put("guest_ends", guest, how)

    def guest_reads(self, number: int, guest: int = 0) -> Conversation:
        return self.put("guest_reads", guest, amount(number))

    def guest_window(self, number: int, guest: int = 0) -> Conversation:
        return self.put("guest_window", guest, amount(number))

    def answer(self, answer: str = "length", number: int = 50, server: int = 0) -> Conversation:
        return self.put("answer", server, ANSWERS[answer], amount(number))

    def answer_queue(self, answer: str = "length", number: int = 50, server: int = 0) -> Conversation:
        return self.put("answer_queue", server, ANSWERS[answer], amount(number))

    def server_delivers(self, number: int, server: int = 0) -> Conversation:
        return self.put("server_delivers", server, amount(number))

    def server_raw(self, data: bytes, server: int = 0) -> Conversation:
        self.put("server_raw", server, len(data))
        self.data += data
        return self

    def server_ends(self, how: int = FIN, server: int = 0) -> Conversation:
        return self.put("server_ends", server, how)

    def server_reads(self, number: int, server: int = 0) -> Conversation:
        return self.put("server_reads", server, amount(number))

    def server_window(self, number: int, server: int = 0) -> Conversation:
        return self.put("server_window", server, amount(number))

    def connected(self, how: int = 0, server: int = 0) -> Conversation:
        return self.put("connected", server, how)

    def nova(
        self, connecting: int = 0, answers: bool = True, answer: str = "length", number: int = 50
    ) -> Conversation:
        return self.put("nova", connecting | (not answers) << 3, ANSWERS[answer], amount(number))

    def policy(self, key: int, policy: str) -> Conversation:
        return self.put("policy", key, POLICIES[policy])

    def identity(self, key: int = 0, policy: str = "known") -> Conversation:
        return self.put("put", key, POLICIES[policy])

    def late(self, question: int = 0, policy: str = "known") -> Conversation:
        return self.put("late", question, POLICIES[policy])

    def revoke(self, key: int = 0) -> Conversation:
        return self.put("revoke", key)

    def add_listener(self, scope: int = 0) -> Conversation:
        return self.put("add_listener", scope)

    def remove_listener(self, listener: int = 0, drain: bool = False) -> Conversation:
        return self.put("remove_listener", listener, drain)

    def scope(self, scope: int, add: bool) -> Conversation:
        return self.put("scope", scope, add)

    def upstream(self, n: int = 1, ipv6: bool = False) -> Conversation:
        return self.put("upstream", n - 1 | ipv6 << 4)

    def stop(self, ms: int = 0) -> Conversation:
        return self.put("stop", TIMES[ms])

    def events(self, reads: bool) -> Conversation:
        return self.put("events", reads)

    def time(self, ms: int) -> Conversation:
        return self.put("time", TIMES[ms])

    def to_timer(self) -> Conversation:
        return self.put("time", TO_TIMER)

    def fault(self, call: str, skip: int = 0, times: int = 1, error: int = 0) -> Conversation:
        return self.put("fault", CALLS[call], skip, times - 1, error)

    def interrupt(self, calls: int = 0) -> Conversation:
        return self.put("interrupt", calls)

    def crowd(self, listener: int = 0, n: int = 10) -> Conversation:
        return self.put("crowd", listener, n)

    def limits(self, descriptors: int = 0, one_send: int = 0) -> Conversation:
        return self.put("limits", descriptors, one_send)


def heads(kind: str) -> Iterator[tuple[str, bytes]]:
    """The vectors, each as a whole and byte by byte."""
    for number, case in enumerate(cases(kind, "accept") + cases(kind, "refuse")):
        options = bytes([1 if case.get("to_head") else 6 if kind == "responses" else 0])
        data = to_bytes(case["head"])
        yield f"{number:03}-whole", options + bytes([WHOLE]) + data
        yield f"{number:03}-bytes", options + bytes([EVERY_BYTE]) + data


def chunked_messages() -> Iterator[tuple[str, bytes]]:
    found = load("chunked")
    for number, case in enumerate(found["accept"] + found["refuse"]):
        yield f"{number:03}-whole", bytes([WHOLE]) + to_bytes(case["coded"])
        yield f"{number:03}-pieces", bytes([2, 1, 3]) + to_bytes(case["coded"])


def conversations() -> Iterator[tuple[str, Conversation]]:
    new = Conversation
    yield "nothing", new()
    for name in ASKS:
        if name == "asks":
            continue
        yield f"ask-{name}", new(access_log=True).connect().ask(name, 30).turn(6).ask("get").turn(6)
        yield (
            f"ask-{name}-piecewise",
            new()
            .connect()
            .turn()
            .queue(name, 30)
            .deliver(5)
            .turn(3)
            .deliver(30)
            .turn(3)
            .deliver(100)
            .turn(3),
        )
        yield f"ask-{name}-large", new().connect().ask(name, 5000).turn(8).ask("get_close").turn(6)
    for name in ANSWERS:
        if name == "answers":
            continue
        start = new(answers=False).connect().ask("get").turn(5)
        yield f"answer-{name}", start.answer(name, 30).turn(3).ask("get").turn(3).answer("length").turn(3)
        yield (
            f"answer-{name}-piecewise",
            new(answers=False)
            .connect()
            .ask("get")
            .turn(5)
            .answer_queue(name, 200)
            .server_delivers(10)
            .turn()
            .server_delivers(100)
            .turn()
            .server_delivers(199)
            .turn()
            .ask("head")
            .turn(3)
            .answer(name, 30)
            .turn(3),
        )
        yield (
            f"answer-{name}-large-slow-guest",
            new(answers=False)
            .connect()
            .guest_window(1000)
            .ask("get_10")
            .turn(5)
            .answer(name, 150_000)
            .turn(3)
            .guest_reads(1000)
            .turn(2)
            .guest_window(UNBOUNDED)
            .turn(9),
        )
        yield (
            f"answer-{name}-11",
            new(answer=name, length=70_000)
            .connect()
            .ask("get")
            .turn(5)
            .connect(1)
            .ask("get", guest=1)
            .turn(9),
        )
    for name in POLICIES:
        if name == "policies":
            continue
        yield (
            f"policy-{name}",
            new(policy=name)
            .connect()
            .ask("get")
            .turn(4)
            .late(0)
            .turn(3)
            .connect(1)
            .ask("get", guest=1)
            .turn(4)
            .time(1000)
            .turn(2)
            .connect()
            .ask("get", guest=2)
            .turn(3)
            .late(0, "absent")
            .time(10_000)
            .turn(3),
        )
    yield (
        "late-answer-after-revocation",
        new(policy="late").connect().ask("get").turn(3).revoke(0).turn(2).late(0).turn(3).late(0).turn(4),
    )
    for how in range(8):
        yield (
            f"nova-connects-{how}",
            new(connecting=how)
            .connect()
            .ask("get")
            .turn(4)
            .connected(0)
            .turn(3)
            .time(100)
            .turn(2)
            .connect(1)
            .ask("post", 10, guest=1)
            .turn(4)
            .time(3000)
            .turn(4)
            .nova()
            .to_timer()
            .turn(6),
        )
        yield (
            f"nova-connects-{how}-away-then-back",
            new(connecting=how, max_upstream_connections=2)
            .crowd(0, 6)
            .turn(6)
            .connected(1)
            .turn(2)
            .connected(2)
            .turn(2)
            .to_timer()
            .turn(2)
            .to_timer()
            .turn(2)
            .upstream(3)
            .turn(2)
            .nova(0)
            .to_timer()
            .turn(9),
        )
    for how in (FIN, RESET, CLOSE):
        for turns in range(1, 7):
            yield (
                f"guest-goes-{how}-after-{turns}",
                new(answers=False).connect().ask("post", 500).turn(turns).guest_ends(how).turn(3),
            )
            yield (
                f"nova-goes-{how}-after-{turns}",
                new(answers=False)
                .connect()
                .ask("get")
                .connect(1)
                .ask("put_nothing", guest=1)
                .turn(turns)
                .server_ends(how)
                .server_ends(how, server=1)
                .turn(3)
                .time(300)
                .turn(4)
                .answer()
                .turn(3),
            )
            yield (
                f"revoked-after-{turns}",
                new(answers=False)
                .connect()
                .ask("get")
                .connect()
                .ask("post", 40, guest=1)
                .turn(turns)
                .revoke(0)
                .turn(4)
                .answer()
                .answer(server=1)
                .turn(4),
            )
            yield (
                f"all-revoked-after-{turns}",
                new(answers=False)
                .connect()
                .ask("get")
                .connect(1)
                .ask("head", guest=1)
                .turn(turns)
                .revoke(10)
                .revoke(11)
                .turn(4)
                .answer()
                .answer(server=1)
                .turn(4),
            )
            yield (
                f"listener-ends-{how}-after-{turns}",
                new(answers=False)
                .connect()
                .ask("get")
                .connect()
                .turn(turns)
                .remove_listener(0, drain=how != FIN)
                .turn(2)
                .answer()
                .turn(2)
                .add_listener(0)
                .turn()
                .connect()
                .ask("get")
                .turn(4),
            )
            yield (
                f"scope-ends-after-{turns}-{how}",
                new(answers=False)
                .connect()
                .ask("get")
                .turn(turns)
                .scope(0, add=False)
                .scope(0, add=True)
                .add_listener(0)
                .turn(3)
                .connect(1)
                .ask("get")
                .turn(6),
            )
            yield (
                f"stops-after-{turns}-{how}",
                new(answers=how == FIN)
                .connect()
                .ask("get")
                .connect()
                .turn(turns)
                .stop(1000 if how == RESET else 0)
                .turn(2)
                .answer()
                .turn(2),
            )
    for call in CALLS:
        if call == "calls":
            continue
        for error in range(0, 8, 3):
            yield (
                f"fault-{call}-{error}",
                new(access_log=True)
                .connect()
                .ask("get")
                .fault(call, error, 2, error)
                .turn(4)
                .connect()
                .ask("post", 2000, guest=1)
                .turn(4)
                .connect(1)
                .ask("get", guest=2)
                .turn(4),
            )
    for fault in range(1, 33, 2):
        yield f"start-fault-{fault}", new(start_fault=fault).connect().ask("get").turn(3)
        yield f"start-fault-memory-{fault}", new(start_fault=fault // 2 * 4 | 2).connect().ask("get").turn(3)
    yield (
        "descriptors-run-out",
        new().limits(9).crowd(0, 8).turn(8).limits(0).time(100).turn(5).to_timer().turn(5),
    )
    yield "sends-of-one-byte", new().limits(0, 1).connect().ask("post", 40).turn(9).ask("get").turn(9)
    yield "more-than-a-batch", new().crowd(0, 255).turn(4).crowd(1, 255).turn(6)
    yield "too-many-connections", new(max_connections=3).crowd(0, 9).turn(9).connect().ask("get").turn(3)
    yield (
        "too-many-parked",
        new(max_parked=2, policy="silent", other_policy="silent").crowd(0, 9).crowd(1, 3).turn(9),
    )
    yield (
        "few-places",
        new(max_upstream_connections=1, answers=False, upstream_timeout_ms=1000)
        .crowd(0, 5)
        .turn(6)
        .answer()
        .turn(3)
        .answer()
        .turn(3)
        .time(1000)
        .turn(3),
    )
    yield (
        "revoked-while-it-waits-for-a-place",
        new(max_upstream_connections=1, answers=False)
        .crowd(0, 6)
        .turn(6)
        .revoke(10)
        .turn(4)
        .answer()
        .turn(4)
        .answer()
        .turn(4),
    )
    yield (
        "streamed-body",
        new(answers=False)
        .connect()
        .queue("post_slow", 150_000)
        .deliver(4096)
        .turn(5)
        .body(70_000)
        .server_window(1000)
        .turn(3)
        .body(65_536)
        .turn(3)
        .server_reads(1000)
        .turn(2)
        .server_window(UNBOUNDED)
        .turn(3)
        .body(90_000)
        .turn(4)
        .answer()
        .turn(4),
    )
    yield (
        "streamed-body-answered-early",
        new(answers=False)
        .connect()
        .ask("post_slow", 150_000)
        .turn(5)
        .body(70_000)
        .turn(3)
        .answer("length", 300)
        .turn(3)
        .body(65_536)
        .turn(3),
    )
    yield (
        "streamed-body-too-slow",
        new(answers=False, body_timeout_ms=1000)
        .connect()
        .ask("post_slow", 150_000)
        .turn(5)
        .body(100)
        .turn(3)
        .time(1500)
        .turn(3),
    )
    yield (
        "gathered-body-too-slow",
        new().connect().ask("post_slow", 600).turn(4).body(100).turn(2).time(31_000).turn(3),
    )
    yield (
        "gathered-while-the-identity-ends",
        new(policy="short").connect().ask("post_slow", 600).turn(4).time(100).body(600).turn(8),
    )
    yield "too-slow-head", new().connect().queue().deliver(9).turn(2).time(10_000).turn(2)
    yield "idle-too-long", new().connect().ask("get").turn(6).time(31_000).turn(3)
    yield "pool-idle-too-long", new().connect().ask("get").turn(6).time(4000).turn(3).ask("get").turn(6)
    yield (
        "bytes-on-an-idle-connection",
        new().connect().ask("get").turn(6).server_raw(b"x").turn(2).ask("get").turn(5),
    )
    yield (
        "bytes-on-an-idle-connection-in-the-turn",
        new()
        .connect()
        .ask("get")
        .turn(6)
        .ask("get")
        .interrupt(0)
        .server_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        .turn(4),
    )
    yield (
        "stale-connection",
        new().connect().ask("get").turn(6).ask("get").interrupt(1).server_ends(CLOSE).turn(6),
    )
    yield (
        "answered-twice-late",
        new(answers=False)
        .connect()
        .ask("get")
        .connect(1)
        .turn(5)
        .answer("length", 20)
        .turn(2)
        .answer_queue("length", 30)
        .ask("get", guest=1)
        .turn(3)
        .server_delivers(199)
        .turn(2)
        .answer("length", 40)
        .turn(3),
    )
    yield (
        "guest-does-not-read",
        new(opens=False).connect().guest_window(10).ask("many", 5).turn(9).time(30_000).turn(3),
    )
    yield (
        "guest-lingers",
        new().connect().ask("folded").ask("get").turn(3).raw(b"more").turn(2).guest_ends(FIN).turn(2),
    )
    yield "guest-lingers-too-long", new().connect().ask("both").ask("get").turn(3).time(2000).turn(2)
    yield (
        "upstream-is-replaced",
        new().connect().ask("get").turn(3).upstream(2, ipv6=True).turn(4).ask("get").turn(6),
    )
    yield (
        "upstream-times-out",
        new(answers=False, upstream_timeout_ms=1000).connect().ask("get").turn(5).time(1000).turn(3),
    )
    yield (
        "upstream-stops-in-the-middle",
        new(answers=False, upstream_timeout_ms=1000)
        .connect()
        .ask("get")
        .turn(5)
        .answer("half", 500)
        .turn(2)
        .time(2000)
        .turn(3),
    )
    yield (
        "silent-upstream-pauses",
        new(answers=False)
        .connect()
        .ask("get")
        .turn(5)
        .server_ends(CLOSE)
        .turn(2)
        .time(300)
        .turn(5)
        .server_ends(CLOSE)
        .turn(2)
        .time(500)
        .turn(5)
        .answer()
        .turn(3),
    )
    yield (
        "events-not-read",
        new().events(False).crowd(0, 15).turn(4).time(1500).crowd(0, 15).turn(4).events(True).turn(6),
    )
    yield (
        "identities-end",
        new(policy="short", other_policy="expired")
        .crowd(0, 5)
        .crowd(1, 5)
        .turn(8)
        .time(1000)
        .turn(3)
        .crowd(0, 5)
        .turn(8),
    )
    yield (
        "absent-kept",
        new(policy="absent", max_absent=2).crowd(0, 5).turn(6).crowd(0, 5).turn(4).time(3000).turn(4),
    )
    yield (
        "drained-with-a-queue",
        new().connect().ask("get").turn(6).crowd(0, 9).remove_listener(0, drain=True).turn(9),
    )
    yield (
        "pipelined-and-mixed",
        new().connect().ask("many", 5).ask("head").ask("post", 300).ask("get_close").ask("get").turn(12),
    )


def write(folder: Path) -> None:
    """Only what has changed is written; what is no seed any more goes."""
    wanted = {f"request/{name}": data for name, data in heads("requests")}
    wanted |= {f"response/{name}": data for name, data in heads("responses")}
    wanted |= {f"chunked/{name}": data for name, data in chunked_messages()}
    wanted |= {f"conversation/{name}": bytes(each.data) for name, each in conversations()}
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    for name in there - set(wanted):
        (folder / name).unlink()
    for name, data in wanted.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
