"""Objects on disk: files below a folder, read at one version, written once by a hard link.

A version is `{size}-{mtime_ns}`, looked at on the open file after every read: what was read before
a rewrite in place is never handed on with what was read after it. A file replaced by a rename is
read to its end as the old version. A rewrite that keeps the size and happens within one tick of the
file system's clock (about 4 ms on Linux) cannot be seen.
"""

import contextlib
import errno
import os
import stat as modes
import uuid
from collections.abc import Iterator
from difflib import get_close_matches
from types import TracebackType
from typing import Self

from implant_model.errors import AccessDeniedError, ChangedError, NotFoundError, StorageError
from implant_model.storage.uri import ObjectInfo, file_uri, local_path

_FIRST_CHUNK_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def stat(uri: str) -> ObjectInfo:
    """Return size and version of a file. A folder is no object: NotFoundError."""
    with _translated("read", uri):
        status = os.stat(local_path(uri))
    if modes.S_ISDIR(status.st_mode):
        raise NotFoundError(f"{uri!r} is a folder; a file is expected.")
    if not modes.S_ISREG(status.st_mode):
        raise StorageError(f"{uri!r} is a device, pipe or socket; a regular file is expected.")
    return ObjectInfo(file_uri(local_path(uri)), status.st_size, _version(status))


def list_objects(root: str, after: str = "") -> Iterator[ObjectInfo]:
    """Yield the file itself, or all regular files below a folder, in order of their URIs.

    Links are followed, except into a folder that is being listed already. A link that leads
    nowhere, a device, pipe or socket yields nothing; a folder that may not be read raises.
    """
    top = local_path(root)
    if not os.path.isdir(top):
        yield stat(root)
        return
    with _translated("list", root):
        levels = [_Level(top, os.stat(top), after)]
        while levels:
            path, status = next(levels[-1].entries, (None, None))
            if path is None or status is None:
                levels.pop()
            elif modes.S_ISREG(status.st_mode):
                yield ObjectInfo(file_uri(path), status.st_size, _version(status))
            elif (status.st_dev, status.st_ino) not in [level.identity for level in levels]:
                levels.append(_Level(path, status))


class _Level:
    """One folder of a listing under way, its entries in order of the URIs that they lead to."""

    def __init__(self, folder: str, status: os.stat_result, after: str = "") -> None:
        self.identity = (status.st_dev, status.st_ino)
        self.entries = iter([found[1:] for found in sorted(self._scan(folder, after))])

    @staticmethod
    def _scan(folder: str, after: str) -> Iterator[tuple[str, str, os.stat_result]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name <= after:
                    continue
                try:
                    status = entry.stat()
                except OSError as error:
                    if error.errno in (*_ABSENT, errno.ELOOP):
                        continue
                    raise
                if modes.S_ISDIR(status.st_mode):
                    yield file_uri(entry.path) + "/", entry.path, status
                elif modes.S_ISREG(status.st_mode):
                    yield file_uri(entry.path), entry.path, status


def check_folder(uri: str) -> None:
    """Refuse a folder that cannot be written, or not be made where it is missing."""
    folder = local_path(uri)
    with _translated("write", uri):
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        if not modes.S_ISDIR(os.stat(folder).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)


class DiskReader:
    """An `ObjectReader` of a file."""

    def __init__(self, info: ObjectInfo) -> None:
        self.size = info.size
        self.version = info.version
        self._uri = info.uri
        with _translated("read", info.uri):
            self._file = open(local_path(info.uri), "rb", buffering=0)  # noqa: SIM115
        try:
            self._check()
        except StorageError:
            self._file.close()
            raise

    def read_at(self, offset: int, size: int) -> bytes:
        """See `ObjectReader.read_at`."""
        if offset < 0 or size < 0:
            raise ValueError(f"offset {offset} and size {size} are to be 0 or more.")
        wanted = max(0, min(size, self.size - offset))
        parts = []
        with _translated("read", self._uri):
            while wanted and (part := os.pread(self._file.fileno(), wanted, offset)):
                parts.append(part)
                offset += len(part)
                wanted -= len(part)
        self._check()
        if wanted:
            raise StorageError(f"{self._uri!r} ends {wanted} bytes before its own size.")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, offset: int, target: memoryview) -> int:
        """Fill `target` from `offset`; return how many bytes there were, fewer at the end."""
        wanted = max(0, min(len(target), self.size - offset))
        filled = 0
        with _translated("read", self._uri):
            while filled < wanted:
                views = [target[filled:wanted]]
                part = os.preadv(self._file.fileno(), views, offset + filled)
                if not part:
                    break
                filled += part
        self._check()
        if filled < wanted:
            raise StorageError(f"{self._uri!r} ends {wanted - filled} bytes before its own size.")
        return filled

    def stream(self, start: int = 0) -> Iterator[bytes]:
        """See `ObjectReader.stream`; the first chunks are small, for who wants but a header."""
        offset, size = start, _FIRST_CHUNK_BYTES
        while offset < self.size:
            yield self.read_at(offset, size)
            offset += size
            size = min(2 * size, _CHUNK_BYTES)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check(self) -> None:
        with _translated("read", self._uri):
            version = _version(os.fstat(self._file.fileno()))
        if version != self.version:
            raise ChangedError(
                f"{self._uri!r} changed: it was version {self.version} when the run was planned "
                f"and is {version}; run again to read the new version."
            )


def nearest(uri: str) -> str:
    """Return the URI of the folder that a mistyped name may mean, or else of the one above it."""
    path = local_path(uri)
    while not os.path.isdir(folder := os.path.dirname(path)):
        path = folder
    with _translated("list", uri), os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    found = get_close_matches(os.path.basename(path), names, 1)
    return file_uri(os.path.join(folder, *found))


def put_if_absent(uri: str, data: bytes) -> bool:
    """Write a file whole or not at all, never over another one; create its folders.

    The bytes are on the disk (fsync of file and folder) before the name is there.
    """
    path = local_path(uri)
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, f".{uuid.uuid4().hex}.tmp")
    with _translated("write", uri):
        os.makedirs(folder, exist_ok=True)
        if os.path.lexists(path):
            return False
        try:
            _write_synced(temporary, data)
            created = _link(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        _sync_folder(folder)
    return created


def overwrite(uri: str, data: bytes) -> None:
    """Write a file whole, in the place of the one that may be there; create its folders."""
    path = local_path(uri)
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, f".{uuid.uuid4().hex}.tmp")
    with _translated("write", uri):
        os.makedirs(folder, exist_ok=True)
        try:
            _write_synced(temporary, data)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def _write_synced(path: str, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _link(source: str, target: str) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise StorageError(
            f"Cannot write {file_uri(target)!r}: its file system has no hard links "
            f"({errno.errorcode[error.errno]}), which is how a file is published once; "
            "choose an output on another file system or in object storage."
        ) from error
    return True


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # network file systems that sync folders by themselves
            raise
    finally:
        os.close(descriptor)


def _version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


@contextlib.contextmanager
def _translated(action: str, uri: str) -> Iterator[None]:
    """Turn an OSError into the project's errors: one sentence with the URI and the cause."""
    try:
        yield
    except OSError as error:
        cause = f"Cannot {action} {uri!r}: {error.strerror or type(error).__name__}"
        if error.errno in _ABSENT:
            raise NotFoundError(f"{cause}; check the name.") from error
        if error.errno in _DENIED:
            raise AccessDeniedError(f"{cause}; check the rights of this user.") from error
        raise StorageError(f"{cause}.") from error
