"""Figures, provenance and card of a training, and the package that they go into."""

import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from implant_model import __version__
from implant_model.calibration import CandidateSets
from implant_model.decode.preprocess import Preprocessing
from implant_model.package.load import ModelPackage
from implant_model.package.manifest import Calibration
from implant_model.package.save import save_package
from training.applied_card import write_applied_card
from training.calibrate import Measured, pool, reference_part, scored_part
from training.card import CardFacts, write_card
from training.config import TrainConfig
from training.data.divide import Division
from training.data.labelled import LabelledSet, as_numbers, as_size
from training.data.shortcuts import MAX_PROBED, ShortcutReport, probe_shortcuts
from training.data.split import Split
from training.data.trained_on import KEY, MAX_RECORDED, Digests, all_learned, pack_digests
from training.first_weights import weights_digest, weights_path
from training.fit.fitting import Fitted, Workplace, class_counts
from training.masks.mask_set import MaskSet
from training.masks.overlap import overlap_figures, pool_overlaps
from training.metrics import Figure, evaluate, share

Figures = dict[str, Figure]
MIN_CONTROL = 0.5
"""A subset of one stored size is a control where it is at least this share of the test images."""


def measured_parts(shipped: Fitted, folds: Sequence[Fitted]) -> Measured:
    """Return what the figures rest on: the folds' test parts together, or the one test part."""
    return pool([fold.measured for fold in folds]) if folds else shipped.measured


def figures_of(labelled: LabelledSet, division: Division, measured: Measured) -> Figures:
    """Return all figures of a test set, the share of known implants called unknown among them."""
    indices_N = measured.indices_N
    groups_N = division.groups_N[indices_N]
    figures = evaluate(
        labelled.labels_N[indices_N],
        measured.probabilities_NK,
        measured.candidates,
        groups_N,
        labelled.names,
    )
    figures["flagged"] = share(measured.flagged_N, groups_N)
    return figures


def segmenter_figures(division: Division, shipped: Fitted, folds: Sequence[Fitted]) -> Figures:
    """Return mean Dice and IoU of the segmenter on the test parts; empty without a segmenter."""
    parts = [part.overlaps for part in (folds or [shipped]) if part.overlaps is not None]
    return overlap_figures(pool_overlaps(parts), division.groups_N) if parts else {}


def subset(measured: Measured, chosen_N: NDArray[np.bool_]) -> Measured:
    """Return the rows of a measurement that are chosen."""
    return Measured(
        measured.indices_N[chosen_N],
        measured.probabilities_NK[chosen_N],
        CandidateSets.of(measured.candidates[at] for at in np.flatnonzero(chosen_N).tolist()),
        measured.novelty_N[chosen_N],
        measured.flagged_N[chosen_N],
    )


def size_control(
    labelled: LabelledSet, division: Division, measured: Measured
) -> dict[str, Figures]:
    """Figures on the images of the commonest stored size, which size cannot help, and the others.

    A class that does much better among the others than among the first is recognised by its size.

    Returns:
        By description; empty where all images have one size, or no size is common.
    """
    size_N = as_numbers(labelled.sizes_N2[measured.indices_N])
    sizes, counts = np.unique(size_N, return_counts=True)
    commonest = int(counts.argmax())
    if not MIN_CONTROL <= counts[commonest] / len(size_N) < 1:
        return {}
    rows, columns = as_size(sizes[commonest])
    common_N = size_N == sizes[commonest]
    return {
        f"only images stored as {rows} x {columns}": figures_of(
            labelled, division, subset(measured, common_N)
        ),
        "only images stored in any other size": figures_of(
            labelled, division, subset(measured, ~common_N)
        ),
    }


@dataclass(frozen=True)
class Training:
    """A training that has ended, with all that its package and its card are made of.

    Attributes:
        config: Its settings.
        preprocessing: As it goes into the package.
        labelled: The set.
        division: Its splits.
        shipped: The networks that are packaged, calibrated.
        folds: Those of the cross-validation; empty where a test part was held out.
        place: Where it ran.
        command: The call, for the card.
        masks: Of the segmenter, where there is one.
        before: What the first weights learned from, see `trained_on.learned_before`.
        cues: What file facts give away; measured when the package is made if None.
    """

    config: TrainConfig
    preprocessing: Preprocessing
    labelled: LabelledSet
    division: Division
    shipped: Fitted
    folds: Sequence[Fitted]
    place: Workplace
    command: Sequence[str]
    masks: MaskSet | None = None
    before: Digests | None = field(default_factory=Digests)
    cues: ShortcutReport | None = None


def make_package(folder: Path, training: Training) -> tuple[ModelPackage, Figures]:
    """Measure, write the card and save the package; return it with its figures."""
    config, labelled, division = training.config, training.labelled, training.division
    shipped, folds = training.shipped, training.folds
    measured = measured_parts(shipped, folds)
    figures = figures_of(labelled, division, measured)
    figures.update(segmenter_figures(division, shipped, folds))
    controls = size_control(labelled, division, measured)
    catalogue = config.catalogue(labelled.names)
    learned = all_learned(labelled, division.shipped.train_N, training.before)
    measured_on = describe_measurement(config, division, measured, bool(folds))
    facts = CardFacts(
        counts=class_counts(labelled, division.shipped),
        undrawn=num_undrawn(labelled, division.shipped),
        figures=figures,
        controls=controls,
        measured_on=measured_on,
        cues=training.cues
        or probe_shortcuts(
            labelled.cues(), labelled.sizes_N2, labelled.labels_N, division.groups_N
        ),
        groups=len(np.unique(division.groups_N)),
        duplicates=division.duplicates,
        patients_known=int((labelled.patients_N >= 0).sum()),
        excluded=labelled.excluded,
        masks=None if training.masks is None else training.masks.counts(division.shipped.train_N),
        command=shlex.join(training.command),
        environment=environment(training.place),
        start_known=training.before is not None,
        samples=tuple(describe_samples(training, measured, learned)),
    )
    package = save_package(
        folder,
        name=config.name,
        catalogue=catalogue,
        preprocessing=training.preprocessing,
        networks=shipped.networks,
        calibration=Calibration(
            shipped.calibrated.temperature,
            shipped.calibrated.quantile,
            config.calibration.coverage,
            shipped.calibrated.own_quantiles,
        ),
        novelty=shipped.calibrated.reference,
        novelty_threshold=shipped.calibrated.threshold,
        known_pass_rate=config.calibration.known_pass,
        metrics=_metrics(measured_on, figures, controls),
        provenance=_provenance(config, labelled, facts, learned),
        card=write_card(config, catalogue, facts),
    )
    write_applied_card(folder, package)
    return package, figures


