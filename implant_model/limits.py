"""How much of the machine one archive, one member or one decode may take."""

from dataclasses import dataclass, fields

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """Bounds on what is read; every one of them is part of a run's configuration hash.

    The values come from what public corpora and advisories hold (decompression bombs, lying
    headers, runaway decoders) against the largest radiographs that archives hold: 16-bit detector
    images of 43 x 43 cm at 100 micrometres are 37 MB.

    Attributes:
        member_bytes: Largest member, as stored in the archive and after its expansion.
        frame_pixels: Largest rows x columns of one frame.
        frames: Most frames of one multi-frame image.
        header_bytes: Largest DICOM dataset in front of the pixel data.
        sequence_depth: Deepest nesting of DICOM sequences.
        archive_expansion: Largest ratio of an archive's expanded to its stored size.
        archive_bytes: Largest expanded size of one archive.
        members: Most members of one archive.
        name_bytes: Longest member name.
        tar_header_bytes: Largest extended (pax or GNU) header of a tar member.
        decode_seconds: Longest decode of one member, on the wall clock; the time for which a busy
            machine has no core for it does not count.
        decode_bytes: Most memory that the decoding process may map beyond its start.
    """

    member_bytes: int = 512 * MIB
    frame_pixels: int = 100_000_000
    frames: int = 64
    header_bytes: int = 64 * MIB
    sequence_depth: int = 32
    archive_expansion: int = 20
    archive_bytes: int = 2048 * GIB
    members: int = 5_000_000
    name_bytes: int = 4096
    tar_header_bytes: int = MIB
    decode_seconds: int = 30
    decode_bytes: int = 4 * GIB

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"Limits.{field.name} is {value!r}; a whole number >= 1 is expected."
                )
