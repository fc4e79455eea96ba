"""Names of stored objects: plain paths, `file://` and `s3://bucket/key`; no access to any store.

An S3 key is in its URI as it is, never percent-encoded, so that `%2F`, `+`, spaces, `//` and
any other character of a key survive. A `file://` URI is percent-encoded as `pathlib.Path.as_uri`
does it, so that file names that are not UTF-8 survive as well.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import quote_from_bytes, unquote_to_bytes

from implant_model.errors import UsageError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ONE_SLASH = re.compile(r"(s3|file):(?!//)", re.IGNORECASE)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_ACCEPTED = "a path, file:///path or s3://bucket/key is expected"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One version of one stored object.

    Attributes:
        uri: Normalised URI; for S3 with the key to the letter.
        size: Bytes.
        version: S3: the ETag without its quotes. Disk: `{size}-{mtime_ns}`.
    """

    uri: str
    size: int
    version: str


class ObjectReader(Protocol):
    """Reads one version of one object; a context manager. Bytes of another version never get out.

    Both methods raise ChangedError where the object is no longer that version, NotFoundError where
    it is gone, AccessDeniedError and StorageError.
    """

    size: int
    version: str

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes from `offset`: exactly `size` of them, or as many as there are up to the end."""

    def stream(self, start: int = 0) -> Iterator[bytes]:
        """All bytes from `start` to the end, in order, in non-empty chunks of at most 8 MiB."""

    def close(self) -> None:
        """Give back what the reader holds."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def is_s3(uri: str) -> bool:
    """Return whether the URI is one of object storage; UsageError for a scheme that is neither."""
    match = _SCHEME.match(uri)
    scheme = match[1].lower() if match else "file"
    if _ONE_SLASH.match(uri):
        raise UsageError(f"{uri!r} lacks the '//' after its scheme; {_ACCEPTED}.")
    if scheme not in ("file", "s3"):
        raise UsageError(f"{uri!r} has the scheme {scheme!r}; {_ACCEPTED}.")
    return scheme == "s3"


def s3_parts(uri: str) -> tuple[str, str]:
    """Return bucket and key (perhaps empty) of an `s3://` URI, the key to the letter."""
    bucket, _, key = uri[len("s3://") :].partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{uri!r} names no valid bucket (it has {bucket!r}); {_ACCEPTED}.")
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{uri!r} holds a key that is not valid UTF-8; S3 has none.") from error
    return bucket, key


def local_path(uri: str) -> str:
    """Return absolute path of a plain path or `file://` URI, `..` and double slashes resolved."""
    path = uri
    if match := _SCHEME.match(uri):
        host, slash, rest = uri[match.end() :].partition("/")
        if host not in ("", "localhost") or not slash:
            raise UsageError(f"{uri!r} names the host {host!r}; {_ACCEPTED}.")
        path = os.fsdecode(unquote_to_bytes(os.fsencode("/" + rest)))
    if not path or "\0" in path:
        raise UsageError(f"{uri!r} is empty or holds a NUL character; {_ACCEPTED}.")
    return "/" + os.path.abspath(path).lstrip("/")


def file_uri(path: str) -> str:
    """`file://` URI of an absolute path, as `pathlib.Path.as_uri` writes it."""
    return "file://" + quote_from_bytes(os.fsencode(path))


def normalise(uri: str) -> str:
    """The one spelling of a URI: `file:///absolute` or `s3://bucket/key`, no slash at its end.

    Raises:
        UsageError: Another scheme, no bucket, an empty path, a NUL in a path.
    """
    if not is_s3(uri):
        return file_uri(local_path(uri))
    bucket, key = s3_parts(uri)
    return f"s3://{bucket}/{key.rstrip('/')}".rstrip("/")


def join(uri: str, *parts: str) -> str:
    """The URI of an object below a folder or prefix; parts are names, not percent-encoded."""
    below = "".join(f"/{part}" for part in parts)
    if is_s3(uri):
        return uri.removesuffix("/") + below
    return file_uri(local_path(uri).rstrip("/") + below)


def relative(uri: str, root: str) -> str:
    """Name of an object below the root that it was listed from; its base name if it is the root.

    A file's name is the plain one, as in a shell, so that an archive has the same name on disk and
    in a bucket: `join(root, relative(uri, root)) == uri`. Only a file name that is not UTF-8 stays
    percent-encoded, because no table can hold it.

    Raises:
        ValueError: The object is not below that root.
    """
    if is_s3(uri):
        return _below(uri, root.removesuffix("/"))
    name = _below(local_path(uri), local_path(root).rstrip("/"))
    try:
        name.encode()
    except UnicodeEncodeError:
        return quote_from_bytes(os.fsencode(name))
    return name


def _below(name: str, root: str) -> str:
    if name.removesuffix("/") == root:
        return root.rpartition("/")[2] + name[len(root) :]
    if not name.startswith(root + "/"):
        raise ValueError(f"{name!r} is not below {root!r}, so it has no name relative to it.")
    return name[len(root) + 1 :]
