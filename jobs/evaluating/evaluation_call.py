"""The command line of an evaluation, with all that can be checked before torch is loaded."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from implant_model import storage
from implant_model.package.load import ModelPackage, load_package
from implant_model.package.manifest import MANIFEST
from implant_model.storage.uri import ObjectInfo
from jobs.entry.folder import checked_folder
from training.data.gather import list_images
from training.data.labels import Labels, read_table


@dataclass(frozen=True)
class Opponent:
    """Who else names the images: one of `package` and `answers` is set.

    Attributes:
        name: For people: the package's id, or the table's file name.
        package: Another package.
        answers: A reader's table.
    """

    name: str
    package: ModelPackage | None = None
    answers: Labels | None = None


@dataclass(frozen=True)
class EvaluationCall:
    """The command line, checked.

    Attributes:
        folder: Of the report; not made yet.
        package: The one that is evaluated.
        images: URIs as they were given.
        objects: What lies there that may hold images, with its path below them.
        labels: Rows of the labels file; None where folders are the classes.
        opponent: Who else names the images, or None.
        data: What to call the images; None for the usual.
        pictures: Whether the worst mistakes are shown.
        robustness: Images that are also looked at as poor scans show them.
        cache: Where prepared images are kept; None where they are not.
        device: cpu or cuda.
    """

    folder: Path
    package: ModelPackage = field(repr=False)
    images: tuple[str, ...]
    objects: Sequence[tuple[ObjectInfo, str]] = field(repr=False)
    labels: Labels | None = field(repr=False)
    opponent: Opponent | None = field(repr=False)
    data: str | None
    pictures: bool
    robustness: int
    cache: str | None
    device: str


def make_call(options: Namespace) -> EvaluationCall:
    """Check the command line, and read package, labels and opponent.

    Args:
        options: Of `jobs.evaluate`.

    Raises:
        UsageError: Model, images, labels, opponent or report are not fit for an evaluation.
    """
    folder = checked_folder(options.report)
    package = load_package(options.model, weights=False)
    labels = None if options.labels is None else read_table(options.labels, "--labels")
    opponent = None if options.against is None else read_opponent(options.against)
    answers = None if opponent is None else opponent.answers
    tables = [table.uri for table in (labels, answers) if table is not None]
    return EvaluationCall(
        folder,
        package,
        options.images,
        list_images(options.images, tables),
        labels,
        opponent,
        options.data,
        options.pictures,
        options.robustness,
        options.cache,
        options.device,
    )


def read_opponent(uri: str) -> Opponent:
    """Read a package, or else a table of archive, member and label.

    Raises:
        UsageError: It is neither.
    """
    if storage.exists(storage.join(storage.normalise(uri), MANIFEST)) is not None:
        package = load_package(uri, weights=False)
        return Opponent(package.id, package=package)
    answers = read_table(uri, "--against")
    return Opponent(answers.uri.rsplit("/", 1)[-1], answers=answers)
