"""From a package and a few labelled radiographs to a package that knows their implants, too.

Letters: N images.
"""

import shlex
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from implant_model import __version__
from implant_model.errors import UsageError
from implant_model.limits import Limits
from implant_model.networks.build import Ensemble
from implant_model.networks.spec import NetworkSpec
from implant_model.networks.weights import load_networks, weights_bytes
from implant_model.novelty import NoveltyReference
from implant_model.package.catalogue import Catalogue
from implant_model.package.load import ModelPackage, load_package
from implant_model.package.manifest import Calibration, check_name
from implant_model.package.save import save_package
from jobs.auditing.package_facts import facts_of
from jobs.entry.command import DISCLAIMER, INCOMPLETE, OK
from jobs.entry.folder import checked_folder
from jobs.entry.ticker import ticking, waiting
from jobs.evaluating.examination import duplicate_bits, labels_of
from training.config import TrainConfig, load_config
from training.data.duplicates import near_groups
from training.data.gather import Gathered, gather, list_images
from training.data.labelled import num_missing, reason_counts
from training.data.labels import read_table
from training.data.set_columns import digest_values
from training.data.split import join_groups
from training.data.trained_on import KEY, Digests, pack_digests, record_of
from training.enrolment.embedded import Embedded, embed, logs_of
from training.enrolment.enrolled_card import (
    EnrolledFacts,
    enrolled_figures,
    promise_words,
    summary,
    write_enrolled_card,
)
from training.enrolment.promises import Judged, Promises, fewest, make_promises
from training.enrolment.prototypes import Enrolment, enrol_implants

MIN_EACH: Final = 5
MIN_GROUPS: Final = 2
SUFFIX: Final = "-enrolled"
MAX_NAME: Final = 64


@dataclass(frozen=True)
class FewImages:
    """The images, by what they are for.

    Attributes:
        held: As they were read.
        catalogue: Known implants, and the new ones behind.
        labels_N: Implant of each image.
        groups_N: Images of one patient, or near duplicates, have one number.
        new_N: Whether an image shows a new implant.
        known_N: Whether it shows a known one and the networks did not learn from it.
        num_learned: Images that were left out, since they did.
        is_record_kept: Whether the package names what its networks learned from.
    """

    held: Gathered
    catalogue: Catalogue
    labels_N: NDArray[np.int64]
    groups_N: NDArray[np.int64]
    new_N: NDArray[np.bool_]
    known_N: NDArray[np.bool_]
    num_learned: int
    is_record_kept: bool


def enrol(call: Namespace, words: Sequence[str]) -> int:
    """Make a package with new implants, of `jobs.enrol`.

    Args:
        call: The command line, parsed.
        words: As it was given, for the card.

    Returns:
        The exit code.

    Raises:
        UsageError: The call is wrong, or the images are not what is needed.
        PackageError: The package is missing or damaged.
    """
    output = _free_folder(call.output)
    if call.name is not None:
        check_name(call.name)
    config = _descriptions(call.config)
    package = load_package(call.model, weights=False)
    labels = None if call.labels is None else read_table(call.labels, "--labels")
    objects = list_images(call.images, () if labels is None else (labels.uri,))
    with tempfile.TemporaryDirectory() as cache:
        with ticking("Images read") as tick:
            held = gather(objects, labels, package.preprocessing, Limits(), cache, tick)
        images = sort_images(package, held, config)
        made, promises = _make(call, words, output, package, images)
    _print(package, made, images, promises, output)
    return INCOMPLETE if num_missing(held) else OK


def _free_folder(text: str) -> Path:
    folder = checked_folder(text, "--output")
    if folder.exists():
        raise UsageError(f"--output {folder} is there already; choose another folder.")
    return folder


def _descriptions(path: str | None) -> TrainConfig:
    config = load_config(path)
    if replace(config, implants={}) != TrainConfig():
        raise UsageError(
            f"--config {path} holds other settings than tables implants.LABEL; none is used here. "
            "Leave them out."
        )
    return config


