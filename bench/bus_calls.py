"""Counts the calls that Neutron's server gets over the message bus: a queue of our own gets a copy of each.

oslo.messaging sends a call to the exchange of its name (for Neutron: neutron), with the topic as routing key. The
exchange is of the topic kind, and gives a copy to each queue that is bound with that key (AMQP 0-9-1, 3.1.3.3). So this
counts whoever asks, without a look at anybody's own account.
"""

from __future__ import annotations

import collections
import json
import secrets
from types import TracebackType

import amqp

EXCHANGE = "neutron"
TOPIC = "q-plugin"
TIMEOUT = 30.0


class BusCalls:
    """Use it with ``with``: its queue ends with it."""

    def __init__(self, address: str, user: str, password: str) -> None:
        """address: host and TCP port of RabbitMQ."""
        self._connection = amqp.Connection(
            address, user, password, connect_timeout=TIMEOUT, read_timeout=TIMEOUT, write_timeout=TIMEOUT
        )
        self._counts: collections.Counter[str] = collections.Counter()
        self._mark = ""

    def __enter__(self) -> BusCalls:
        self._connection.connect()
        try:
            self._channel = self._connection.channel()
            # The server names it, and removes it with the connection.
            self._queue = self._channel.queue_declare(exclusive=True, auto_delete=True).queue
            self._channel.queue_bind(self._queue, EXCHANGE, TOPIC)
            self._channel.basic_consume(self._queue, no_ack=True, callback=self._take)
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def counts(self) -> dict[str, int]:
        """By method, all that has reached the bus before this was called."""
        # A queue keeps its order (AMQP 0-9-1, 4.7): when this message of ours is back, all before it have been seen.
        self._mark = secrets.token_hex(16)
        self._channel.basic_publish(amqp.Message(self._mark), routing_key=self._queue)
        while self._mark:
            self._connection.drain_events(timeout=TIMEOUT)
        return dict(self._counts)

    def _take(self, message: amqp.Message) -> None:
        body = message.body.decode() if isinstance(message.body, bytes) else message.body
        if body == self._mark:
            self._mark = ""
            return
        self._counts[method(body)] += 1


def method(body: str) -> str:
    """What is called: oslo.messaging's message lies as text in an envelope that names its version."""
    try:
        return str(json.loads(json.loads(body)["oslo.message"])["method"])
    except (ValueError, KeyError, TypeError):
        return "?"
