"""Every member of a stored object with its picture: the one loop that classifies and trains."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from implant_model.archives.members import Member
from implant_model.archives.read import Allocate, RandomReader, read_members
from implant_model.decode.decoded import Prepared, prepare_member
from implant_model.limits import Limits

Content = bytes | memoryview
Prepare = Callable[[Content], Prepared]


@dataclass(frozen=True)
class Radiograph:
    """One member as it was read.

    Attributes:
        member: What the archive holds; its data may have been overwritten by the decode.
        content: What `hash_content` gave for its bytes; None where it has none or was not wanted.
        prepared: Its picture, or the reason why there is none; None where it was not wanted.
    """

    member: Member
    content: str | None = field(repr=False)
    prepared: Prepared | None


def read_radiographs(
    reader: RandomReader,
    name: str,
    limits: Limits,
    prepare: Prepare,
    hash_content: Callable[[Content], str | None],
    allocate: Allocate | None = None,
    is_wanted: Callable[[Member], bool] = lambda _: True,
) -> Iterator[Radiograph]:
    """Yield each member of an archive, or a single radiograph, decoded and preprocessed.

    Args:
        reader: The stored object.
        name: What to call a single radiograph.
        limits: Bounds on members, names, headers and expansion.
        prepare: Decodes and preprocesses one member; never raises for what its bytes hold.
        hash_content: Names the content of a member's bytes.
        allocate: Where `prepare` wants a large member; see `read_members`.
        is_wanted: Whether to decode a member; asked when all before it have been yielded.

    Raises:
        ArchiveError: After the last member that could be read, see `read_members`.
        StorageError: From the reader, at any time.
    """
    for member in read_members(reader, name, limits, allocate):
        if not is_wanted(member):
            yield Radiograph(member, None, None)
            continue
        # Before the decode, which may overwrite it.
        content = None if member.data is None else hash_content(member.data)
        yield Radiograph(member, content, prepare_member(member, prepare))
