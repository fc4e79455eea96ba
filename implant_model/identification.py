"""One radiograph to one identification, in a notebook: the job's answer by one call."""

import atexit
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from os import PathLike, fspath
from typing import Final

import numpy as np

from implant_model import storage
from implant_model.archives.members import Member
from implant_model.archives.read import read_members
from implant_model.archives.streams import BytesReader, RandomReader
from implant_model.classifier import Classifier
from implant_model.decode.decoded import Header, Prepared, prepare_member
from implant_model.decode.sandbox import DecodeProcess
from implant_model.errors import NotFoundError, Outcome, Reason, UsageError
from implant_model.limits import Limits
from implant_model.package.catalogue import Implant
from implant_model.package.load import ModelPackage, load_package
from implant_model.predictions import TOP, Predictions

_MODELS_KEPT: Final = 2


@dataclass(frozen=True)
class Identification:
    """What a model answers for one radiograph; the columns of the predictions by the same names.

    Attributes:
        outcome: `identified`, `ambiguous`, `unknown`, `rejected` or `ignored`.
        reason: Why it was rejected or ignored; None else, and then all below are None or empty.
        implant: The best candidate, of the model's catalogue.
        probability: Its calibrated probability, 0 to 1.
        candidates: The conformal prediction set by name, best first; may be empty.
        top: The best three with their probabilities, best first.
        novelty: Score for 'not one of the known implants'; higher is stranger.
        header: What the file states of itself, identifiers as they are; not shown by `repr`.
        image_HW: The picture that the networks saw, uint8, bone bright; None where rejected.
    """

    outcome: Outcome
    reason: Reason | None
    implant: Implant | None
    probability: float | None
    candidates: tuple[str, ...]
    top: tuple[tuple[str, float], ...]
    novelty: float | None
    header: Header
    image_HW: np.ndarray | None


def identify(radiograph: str | PathLike[str] | bytes, model: str | PathLike[str]) -> Identification:
    """Name the implant on one radiograph, as `jobs.classify` does.

    The model is loaded by the first call of a process and kept for the next ones.

    Args:
        radiograph: A path, `file://` or `s3://` URI of a DICOM, PNG or JPEG file, or its bytes.
        model: Folder or prefix of a model package.

    Raises:
        UsageError: There is no such file, or it holds several members.
        PackageError: The model is missing, damaged or not understood.
        ArchiveError: The file is an archive that cannot be read.
        StorageError: It cannot be read.
    """
    opened = _opened(storage.normalise(fspath(model)))
    member = read_radiograph(radiograph)
    prepared = opened.prepare(member)
    if prepared.image is None:
        outcome = prepared.outcome or Outcome.REJECTED
        return Identification(
            outcome, prepared.reason, None, None, (), (), None, prepared.header, None
        )
    predictions = opened.classifier.classify(prepared.image[None])
    return _identification(predictions, opened.package, prepared)


def read_radiograph(
    radiograph: str | PathLike[str] | bytes, what: str = "The radiograph"
) -> Member:
    """Read the one member that a file holds, as the main job reads it.

    Args:
        radiograph: A path, a URI or the bytes.
        what: Names it in messages.

    Raises:
        UsageError: It is not there, or holds several members.
        ArchiveError: It is an archive or a compressed file that cannot be read.
        StorageError: It cannot be read.
    """
    if isinstance(radiograph, bytes):
        return _only(BytesReader(radiograph), what)
    try:
        info = storage.stat(storage.normalise(fspath(radiograph)))
    except NotFoundError as error:
        raise UsageError(f"{what} cannot be read: {error}") from error
    with storage.open_object(info) as reader:
        return _only(reader, what)


def _only(reader: RandomReader, what: str) -> Member:
    members = list(islice(read_members(reader, "radiograph", Limits()), 2))
    if len(members) != 1:
        count = "an empty archive" if not members else "an archive of several members"
        raise UsageError(f"{what} is {count}; accepted is one radiograph: unpack it first.")
    return members[0]


class _Opened:
    """A package at work, with a decoding process of its own."""

    def __init__(self, package: ModelPackage) -> None:
        self.package = package
        self.classifier = Classifier(package)
        self._decoder = DecodeProcess(package.preprocessing, Limits())
        atexit.register(self._decoder.close)

    def prepare(self, member: Member) -> Prepared:
        return prepare_member(member, self._decoder.prepare)


@lru_cache(maxsize=_MODELS_KEPT)
def _opened(uri: str) -> _Opened:
    return _Opened(load_package(uri, weights=False))


def _identification(
    predictions: Predictions, package: ModelPackage, prepared: Prepared
) -> Identification:
    probabilities_C = predictions.probabilities_NC[0]
    ranked = [int(index) for index in np.argsort(-probabilities_C, kind="stable")]
    names = package.catalogue.names
    return Identification(
        outcome=predictions.outcomes[0],
        reason=None,
        implant=package.catalogue[ranked[0]],
        probability=float(probabilities_C[ranked[0]]),
        candidates=tuple(names[index] for index in predictions.candidates[0]),
        top=tuple((names[index], float(probabilities_C[index])) for index in ranked[:TOP]),
        novelty=float(predictions.novelty_N[0]),
        header=prepared.header,
        image_HW=prepared.image,
    )
