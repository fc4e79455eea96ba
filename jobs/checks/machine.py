"""What `doctor` finds on this machine and in the store: versions, codecs, disks, overwriting."""

import importlib
import os
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from implant_model import storage
from implant_model.decode.confine import available
from implant_model.errors import UsageError

FLOORS = {"pydicom": "3.0.2", "ray": "2.55", "torch": "2.10", "pyarrow": "23.0.1"}
"""Versions below have known vulnerabilities; those of pyproject.toml are the same."""

CODECS = {
    "cv2": ("opencv-python-headless", "PNG"),
    "PIL.Image": ("pillow", "JPEG"),
    "gdcm": ("python-gdcm", "lossless JPEG in DICOM"),
    "imagecodecs._jpegls": ("imagecodecs", "JPEG-LS in DICOM"),
    "imagecodecs._jpeg8": ("imagecodecs", "12-bit JPEG in DICOM"),
    "imagecodecs._jpeg2k": ("imagecodecs", "JPEG 2000 in DICOM"),
    "rle.rle": ("pylibjpeg-rle", "RLE in DICOM"),
}
PILLOW_FEATURES = {"jpg": "JPEG", "jpg_2000": "JPEG 2000 in DICOM"}

OPENJPEG_FLOOR = "2.5.4"
"""CVE-2025-54874 is in all before it."""

SHARED = re.compile(
    r"9p|afs|beegfs|ceph|cifs|gpfs|lustre|nfs4?|smb3|smbfs|wekafs|(fuse\.)?glusterfs"
    r"|fuse\.(ceph|s3fs|sshfs|mount-s3|gcsfuse)"
)
MEMORY = frozenset({"tmpfs", "ramfs"})
SPILL_SHARE = 0.3
"""Share of the memory that Ray takes for objects: as much must fit on the disk."""


def check_versions() -> Iterator[str]:
    """Yield packages that are missing, or below the floors."""
    for package, floor in FLOORS.items():
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            yield f"{package} is not installed; install requirements.lock."
            continue
        if numbers(found) < numbers(floor):
            yield (
                f"{package} {found} has known vulnerabilities; install {floor} or newer, as "
                "requirements.lock has it."
            )


def numbers(version: str) -> tuple[int, ...]:
    """Return the release segment of a version, for comparison: `2.60.0rc1` is (2, 60, 0)."""
    release = re.match(r"\d+(\.\d+)*", version)
    found = [int(part) for part in release[0].split(".")] if release else []
    return (*found, 0, 0, 0)[: max(len(found), 3)]


def check_sandbox() -> Iterator[str]:
    """Yield what this machine's kernel lacks to confine the decoder."""
    missing = available().missing
    if missing:
        yield (
            f"The decoder's sandbox has {missing}: an exploited codec could do more than decode. "
            "Use a machine whose kernel has it; classify --require-sandbox refuses others."
        )


def check_codecs() -> Iterator[str]:
    """Yield decoders that cannot be loaded; without one of them no radiograph is decoded at all."""
    for module, (package, encoding) in CODECS.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            yield (
                f"The codec of {encoding} cannot be loaded ({error}); install {package} as "
                "requirements.lock has it."
            )
            if module == "PIL.Image":
                return
    from PIL import features

    for feature, encoding in PILLOW_FEATURES.items():
        if not features.check(feature):
            yield f"This Pillow was built without {encoding}; install the wheel of PyPI."


def check_bundled() -> Iterator[str]:
    """Yield C libraries within the codecs' wheels that have known vulnerabilities."""
    for package, found in bundled_openjpeg().items():
        if numbers(found) < numbers(OPENJPEG_FLOOR):
            yield (
                f"{package} bundles OpenJPEG {found}, which has known vulnerabilities; install "
                f"{package} as requirements.lock has it, with OpenJPEG {OPENJPEG_FLOOR} or newer."
            )


def bundled_openjpeg() -> dict[str, str]:
    """Return the versions of OpenJPEG that read what strangers send, by package."""
    try:
        import imagecodecs
        from PIL import features
    except ImportError:
        return {}  # `check_codecs` names them
    found = {
        "pillow": features.version("jpg_2000"),
        "imagecodecs": imagecodecs.jpeg2k_version().rpartition(" ")[2],
    }
    return {package: version for package, version in found.items() if version}


def check_spill_folder(folder: str, mounts: str | None = None) -> Iterator[str]:
    """Yield a spill folder that is shared, in memory, small, or cannot be written.

    Args:
        folder: Where Ray spills; it need not exist yet.
        mounts: Text in the form of /proc/self/mounts; by default that file.
    """
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    remedy = "name a folder on a local disk by RAY_TMPDIR, or by --temp-dir of ray start."
    if not os.access(place, os.W_OK | os.X_OK) or not place.is_dir():
        yield f"Ray cannot spill to {folder}: {place} may not be written; {remedy}"
        return
    kind = _file_system(place.resolve(), mounts)
    if SHARED.fullmatch(kind):
        yield f"Ray spills to {folder}, which is shared over a network ({kind}); {remedy}"
    elif kind in MEMORY:
        yield f"Ray spills to {folder}, which is itself in memory ({kind}); {remedy}"
    room = os.statvfs(place)
    free, wanted = room.f_bavail * room.f_frsize, SPILL_SHARE * _memory_bytes()
    if free < wanted:
        yield (
            f"Ray spills to {folder}, which has {free / 1e9:.1f} GB free; {wanted / 1e9:.1f} GB, "
            f"as much as Ray keeps in memory, are expected: {remedy}"
        )


def _file_system(place: Path, mounts: str | None) -> str:
    """The type of the file system that holds a path: that of the longest mount point above it."""
    text = Path("/proc/self/mounts").read_text() if mounts is None else mounts
    best, kind = -1, "unknown"
    for line in text.splitlines():
        _, point, found, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if place.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), found
    return kind


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_store(output: str) -> Iterator[str]:
    """Yield an output that cannot be written, or whose store overwrites what it is asked not to."""
    try:
        storage.probe(output)
    except UsageError as error:
        yield str(error)