def sort_images(package: ModelPackage, held: Gathered, config: TrainConfig) -> FewImages:
    """Tell new implants from known ones, and refuse what cannot be enrolled.

    Args:
        package: That they are added to.
        held: The images.
        config: Descriptions of the new implants.

    Raises:
        UsageError: No new label, too few images of one, or a picture with two labels.
    """
    known_N = labels_of(package.catalogue, held.labels)
    names = tuple(sorted({held.labels[at] for at in np.flatnonzero(known_N < 0).tolist()}))
    if not names:
        raise UsageError(
            f"No label is new to {package.id}: {len(held.labels):,} images were read, with the "
            f"labels {', '.join(sorted({*held.labels})[:8]) or 'none'} "
            f"({reason_counts(held) or 'none was left out'})."
        )
    described = config.catalogue(names)
    catalogue = Catalogue((*package.catalogue.implants, *described.implants))
    labels_N = labels_of(catalogue, held.labels)
    pictures_N = near_groups(held.hashes_NB, duplicate_bits(package))
    record = record_of(package)
    learned_N = (record or Digests()).hold(digest_values(held.digests))
    images = FewImages(
        held,
        catalogue,
        labels_N,
        join_groups(held.patients_N, pictures_N),
        (known_N < 0) & ~learned_N,
        (known_N >= 0) & ~learned_N,
        int(learned_N.sum()),
        record is not None,
    )
    _check_one_label(images, pictures_N)
    _check_enough(images, pictures_N, len(package.catalogue))
    return images


def _check_one_label(images: FewImages, pictures_N: NDArray[np.int64]) -> None:
    """Refuse a picture, or its near duplicate, with a new label and another one."""
    first: dict[int, int] = {}
    for at in np.argsort(~images.new_N, kind="stable").tolist():  # new implants come first
        picture, label = int(pictures_N[at]), int(images.labels_N[at])
        other = first.setdefault(picture, label)
        if other != label and images.new_N[pictures_N == picture].any():
            names = images.catalogue.names
            raise UsageError(
                f"A picture has the labels {names[other]!r} and {names[label]!r}, in one file or "
                "in two that are near duplicates; leave the one that is right."
            )


def _check_enough(images: FewImages, pictures_N: NDArray[np.int64], num_known: int) -> None:
    for label in range(num_known, len(images.catalogue)):
        mine_N = images.new_N & (images.labels_N == label)
        count = len(np.unique(pictures_N[mine_N]))
        owners = len(np.unique(images.groups_N[mine_N]))
        if count < MIN_EACH or owners < MIN_GROUPS:
            raise UsageError(
                f"Of {images.catalogue.names[label]!r} there are {count} different readable "
                f"radiographs of {owners} patients or more; {MIN_EACH} of at least {MIN_GROUPS} "
                f"patients are needed ({reason_counts(images.held) or 'none was left out'}, "
                f"{images.num_learned} known to the package)."
            )


def _make(
    call: Namespace, words: Sequence[str], output: Path, package: ModelPackage, images: FewImages
) -> tuple[ModelPackage, Promises]:
    networks = load_networks(package.networks, len(package.catalogue), package.files)
    with waiting("Embeddings are computed"):
        new, known = (_embedded(networks, images, part) for part in (images.new_N, images.known_N))
    enrolment = enrol_images(package, networks, new, known)
    judged = Judged(enrolment.logs_NC, new.labels_N, new.groups_N, enrolment.novelty_N)
    files = _weights(package, networks)
    contents = {spec.file: data for spec, data in files.items()}
    shipped = load_networks(package.networks, len(images.catalogue), contents)
    others = judge(shipped, enrolment.reference, known)
    promises = make_promises(package, judged, others, enrolment.drawn_logs_PC)
    facts = EnrolledFacts(
        package,
        _name(call.name, package),
        images.catalogue,
        Counter(new.labels_N.tolist()),
        promises,
        enrolled_figures(package, images.catalogue, promises, judged, others),
        images.num_learned,
        images.is_record_kept,
        shlex.join(["python", "-m", "jobs.enrol", *words]),
    )
    made = save_package(
        output,
        name=facts.name,
        catalogue=images.catalogue,
        preprocessing=package.preprocessing,
        networks=files,
        calibration=Calibration(
            package.temperature,
            max(promise.quantile for promise in promises.implants),
            package.coverage,
            tuple(promise.quantile for promise in promises.implants),
        ),
        novelty=enrolment.reference,
        novelty_threshold=promises.threshold,
        known_pass_rate=package.novelty.known_pass_rate,
        metrics=facts.metrics(),
        provenance=_provenance(package, images, facts),
        card=write_enrolled_card(facts),
        decode_version=package.manifest.decode_version,
    )
    return made, promises


