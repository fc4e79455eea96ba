"""Explanations in turn: each file is opened once, the model loaded once."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from implant_model import storage
from implant_model.archives.members import Member
from implant_model.archives.read import read_members
from implant_model.classifier import Classifier
from implant_model.decode.decoded import Prepared, prepare_member
from implant_model.decode.sandbox import DecodeProcess
from implant_model.errors import ArchiveError, MemberError, NotFoundError, Reason, UsageError
from implant_model.identification import read_radiograph
from implant_model.limits import Limits
from implant_model.package.catalogue import Implant
from implant_model.package.load import ModelPackage
from implant_model.predictions import Predictions
from implant_model.saliency import explain
from jobs.entry.command import DISCLAIMER, INCOMPLETE, OK
from jobs.entry.folder import checked_folder
from jobs.entry.ticker import waiting
from jobs.explaining.targets import Target, by_file
from jobs.pages import wording
from jobs.pages.page import plain
from jobs.pages.saliency_picture import checked_path, explanation_picture, write_picture

SHOWN = 3


def explain_all(call: Namespace, targets: Sequence[Target], package: ModelPackage) -> int:
    """Explain what the command line names.

    Args:
        call: Of `jobs.explain`.
        targets: What it names.
        package: The model.

    Returns:
        The exit code.

    Raises:
        UsageError: The call is wrong, or a radiograph is not there.
        MemberError: The one radiograph that was named is rejected.
    """
    is_one = len(targets) == 1 and not call.table
    places = choose_places(targets, call.output, is_one=is_one)
    with waiting("Loading the networks"):
        classifier = Classifier(package)
    num_rejected = 0
    for target, prepared in read_all(targets, classifier.package):
        if not is_one:
            print(f"{target.number}.", end=" ")
        if prepared.image is None:
            if is_one:
                raise rejected(prepared.reason)
            num_rejected += 1
            print(rejected(prepared.reason), flush=True)
            continue
        draw(classifier, prepared.image, places[target.number])
    print(DISCLAIMER)
    return INCOMPLETE if num_rejected else OK


def choose_places(
    targets: Sequence[Target], output: str | None, *, is_one: bool
) -> dict[int, Path]:
    """Return the picture of each target, by its number.

    Raises:
        UsageError: It cannot be written, or something else is there.
    """
    if is_one:
        return {1: checked_path(output or "explanation.png")}
    folder = checked_folder(output or "explanations", "--output")
    places = {t.number: folder / f"{t.number}.png" for t in targets}
    for place in places.values():
        if place.exists():
            checked_path(str(place))
    return places


def read_all(targets: Sequence[Target], package: ModelPackage) -> Iterator[tuple[Target, Prepared]]:
    """Yield each radiograph, prepared, file by file.

    Raises:
        UsageError: A file is not there, holds several radiographs, or has no such member.
        ArchiveError: It cannot be read up to the member.
        StorageError: It cannot be read.
    """
    with DecodeProcess(package.preprocessing, Limits()) as decoder:
        for uri, wanted in by_file(targets):
            members = {target.member for target in wanted}
            for index, member in _members(uri, members, wanted[0].number):
                prepared = prepare_member(member, decoder.prepare)
                yield from ((target, prepared) for target in wanted if target.member == index)


def _members(uri: str, wanted: set[int | None], number: int) -> Iterator[tuple[int | None, Member]]:
    """Yield the wanted members of a file; None stands for its only one."""
    if None in wanted:
        yield None, read_radiograph(uri, "IMAGE")
    left = {index for index in wanted if index is not None}
    if not left:
        return
    try:
        info = storage.stat(uri)
    except NotFoundError as error:
        raise UsageError(f"The archive of No. {number} cannot be read: {error}") from error
    count = 0
    with storage.open_object(info) as reader:
        try:
            for member in read_members(reader, uri.rpartition("/")[2], Limits()):
                count += 1
                if member.index in left:
                    left.remove(member.index)
                    yield member.index, member
                if not left:
                    return
        except ArchiveError:
            if not left:
                return
            raise
    raise UsageError(
        f"The archive of No. {number} has {count:,} members, from 0; {min(left)} is none of them."
    )


def draw(classifier: Classifier, image_HW: np.ndarray, output: Path) -> None:
    """Print what the model sees on one radiograph, and draw where."""
    package = classifier.package
    with waiting("Naming the radiograph"):
        predictions = classifier.classify(image_HW[None])
    best = int(predictions.probabilities_NC[0].argmax())
    title, lines = describe(package, predictions)
    name = plain(package.catalogue[best].name)
    with waiting("Looking where the networks look"):
        shown = explain(classifier, image_HW, best)
    picture = explanation_picture(shown, title, lines, name)
    write_picture(output, picture)
    print("\n".join([title, *lines, f"Picture: {output}"]), flush=True)


def rejected(reason: Reason | None) -> MemberError:
    """Return the reason as one sentence, without the file's name."""
    known = Reason.CORRUPT if reason is None else reason
    why = wording.REASONS[known]
    return MemberError(known, f"The image is rejected as {known}: {why[:1].lower()}{why[1:]}")


def describe(package: ModelPackage, predictions: Predictions) -> tuple[str, list[str]]:
    """Return title and lines for people: outcome, the best three and all candidates, novelty."""
    outcome, candidates = predictions.outcomes[0], predictions.candidates[0]
    probabilities_C, novelty = predictions.probabilities_NC[0], float(predictions.novelty_N[0])
    ranked = [int(index) for index in np.argsort(-probabilities_C, kind="stable")]
    lines = [f"{wording.OUTCOMES[outcome]} Model {package.id}."]
    for index in ranked[: max(SHOWN, len(candidates))]:
        mark = "candidate" if index in candidates else "no candidate"
        lines.append(f"{probabilities_C[index]:.3f}  {name_of(package.catalogue[index])}, {mark}")
    scale = package.novelty
    lines.append(
        f"{wording.novelty_sentence(novelty, scale.threshold, scale.known_pass_rate)} Candidates "
        f"are made to hold the right implant in {100 * package.coverage:.0f} % of radiographs like "
        "those that the model was calibrated on."
    )
    return f"Outcome: {outcome}", lines


def name_of(implant: Implant) -> str:
    """Return an implant with its maker and what the catalogue notes of it."""
    product = f" {implant.product}" if implant.product else ""
    note = f"; MR: {implant.mr_safety} ({implant.mr_safety_source})" if implant.mr_safety else ""
    return plain(f"{implant.name} ({implant.manufacturer}{product}{note})")
