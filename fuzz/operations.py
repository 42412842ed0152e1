"""An input of the target conversation, one operation a call, and how its numbers are coded.

They come from the C enums, so an operation that is renamed there is an error here.
"""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
SETTING_BYTES = 40
AMOUNT_CODES = 200  # codes below are amounts themselves


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
    found = re.findall(r"^    (?:SETTING|LIMIT)\((\w+), (.+)\),$", text, re.MULTILINE)
    return {
        name: (place, [int(value) if value.isdigit() else 0 for value in values.split(", ")])
        for place, (name, values) in enumerate(found)
    }


OPERATIONS = enumeration("script.h", "operation")
ASKS = enumeration("requests.h", "ask")
ANSWERS = enumeration("requests.h", "answer")
POLICIES = enumeration("model.h", "policy")
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
        servers: int = 1,
        two_secrets: bool = False,
        seed: int = 0,
        start_fault: int = 0,
        answer: str = "length",
        length: int = 100,
        policy: str = "known",
        other_policy: str = "known",
        **settings: int,
    ) -> None:
        head = bytearray(SETTING_BYTES)
        head[0] = access_log | (not quiet) << 1 | (not settles) << 2 | (not opens) << 3 | connecting << 5
        head[1] = (not answers) | drain << 1 | early << 2 | servers - 1 << 3 | two_secrets << 5
        head[2] = seed
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

    def turns(self, times: int) -> Conversation:
        return self.put("turns", times - 1)

    def all_ask(self, ask: str = "get") -> Conversation:
        return self.put("all_ask", ASKS[ask])

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

    def upstream(self, n: int = 1, ipv6: bool = False, other_host: bool = False) -> Conversation:
        """n servers from now on; 0: none."""
        return self.put("upstream", (n - 1 if n else 64) | ipv6 << 4 | other_host << 5)

    def server(self, place: int, connecting: int = 0, answers: bool = True, secret: int = 0) -> Conversation:
        """secret: 0 any, 1 the present one, 2 the next one."""
        return self.put("server", place, connecting | (not answers) << 3 | secret << 4)

    def renew(self, ms: int, scope: int = 0) -> Conversation:
        """What ends within this time."""
        return self.put("renew", scope, TIMES[ms])

    def shorten(self, ms: int, scope: int = 0) -> Conversation:
        return self.put("shorten", scope, TIMES[ms])

    def rates(self, versions: int, limit: int = 1, scope: int = 0) -> Conversation:
        """Of one scope; versions: 0 none, 1 IPv4, 2 IPv6, 3 both."""
        return self.put("rates", scope, versions | (limit - 1) << 2)

    def secrets(self, two: bool) -> Conversation:
        return self.put("secrets", two)

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
