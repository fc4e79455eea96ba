"""What the tests of reading share."""

from collections.abc import Iterator

import pytest

from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.sandbox import DecodeProcess
from implant_model.limits import Limits


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecodeProcess]:
    """A decoder of pictures of 64 x 64."""
    with DecodeProcess(Preprocessing(size_px=64), Limits()) as process:
        yield process
