"""RLE frames: the fast reader and the one that tells what is wrong say the same."""

import numpy as np
import pytest

from implant_model.decode.frames import decode_planes, decode_rle
from implant_model.errors import MemberError, Reason


def frame_of(values: np.ndarray) -> bytes:
    """Samples of shape (samples, pixels) as an RLE frame of byte planes, all of them literal."""
    planes = [
        (values.astype(f">u{values.itemsize}").view(np.uint8).reshape(len(values), -1))[
            sample, byte :: values.itemsize
        ].tobytes()
        for sample in range(len(values))
        for byte in range(values.itemsize)
    ]
    segments = [
        b"".join(
            bytes([len(part) - 1]) + part
            for part in (plane[at : at + 128] for at in range(0, len(plane), 128))
        )
        for plane in planes
    ]
    starts = np.cumsum([64, *map(len, segments)])[: len(segments)]
    header = np.zeros(16, "<u4")
    header[0], header[1 : 1 + len(segments)] = len(segments), starts
    return header.tobytes() + b"".join(segments)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32])
def test_both_readers_give_the_stored_samples(samples: int, kind: type[np.unsignedinteger]) -> None:
    if samples == 3 and kind is np.uint32:
        pytest.skip("12 byte planes of 32-bit colour are refused before any decode")
    rng = np.random.default_rng(3)
    values = rng.integers(0, np.iinfo(kind).max, (samples, 640), kind, endpoint=True)
    frame = frame_of(values)
    np.testing.assert_array_equal(decode_rle(frame, 640, samples, values.itemsize), values)
    planes = decode_planes(frame, 640, samples * values.itemsize)
    assert planes[0].tolist() == (values[0] >> kind(8 * values.itemsize - 8)).tolist()


def test_a_segment_that_goes_on_behind_its_plane_is_cut() -> None:
    values = np.arange(256, dtype=np.uint8)[None]
    frame = frame_of(values) + b"\xff\x07" * 9
    np.testing.assert_array_equal(decode_rle(frame, 256, 1, 1), values)


def test_a_frame_of_other_planes_or_of_less_is_refused() -> None:
    frame = frame_of(np.arange(256, dtype=np.uint8)[None])
    with pytest.raises(MemberError) as error:
        decode_rle(frame, 256, 3, 1)
    assert error.value.reason is Reason.CORRUPT
    with pytest.raises(MemberError) as error:
        decode_rle(frame[:-9], 256, 1, 1)
    assert error.value.reason is Reason.TRUNCATED
