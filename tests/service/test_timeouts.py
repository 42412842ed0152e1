"""Rule 8: time in each state is bounded."""

from __future__ import annotations

import contextlib
import socket

from .agents import until
from .conftest import Setting

TCP_ESTABLISHED = 1


def test_guests_that_never_finish_are_sent_away(setting: Setting) -> None:
    """Rule 8: each state has its time: 408 for a head and for a body that do not come; a guest that reads nothing is
    cut off, as is one that asks nothing more."""
    upstream = setting.upstream()
    upstream.scripts["large"] = lambda exchange: exchange.send(exchange.whole(5_000_000))
    agent = setting.agent(
        upstream, head_timeout=0.3, body_timeout=0.3, write_timeout=0.3, keepalive_timeout=0.3
    )
    guest = setting.cloud.guests["red-8"]
    assert guest.is_served()
    upstream.close_connections()
    with contextlib.ExitStack() as stack:
        head, gathered, streamed, silent, deaf = (
            stack.enter_context(guest.connect(receive_buffer=4096)) for _ in range(5)
        )
        deaf.get("/large")
        head.send(b"GET /head HT")
        gathered.send(b"POST /gathered HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
        streamed.send(b"POST /streamed HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\nx")
        silent.get("/silent")
        assert silent.answer().status == 200
        for wire in (head, gathered, streamed):
            answer = wire.answer()
            assert answer.status == 408
            assert answer.values("connection") == ["close"]
            assert wire.end() == b""
        assert silent.end() == b""
        # The first byte of TCP_INFO is the state: the reset arrives although nothing was read.
        until(
            lambda: deaf.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_ESTABLISHED,
            "the end of the connection that reads nothing",
        )
    assert upstream.asked("/gathered") == []
    upstream.close_connections()
    assert agent.logged("cannot") == []
