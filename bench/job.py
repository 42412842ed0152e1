"""The one request that all are measured with: who asks, what has to go to Nova, what Nova answers."""

import hashlib
import hmac

# Everything here is made up for the bench.
SECRET = "bench-shared-secret"  # noqa: S105
NETWORK_ID = "5a1f0c52-7d0c-4a8e-9b1e-2f6f7f3c9d10"
PORT_ID = "0c7b3f7e-56a4-4c33-8f0e-6f3f2b1d4a55"
INSTANCE_ID = "e2b6a1d4-93c7-4f0a-b8d5-7c1e9f20a3b6"
PROJECT_ID = "b7d1c3a95e8f4c02a6d4f1e07b9c3852"
GUEST_ADDRESS = "127.0.0.1"
SIGNATURE = hmac.new(SECRET.encode(), INSTANCE_ID.encode(), hashlib.sha256).hexdigest()

# What cloud-init sends, in 176 bytes; c/load.c sends the same but for four of them.
TYPICAL_HEAD = (
    b"GET /openstack/latest/meta_data.json HTTP/1.1\r\nHost: 169.254.169.254\r\n"
    b"User-Agent: Cloud-Init/22.4.2+deb\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\n"
    b"Connection: keep-alive\r\n\r\n"
)
FLOOR_HEAD_BYTES = 450
ANSWER_HEAD_BYTES = 190
ANSWER_BODY_BYTES = 2048

# What a proxy sets, and what it must not let through from a guest.
SET_HEADERS = {
    "X-Instance-ID": INSTANCE_ID,
    "X-Tenant-ID": PROJECT_ID,
    "X-Instance-ID-Signature": SIGNATURE,
    "X-Forwarded-For": GUEST_ADDRESS,
}
DELETED_HEADERS = (
    "X-Neutron-Network-ID",
    "X-Neutron-Router-ID",
    "X-Metadata-Provider",
    "X-Metadata-Provider-Signature",
    "Forwarded",
)
# The stub refuses a request without these, so that a proxy that skips part of the job shows up as errors.
EXPECTED_VALUES = (INSTANCE_ID, PROJECT_ID, SIGNATURE)


def floor_head(upstream_port: int) -> bytes:
    """The fixed head that the floor sends, filled up to FLOOR_HEAD_BYTES."""
    lines = [
        "GET /openstack/latest/meta_data.json HTTP/1.1",
        f"Host: 127.0.0.1:{upstream_port}",
        "User-Agent: Cloud-Init/22.4.2",
        "Accept-Encoding: gzip, deflate",
        "Accept: */*",
        *(f"{name}: {value}" for name, value in SET_HEADERS.items()),
        "Connection: keep-alive",
        "X-Padding: ",
    ]
    return "\r\n".join(lines).encode().ljust(FLOOR_HEAD_BYTES - 4, b"x") + b"\r\n\r\n"
