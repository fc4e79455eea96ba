"""The child process of `decode.sandbox`: decodes members until its parent lets go of it.

Wire format, one message each way for a member, as `SOCK_SEQPACKET` JSON:
    parent > child   {"size": bytes of the member, at offset 0, "room": bytes of the memory file}
    child > parent   {"header": {...}, "reason": null or Reason}; the picture is at offset 0
"""

import json
import mmap
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from implant_model.decode.preprocess import Preprocessing
from implant_model.limits import Limits

LARGEST_MESSAGE = 65536
LOWEST_PRIORITY = 19


def main(arguments: list[str]) -> None:
    """The child: serves members until the parent closes the socket.

    Args:
        arguments: File descriptors of the socket and of the memory file.
    """
    channel = socket.socket(fileno=int(arguments[0]))
    memory = int(arguments[1])
    settings = json.loads(channel.recv(LARGEST_MESSAGE))
    spec, limits = Preprocessing.from_json(settings["spec"]), Limits(**settings["limits"])
    work = _worker(spec, limits)
    os.nice(LOWEST_PRIORITY)  # the classifier goes first: its work is nearer to the end
    _limit_resources(limits)
    channel.send(b"{}")
    shared: mmap.mmap | None = None
    while message := channel.recv(LARGEST_MESSAGE):
        request = json.loads(message)
        if shared is None or len(shared) != request["room"]:
            shared = mmap.mmap(memory, request["room"])
        _limit_cpu(limits.decode_seconds)
        channel.send(json.dumps(work(shared, request["size"])).encode())


def _worker(spec: Preprocessing, limits: Limits) -> Callable[[mmap.mmap, int], dict[str, Any]]:
    """Return what serves one member; the decoders are imported here, and never by the parent."""
    import cv2

    from implant_model.decode.prepare import picture_of, silence_loggers

    cv2.setNumThreads(1)
    silence_loggers()

    def work(shared: mmap.mmap, size: int) -> dict[str, Any]:
        picture = picture_of(memoryview(shared)[:size], spec, limits)
        if picture.image is not None:
            shared[: picture.image.size] = picture.image.tobytes()
        return {"header": asdict(picture.header), "reason": picture.reason}

    return work


def _limit_resources(limits: Limits) -> None:
    """Bound what the child may take from here on; it cannot raise them again."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    mapped = pages * resource.getpagesize() + limits.decode_bytes
    for kind, bound in (
        (resource.RLIMIT_AS, mapped),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 32),
    ):
        hard = resource.getrlimit(kind)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (bound, bound))


def _limit_cpu(seconds: int) -> None:
    """Give the child CPU time for one more member: an orphan in an endless loop ends itself."""
    used = int(time.process_time()) + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, hard))


if __name__ == "__main__":
    main(sys.argv[1:])
