"""A guest that reads one large answer and tells what came of it. Runs in a guest's namespace; needs only Python.

Its one argument is the target. Prints one line of JSON: status, bytes of content, their CRC-32, seconds.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
import zlib


def main() -> None:
    start = time.monotonic()
    connection = http.client.HTTPConnection("169.254.169.254", timeout=30)
    connection.request("GET", sys.argv[1])
    response = connection.getresponse()
    size = checksum = 0
    room = bytearray(1 << 20)
    while (n := response.readinto(room)) > 0:
        size += n
        checksum = zlib.crc32(memoryview(room)[:n], checksum)
    connection.close()
    seconds = time.monotonic() - start
    print(
        json.dumps(
            {"last": True, "status": response.status, "bytes": size, "crc32": checksum, "seconds": seconds}
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
