"""Radiographs, archives, packages and results by URI: on disk and in object storage alike.

The one door to stored bytes. What is read is one version to its last byte, or ChangedError; results
are put whole and once, and never over anything. Which store a URI means is decided here; how it is
reached, in `disk` and `s3`. All errors are those of `errors`, as sentences that name the
URI and no credentials.
"""

from collections.abc import Iterator

from implant_model.errors import NotFoundError, StorageError, UsageError
from implant_model.storage import disk, s3, s3_listing
from implant_model.storage.disk import DiskReader
from implant_model.storage.s3_reader import S3Reader
from implant_model.storage.uri import ObjectInfo, ObjectReader, is_s3, join, normalise

_PROBE = b"This shows that the store never overwrites an object. It may be deleted.\n"


def stat(uri: str) -> ObjectInfo:
    """Return size and version of one object.

    Raises:
        NotFoundError: It is not there, or is a folder, a prefix or a bucket.
        AccessDeniedError: It may not be read, or there are no credentials.
        StorageError: The store does not answer.
    """
    return s3.stat(uri) if is_s3(uri) else disk.stat(uri)


def list_objects(root: str, after: str = "", *, in_order: bool = True) -> Iterator[ObjectInfo]:
    """Yield the object itself, or all below a folder or prefix at any depth, sorted by URI.

    Args:
        root: Normalised URI.
        after: Name of an object directly below; it and what sorts before it are left out, without
            being looked at.
        in_order: False: in any order, which is faster where a bucket holds many thousands.

    Directory markers (empty keys that end with "/"), dangling links, devices, pipes and sockets are
    no objects. In object storage both `a.tar` and `a.tar/...` are listed. S3 needs the right
    `s3:ListBucket`. The listing begins with the first `next()`, which is where it fails.

    Raises:
        NotFoundError: There is nothing. An existing empty folder, a bucket, and a prefix given with
            "/" at its end may be empty.
        AccessDeniedError: The root or a folder below it may not be listed.
        StorageError: The store does not answer.
    """
    if is_s3(root):
        return s3_listing.list_objects(root, after, in_order=in_order)
    return disk.list_objects(root, after)


def is_remote(uri: str) -> bool:
    """Return whether each request takes a while: object storage, not a disk."""
    return is_s3(uri)


def open_object(info: ObjectInfo, *, whole: bool = False) -> ObjectReader:
    """Return a reader of exactly this version; on S3 nothing is asked before the first read.

    Args:
        info: The object.
        whole: Fetch a remote object now, by one request, and hold it; for small ones.
    """
    return S3Reader(info, whole=whole) if is_s3(info.uri) else DiskReader(info)


def read_bytes(uri: str, max_bytes: int = 1 << 30) -> bytes:
    """The whole of one object as it is now; StorageError where it is larger than `max_bytes`."""
    info = stat(uri)
    if info.size > max_bytes:
        raise StorageError(f"{uri!r} has {info.size} bytes; {max_bytes} at most are accepted.")
    with open_object(info) as reader:
        return b"".join(reader.stream())


def exists(uri: str) -> int | None:
    """Return size of one object in bytes, None where it is not there; other errors are raised."""
    try:
        return stat(uri).size
    except NotFoundError:
        return None


def put_if_absent(uri: str, data: bytes) -> bool:
    """Create one object, whole and never over another one.

    Returns:
        True: this call created it. False: it was there, or it is there now and the reply to the
        attempt that created it was lost; who must know compares the content.

    Raises:
        NotFoundError: There is no such bucket.
        AccessDeniedError: It may not be written.
        StorageError: The store does not answer, the disk is full, ...
    """
    if is_s3(uri):
        return s3.put_if_absent(uri, data)
    return disk.put_if_absent(uri, data)


def overwrite(uri: str, data: bytes) -> None:
    """Write one object in the place of the one that may be there.

    For what is no result and on which nothing rests, such as a lease: results are put once, by
    `put_if_absent`.

    Raises:
        NotFoundError: There is no such bucket.
        AccessDeniedError: It may not be written.
        StorageError: The store does not answer, the disk is full, ...
    """
    if is_s3(uri):
        s3.overwrite(uri, data)
    else:
        disk.overwrite(uri, data)


def nothing_there(uri: str, what: str) -> UsageError:
    """Return the error of a name at which there is nothing, with the nearest folder that is there.

    A folder, never a file: files may be named after patients.

    Args:
        uri: Normalised.
        what: The option or argument that named it.
    """
    try:
        near = (s3.nearest if is_s3(uri) else disk.nearest)(uri)
    except NotFoundError:
        return UsageError(f"The bucket of {what} {uri} is not there; check its name.")
    except StorageError as error:
        return UsageError(f"There is nothing at {what} {uri}. {error}")
    return UsageError(f"There is nothing at {what} {uri}; nearest is {near}.")


def check_output(output: str) -> None:
    """Find, without writing, what keeps an output from being written.

    Raises:
        UsageError: It cannot be reached, or this account may not write there.
    """
    uri = normalise(output)
    try:
        (s3.check_bucket if is_s3(uri) else disk.check_folder)(uri)
    except StorageError as error:
        raise UsageError(f"The output {output!r} is not usable. {error}") from error


def probe(output: str) -> None:
    """Show, before any work, that an output can be written and that nothing gets overwritten.

    Leaves a small object `_probe` there.

    Raises:
        UsageError: The output cannot be reached, read or written, or its store ignores
            `If-None-Match: *`, on which "exactly once" rests.
    """
    check_output(output)
    uri = join(normalise(output), "_probe")
    try:
        put_if_absent(uri, _PROBE)
        overwritten = put_if_absent(uri, _PROBE)
        readable = read_bytes(uri) == _PROBE
    except StorageError as error:
        raise UsageError(f"The output {output!r} is not usable. {error}") from error
    if overwritten:
        raise UsageError(
            f"The store of the output {output!r} overwrites objects although it is asked not to "
            "(it ignores 'If-None-Match: *'); choose AWS S3, a current MinIO or Ceph, or a disk."
        )
    if not readable:
        raise UsageError(f"{uri!r} holds other bytes than were put there; delete it, try again.")


def delta_options(uri: str) -> dict[str, str]:
    """`storage_options` with which deltalake reaches the same store as this module; {} for disk.

    They hold credentials of this moment: ask anew for each commit, and never log them.
    """
    return s3.delta_options(uri) if is_s3(uri) else {}
