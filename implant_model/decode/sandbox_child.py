"""The child process of `decode.sandbox`: decodes members until its parent lets go of it.

It imports the decoders, bounds its resources and confines itself (`decode.confine`) before it sees
a byte of any member. Wire format, one message each way for a member, as `SOCK_SEQPACKET` JSON:
    parent > child   {"size": bytes of the member, at offset 0, "room": bytes of the memory file}
    child > parent   {"header": {...}, "reason": null or Reason}; the picture is at offset 0
A picture in its own size and depth takes a second exchange, since it may need more room:
    parent > child   {"size": ..., "room": ..., "full": true}
    child > parent   {"header": {...}, "reason": ..., "shape": [rows, columns], "bits": 8 or 16}
    parent > child   {"size": 0, "room": ..., "deliver": true}
    child > parent   {}; the picture is at offset 0, rows from the top, 16 bits little-endian
"""

import codecs
import importlib
import json
import mmap
import os
import resource
import socket
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from implant_model.decode.confine import Confinement, available, confine
from implant_model.decode.preprocess import Preprocessing
from implant_model.limits import Limits

LARGEST_MESSAGE = 65536
LOWEST_PRIORITY = 19
LATE_MODULES = (
    "PIL.ImageCms", "PIL.ImageOps", "PIL.MpoImagePlugin", "PIL.TiffImagePlugin", "pydicom.charset",
    "pydicom.pixels.processing",
)  # fmt: skip


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
    if settings["yields"]:
        os.nice(LOWEST_PRIORITY)  # the classifier goes first: its work is nearer to the end
    _limit_resources(limits)
    channel.send(json.dumps(asdict(_confine())).encode())
    shared: mmap.mmap | None = None
    while message := channel.recv(LARGEST_MESSAGE):
        request = json.loads(message)
        if shared is None or len(shared) != request["room"]:
            shared = mmap.mmap(memory, request["room"])
        _limit_cpu(limits.decode_seconds)
        channel.send(json.dumps(work(shared, request)).encode())


Work = Callable[[mmap.mmap, dict[str, Any]], dict[str, Any]]


def _worker(spec: Preprocessing, limits: Limits) -> Work:
    """Return what serves one member; the decoders are imported here, and never by the parent."""
    import cv2

    from implant_model.decode.prepare import decode, picture_of, silence_loggers

    cv2.setNumThreads(1)
    silence_loggers()

    waiting = b""

    def full(data: memoryview) -> dict[str, Any]:
        nonlocal waiting
        decoded = decode(data, limits)
        reply: dict[str, Any] = {"header": asdict(decoded.header), "reason": decoded.reason}
        if decoded.pixels_HW is not None:
            pixels_HW = decoded.pixels_HW
            waiting = pixels_HW.astype(pixels_HW.dtype.newbyteorder("<"), copy=False).tobytes()
            reply |= {"shape": list(pixels_HW.shape), "bits": 8 * pixels_HW.itemsize}
        return reply

    def work(shared: mmap.mmap, request: dict[str, Any]) -> dict[str, Any]:
        nonlocal waiting
        if request.get("deliver"):
            shared[: len(waiting)], waiting = waiting, b""
            return {}
        data = memoryview(shared)[: request["size"]]
        if request.get("full"):
            return full(data)
        picture = picture_of(data, spec, limits)
        if picture.image is not None:
            shared[: picture.image.size] = picture.image.tobytes()
        return {"header": asdict(picture.header), "reason": picture.reason}

    return work


def _confine() -> Confinement:
    """Give up all but decoding, with late imports made early where they could not be read."""
    folders = _folders()
    is_lost = os.geteuid() == 0 and not all(map(_is_public, folders))
    if is_lost or not available().landlock:  # without Landlock no file can be opened at all
        _import_late_modules()
    return confine(folders)


def _folders() -> list[Path]:
    """Return where modules and shared libraries come from, and nothing else of the path."""
    modules = Path(__file__).resolve().parents[1]
    bases = {Path(base).resolve() for base in (sys.prefix, sys.base_prefix)}
    path = [Path(entry).resolve() for entry in sys.path if os.path.isabs(entry)]
    packages = [
        entry
        for entry in path
        if entry.name in ("site-packages", "dist-packages") or bases & {*entry.parents}
    ]
    libraries = [Path(place) for place in ("/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache")]
    own = [base / "lib" for base in bases]
    return [place for place in (modules, *packages, *own, *libraries) if place.exists()]


def _is_public(place: Path) -> bool:
    """Whether any account may read what is there."""
    steps = (place, *place.parents)
    return all(step.stat().st_mode & (stat.S_IROTH | stat.S_IXOTH) for step in steps)


def _import_late_modules() -> None:
    """Import what decoders import at their first use: the account may not read it afterwards."""
    for name in LATE_MODULES:
        importlib.import_module(name)
    from pydicom.charset import python_encoding

    for encoding in {*python_encoding.values(), "latin-1", "utf-8", "ascii"}:
        codecs.lookup(encoding)


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