def describe_measurement(
    config: TrainConfig, division: Division, measured: Measured, folded: bool
) -> str:
    """Return one sentence that names the data and the design of the measurement."""
    data = "Synthetic phantoms" if config.card.synthetic else "The data named above"
    count = len(measured.indices_N)
    parts = "one part tests, one calibrates and the others train"
    if config.calibration.folds:
        parts = "one part tests, the others train and calibrate"
    if not folded:
        return (
            f"{data}: {count} held-out images, grouped by patient and near duplicate, stratified "
            "by class, measured on the very network that is shipped."
        )
    return (
        f"{data}: {count} images by grouped stratified {len(division.folds)}-fold "
        f"cross-validation; in each fold {parts}. The "
        f"network that is shipped trained on {len(division.shipped.train_N)} images by the same "
        "recipe and has no test set of its own."
    )


def describe_samples(
    training: Training, measured: Measured, learned: Digests | None
) -> Iterator[str]:
    """Yield a sentence on each figure or record that a set is too large for as a whole."""
    labelled, division = training.labelled, training.division
    splits, shipped = division.folds or (division.shipped,), division.shipped
    train_N, undrawn = shipped.train_N, num_undrawn(labelled, shipped)
    if undrawn:
        yield (
            f"The network was fitted to {len(train_N):,} of the {len(train_N) + undrawn:,} images "
            "of its training part, a lot of each class, drawn at random; the others served nothing."
            + (" The networks of the folds likewise." if division.folds else "")
        )
    if undrawn and training.config.calibration.folds:
        yield (
            "What was drawn calibrates, too: a rare class may have a larger share of it than of "
            "the set."
        )
    if not training.config.calibration.folds:
        whole, count = len(train_N), len(reference_part(labelled.labels_N[train_N]))
        if count < whole:
            yield (
                f"Novelty is measured from the embeddings of {count:,} of the {whole:,} training "
                "images, a lot of each class, drawn at random."
            )
        whole = len(shipped.calibration_N)
        count = len(scored_part(shipped.calibration_N, len(labelled.names)))
        if count < whole:
            yield f"{count:,} of the {whole:,} calibration images were used, drawn at random."
    whole, count = sum(len(split.test_N) for split in splits), len(measured.indices_N)
    if count < whole:
        yield f"Figures are of {count:,} of the {whole:,} test images, drawn at random."
    if len(labelled) > MAX_PROBED:
        yield f"Cues were probed on {MAX_PROBED:,} of {len(labelled):,} images, drawn at random."
    if learned is not None and len(learned) > MAX_RECORDED:
        yield (
            f"What it was trained on is not recorded: more than {MAX_RECORDED:,} files. A training "
            "that starts from it cannot be held against them."
        )


def num_undrawn(labelled: LabelledSet, split: Split) -> int:
    """Return how many images are in no part, since so many could not train; see `divide`."""
    return len(labelled) - len(split.train_N) - len(split.calibration_N) - len(split.test_N)


def environment(place: Workplace) -> str:
    """Return where and with what it was trained, in one sentence."""
    device, (least, most) = "GPU" if place.use_gpu else "CPU", place.workers
    return (
        f"Trained on {f'{least} to ' if least < most else ''}{most} {device} "
        f"worker{'s' if most > 1 else ''} "
        f"with torch {torch.__version__}, Python {platform.python_version()}."
    )


def _first_weights(config: TrainConfig) -> dict[str, object]:
    """Return what the files of first weights were; empty without one."""
    if not config.network.weights:
        return {}
    files = [
        {"file": weights_path(path).name, "sha256": weights_digest(path)}
        for path in config.network.weights
    ]
    return {"first_weights": {"files": files, "origin": config.card.weights}}


def _metrics(
    measured_on: str, figures: Figures, controls: Mapping[str, Figures]
) -> dict[str, object]:
    return {
        "measured_on": measured_on,
        "figures": {name: figure.to_json() for name, figure in figures.items()},
        "controls": {
            description: {name: figure.to_json() for name, figure in subset_figures.items()}
            for description, subset_figures in controls.items()
        },
    }


def _provenance(
    config: TrainConfig, labelled: LabelledSet, facts: CardFacts, learned: Digests | None
) -> dict[str, object]:
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": __version__,
        "environment": facts.environment,
        "command": facts.command,
        "data": {
            "source": config.card.source,
            "licence": config.card.licence,
            "fingerprint": labelled.fingerprint,
            "images": len(labelled),
            "excluded": len(labelled.excluded),
        },
        "settings": config.to_json(),
        **_first_weights(config),
        **({KEY: pack_digests(learned)} if learned and len(learned) <= MAX_RECORDED else {}),
    }
