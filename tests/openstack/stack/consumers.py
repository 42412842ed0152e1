"""Run by the stack's own interpreter: exit status 0 when somebody reads each of these queues.

Usage: consumers.py HOST:PORT USER QUEUE…; the password comes on standard input. Only stdout, stderr and the exit status
are looked at.
"""

import sys

import amqp


def main() -> int:
    address, user, *queues = sys.argv[1:]
    connection = amqp.Connection(address, user, sys.stdin.read(), connect_timeout=5, read_timeout=5)
    with connection:
        for queue in queues:
            # Passive: it is not made. A closed channel is what a missing one gives.
            declared = connection.channel().queue_declare(queue, passive=True)
            if not declared.consumer_count:
                return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, amqp.AMQPError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
