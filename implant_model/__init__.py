"""Bytes of a radiograph in, identification of the implant out.

    >>> import implant_model
    >>> implant_model.identify("radiograph.dcm", "models/phantom").implant

Knows nothing of Ray, of jobs or of training. For registry audit and research; not a medical device.
Runs on Linux: the decoder's process needs memfd and /proc.
"""

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from implant_model.identification import Identification

__version__ = "0.1.0"


def identify(
    radiograph: str | PathLike[str] | bytes, model: str | PathLike[str]
) -> "Identification":
    """Name the implant on one radiograph, see `implant_model.identification.identify`."""
    from implant_model.identification import identify as answer  # torch takes seconds to import

    return answer(radiograph, model)
