"""Names of loose radiographs in the tables: pseudonyms, unless identifiers are kept.

A file that lies by itself is often named after its patient, and its version in object storage, the
ETag, is mostly the MD5 of its bytes: whoever has the file would find its row. So name, version and
place of what does not end like an archive are HMACs, and its size is rounded up to a power of two.
Archives are named as they are.

The key is the output's own, so that it stays the same when the pseudonyms' key changes, and is
there where identifiers are dropped: 32 random bytes in `OUTPUT/_private/key`, put once, read by
the process that plans alone. Who has it and a file can find that file's row; readers of the tables
do not need it.
"""

import hmac
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from implant_model import storage
from implant_model.errors import BusyError, NotFoundError, UsageError
from implant_model.privacy import IdentifierPolicy
from implant_model.storage import ObjectInfo
from implant_model.storage.local_files import OWNER_ALONE
from jobs.tables.records import PlannedArchive

PRIVATE: Final = "_private"
PREFIX: Final = "loose-"
_KEY_BYTES: Final = 32
_PSEUDONYM: Final = 16
_ARCHIVE: Final = re.compile(
    r"\.(tar|tar\.(gz|zst|bz2|xz|lz4|lzma|z|[a-z]{2}|\d{2,3})|tgz|tzst|tbz2?|txz|zip|zipx|z\d\d|7z"
    r"|7z\.\d{3}|rar|r\d\d|cpio|cab|ar|iso)$",
    re.IGNORECASE,
)
_LOOSE: Final = re.compile(PREFIX + "[0-9a-f]{32}")


def is_loose(archive: str) -> bool:
    """Whether what the tables call an archive is a pseudonym of a loose radiograph."""
    return _LOOSE.fullmatch(archive) is not None


def is_archive_name(name: str) -> bool:
    """Whether a name ends like an archive's; what a thing is, its content decides later."""
    return _ARCHIVE.search(name) is not None


def any_pseudonym(names: pa.ChunkedArray) -> bool:
    """Whether one of the names is a pseudonym of a loose radiograph."""
    return bool(pc.any(pc.starts_with(names, PREFIX)).as_py())


def any_named_as_it_is(names: pa.ChunkedArray) -> bool:
    """Whether a loose radiograph is among them under its own name: ends like no archive."""
    pattern = f"{_ARCHIVE.pattern}|^{_LOOSE.pattern}$"
    is_known = pc.match_substring_regex(names, pattern, ignore_case=True)
    return pc.all(is_known).as_py() is False


class OtherKeyError(BusyError):
    """The plan calls loose radiographs by another key than the one that the output has by now."""


class HeldNames(Protocol):
    """Names that the tables of an output hold.

    Attributes:
        any_pseudonym: Whether one of them is a pseudonym of a loose radiograph.
        any_named_as_it_is: Whether one is a loose radiograph's own.
    """

    any_pseudonym: bool
    any_named_as_it_is: bool

    def __contains__(self, archive: object) -> bool: ...


class LooseNames:
    """What the tables of one output call the objects that a run reads.

    Args:
        output: Normalised URI.
        policy: What is done with identifiers; `keep` keeps these names as well.

    Raises:
        UsageError: `OUTPUT/_private/key` is no key.
        StorageError: It cannot be read.
    """

    def __init__(self, output: str, policy: IdentifierPolicy) -> None:
        self._uri = storage.join(output, PRIVATE, "key")
        self._keeps = policy is IdentifierPolicy.KEEP
        self._stored = _read(self._uri)
        self._key = self._stored or secrets.token_bytes(_KEY_BYTES)
        self._is_needed = False

    def planned(self, info: ObjectInfo, root: str, held: HeldNames | None = None) -> PlannedArchive:
        """Return an object as the tables know it, or will.

        Args:
            info: As it was listed.
            root: The INPUT that it was found below.
            held: Names that the tables hold; None: no names. What is there under its own name, as
                older outputs and those with identifiers have it, keeps it, so that its next version
                replaces it; and what is there under a pseudonym keeps that.
        """
        name = storage.relative(info.uri, root)
        if is_archive_name(name):
            return PlannedArchive(name, info)
        if self._stays_as_it_is(name, held):
            return PlannedArchive(name, info)
        pseudonym = self.pseudonym(name)
        self._is_needed = True
        known = ObjectInfo(
            self._digest("source", info.uri),
            1 << max(info.size - 1, 0).bit_length(),
            self._digest("archive_version", info.version) if info.version else "",
        )
        return PlannedArchive(pseudonym, info, pseudonym=known)

    def _stays_as_it_is(self, name: str, held: HeldNames | None) -> bool:
        if held is None or not (self._keeps or held.any_named_as_it_is):
            return self._keeps
        if held.any_pseudonym and self.pseudonym(name) in held:
            return False
        return self._keeps or name in held

    def shown_input(self, uri: str) -> str:
        """Return what the audit trail calls an INPUT, which may be a loose radiograph itself."""
        if self._keeps or is_archive_name(uri) or storage.exists(uri) is None:
            return uri
        return self.planned(ObjectInfo(uri, 0, ""), uri).known.uri

    def pseudonym(self, name: str) -> str:
        """Return what the tables call a loose radiograph of this name below its INPUT."""
        return PREFIX + self._digest("archive", name)

    def keep_key(self) -> None:
        """Store the key, if it was needed and is not stored: before anything is published.

        Raises:
            OtherKeyError: Another run has stored one since this run planned.
            StorageError: It cannot be written.
        """
        if self._stored is not None or not self._is_needed:
            return
        mask = os.umask(OWNER_ALONE)
        try:
            storage.put_if_absent(self._uri, self._key.hex().encode() + b"\n")
        finally:
            os.umask(mask)
        self._stored = _read(self._uri)
        if self._stored != self._key:
            raise OtherKeyError("Another run has begun on this output at the same time; run again.")

    def _digest(self, kind: str, value: str) -> str:
        plain = kind.encode() + b"\0" + value.encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, plain, "sha256")[:_PSEUDONYM].hex()


def find_files(output: str, inputs: Iterable[str]) -> Iterator[tuple[str, PlannedArchive]]:
    """Yield the loose radiographs of inputs, each with the name that the output has for it.

    Args:
        output: Normalised URI.
        inputs: Normalised URIs, as they were given to classify.

    Raises:
        UsageError: The output has no key: it holds no such names.
        StorageError: A store does not answer.
    """
    names = LooseNames(output, IdentifierPolicy.DROP)
    if names._stored is None:
        raise UsageError(f"{output} has no {PRIVATE}/key: its archives are named as they are.")
    for root in inputs:
        for info in storage.list_objects(root):
            planned = names.planned(info, root)
            if planned.pseudonym is not None:
                yield planned.name, planned


def find_archive(archive: str, roots: Iterable[str]) -> str | None:
    """Return the URI of an archive that was moved, or None where no root has it.

    Args:
        archive: Its name in the tables.
        roots: Normalised URIs that archives are found below, or of an archive itself.

    Raises:
        StorageError: A store does not answer.
    """
    for root in roots:
        below = storage.join(root, archive)
        if storage.exists(below) is not None:
            return below
        if root.rpartition("/")[2] == archive and storage.exists(root) is not None:
            return root
    return None


def _read(uri: str) -> bytes | None:
    try:
        text = storage.read_bytes(uri, 1 << 10)
        key = bytes.fromhex(text.decode("ascii"))
    except NotFoundError:
        return None
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise UsageError(
            f"{uri} is no key of {_KEY_BYTES} bytes in hexadecimal digits: it names the loose "
            "radiographs of this output. Put the key back, or use another output."
        )
    return key
