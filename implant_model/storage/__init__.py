"""Stored bytes by URI, on disk and in object storage alike; `store` is the door to them."""

from implant_model.storage.store import (
    check_output,
    delta_options,
    exists,
    is_remote,
    list_objects,
    nothing_there,
    open_object,
    overwrite,
    probe,
    put_if_absent,
    read_bytes,
    stat,
)
from implant_model.storage.uri import (
    ObjectInfo,
    ObjectReader,
    join,
    normalise,
    relative,
)

__all__ = [
    "ObjectInfo",
    "ObjectReader",
    "check_output",
    "delta_options",
    "exists",
    "is_remote",
    "join",
    "list_objects",
    "normalise",
    "nothing_there",
    "open_object",
    "overwrite",
    "probe",
    "put_if_absent",
    "read_bytes",
    "relative",
    "stat",
]