def _embedded(networks: Ensemble, images: FewImages, part_N: NDArray[np.bool_]) -> Embedded:
    positions_N = np.flatnonzero(part_N)
    return Embedded(
        embed(networks, images.held.images, positions_N),
        images.labels_N[positions_N],
        images.groups_N[positions_N],
    )


def enrol_images(
    package: ModelPackage, networks: Ensemble, new: Embedded, known: Embedded
) -> Enrolment:
    """Give a package's networks rows for new implants; they are changed in place.

    Args:
        package: Whose they are.
        networks: With heads for its implants.
        new: Images of new implants.
        known: Of known ones, which the networks did not learn from; may be none.
    """
    return enrol_implants(
        networks,
        package.novelty_reference(),
        package.temperature,
        new,
        known.at(has_enough(known, package.coverage)),
        measured_accuracy(package),
    )


def has_enough(images: Embedded, coverage: float) -> NDArray[np.bool_]:
    """Return which images are of implants that have as many groups as a quantile takes."""
    counts = {
        label: len(np.unique(images.groups_N[images.labels_N == label]))
        for label in np.unique(images.labels_N).tolist()
    }
    enough = [label for label, count in counts.items() if count >= fewest(coverage)]
    return np.asarray(np.isin(images.labels_N, enough), np.bool_)


def measured_accuracy(package: ModelPackage) -> float | None:
    """Return the measured share of images whose best candidate is right; None if nobody did."""
    facts = facts_of(package)
    return facts.accuracy if facts.num_measured else None


def judge(networks: Ensemble, reference: NoveltyReference, images: Embedded) -> Judged:
    """Return what a package's final networks and reference say of images."""
    if not len(images.labels_N):
        nothing_NC = np.zeros((0, len(reference.centres_CF)))
        return Judged(nothing_NC, images.labels_N, images.groups_N, np.zeros(0))
    novelty_N = reference.score(images.features_NF).astype(np.float64)
    return Judged(logs_of(networks, images), images.labels_N, images.groups_N, novelty_N)


def _weights(package: ModelPackage, networks: Ensemble) -> dict[NetworkSpec, bytes]:
    """Return the files of all networks; a segmenter's is the package's own."""
    classifiers = iter(networks.members)
    return {
        spec: package.files[spec.file]
        if spec.role == "segmenter"
        else weights_bytes(next(classifiers))
        for spec in package.networks
    }


def _name(given: str | None, package: ModelPackage) -> str:
    if given is not None:
        return given
    return package.name.removesuffix(SUFFIX)[: MAX_NAME - len(SUFFIX)] + SUFFIX


def _provenance(
    package: ModelPackage, images: FewImages, facts: EnrolledFacts
) -> dict[str, object]:
    """Return the base package's provenance, with what was added to it."""
    new_N = digest_values(images.held.digests)[images.new_N]
    record = record_of(package)
    return {
        **package.provenance,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": __version__,
        "command": facts.command,
        **({} if record is None else {KEY: pack_digests(record.with_values(new_N))}),
        "enrolled": facts.provenance(),
    }


def _print(
    package: ModelPackage,
    made: ModelPackage,
    images: FewImages,
    promises: Promises,
    output: Path,
) -> None:
    counts = Counter(images.labels_N[images.new_N | images.known_N].tolist())
    for label, name in enumerate(images.catalogue.names):
        kind = "known" if label < len(package.catalogue) else "new"
        promise = promise_words(promises.implants[label], package.coverage)
        print(f"  {name:<40} {kind:<5} {counts[label]:>4}  {promise}")
    for sentence in summary(package, promises, images.num_learned):
        print(sentence)
    left_out = reason_counts(images.held)
    if left_out:
        print(f"Left out: {left_out}.")
    print(f"{output}: {made.id}\n{DISCLAIMER}")
