"""The steps of a training, in order: set, division, masks, networks, package, summary."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np

from implant_model.errors import UsageError
from implant_model.limits import Limits
from implant_model.networks.spec import FISHERS
from implant_model.package.load import ModelPackage, load_package
from implant_model.package.references import FILE, MAX_ROWS
from implant_model.package.weakness import weaknesses
from implant_model.storage.local_files import write_whole
from jobs.entry.cluster import place_workers
from jobs.entry.command import INCOMPLETE, OK, shown
from jobs.entry.ticker import ticking, waiting
from jobs.fitting.begun import begun, check_same, fitted_settings
from jobs.fitting.read_images import expect_lost_nodes, read_fast, start_ray_train
from jobs.fitting.training_call import Call
from training.config import TrainConfig
from training.data.divide import Division, check_held_out, check_watched, divide
from training.data.gather import load_set
from training.data.labelled import LabelledSet, num_missing, unread_archives, write_excluded
from training.data.set_columns import HexDigests, digest_values
from training.data.set_report import describe_classes, describe_links, describe_shortcuts
from training.data.shortcuts import ShortcutReport, probe_shortcuts
from training.data.trained_on import learned_before
from training.fisher.fit_fisher import MAX_IMAGES, RECIPE
from training.fit.fitting import NOVELTY_FOLDS, Fitted, Workplace, fetch_pretrained, fit_split
from training.masks.mask_set import MaskSet, gather_masks, write_poor
from training.masks.table_masks import table_masks
from training.packaging import Figures, Training, make_package
from training.reference_pictures import choose, write_references

CLASSES_SAID = 12
"""Lines of classes before the training; the file has all."""
PICTURE_BITS = 36
"""Bits in which two pictures of one of 477 radiographs of shoulders differ, at most."""


def train(call: Call, words: Sequence[str], job: str = "jobs.train") -> int:
    """Train as the command line asks.

    Args:
        call: Of `jobs.train`, checked.
        words: The command line, for the package's provenance.
        job: Whose it is.

    Returns:
        The exit code.

    Raises:
        UsageError: The set is not fit for a training, or not the one that was begun.
    """
    fetch_pretrained(call.config)
    if call.workers.is_elastic:
        expect_lost_nodes()
    with begun(call.work, call.config, call.workers.to_json()):
        return _train(call, [job, *words])


def _train(call: Call, words: Sequence[str]) -> int:
    preprocessing = call.config.pixels
    with ticking("Images read") as tick:
        labelled = load_set(
            call.images, call.labels, preprocessing, Limits(), image_cache(call), tick, read_fast
        )
    check_same(call.work, "images and labels", labelled.fingerprint)
    division = divide_set(labelled, call.config)
    check_fit(call.config, labelled, division)
    before = learned_before(call.config.network.start_from, labelled, division)
    check_gallery(call, labelled)
    call.config.catalogue(labelled.names)  # a fault in it is found before hours of training
    write_excluded(labelled, call.work / "excluded.csv")
    cues = report_set(labelled, division, call.work / "set.txt")
    warn_of_bits(call.config)
    start_ray_train()
    place = workplace(call)
    masks = find_masks(labelled, call)
    if masks is not None:
        check_same(call.work, "masks", masks.digest)
    shipped, folds = fit(labelled, division, call, place, masks)
    command = ["python", "-m", *(word for word in words if word != "--resume")]
    package, figures = make_package(
        call.output,
        Training(
            call.config,
            preprocessing,
            labelled,
            division,
            shipped,
            folds,
            place,
            command,
            masks,
            before,
            cues,
        ),
    )
    add_gallery(call, labelled, division, package)
    summarise(call, labelled, division, package.id, figures)
    return say_missing(labelled)


def divide_set(labelled: LabelledSet, config: TrainConfig) -> Division:
    """Divide the set as the settings ask, its training parts no larger than can be fitted to."""
    most = MAX_IMAGES if config.network.architecture in FISHERS else 0
    return divide(labelled, config.split, calibrate=not config.calibration.folds, most=most)


def check_fit(config: TrainConfig, labelled: LabelledSet, division: Division) -> None:
    """Refuse training parts that the settings cannot be met with, before hours of training."""
    check_watched(labelled, division, config.fit.validation, config.split.seed)
    folds = config.calibration.folds
    numbers = (folds, NOVELTY_FOLDS) if folds else ()
    check_held_out(labelled, division, numbers, config.split.seed)


def check_gallery(call: Call, labelled: LabelledSet) -> None:
    """Refuse more reference radiographs than a package may have, before hours of training."""
    count = call.config.gallery.per_class * len(labelled.names)
    if count > MAX_ROWS:
        raise UsageError(
            f"gallery.per_class asks for {count:,} references of {len(labelled.names)} implants; "
            f"{MAX_ROWS:,} are accepted in all."
        )


def add_gallery(
    call: Call, labelled: LabelledSet, division: Division, package: ModelPackage
) -> None:
    """Put the reference radiographs beside the package that the settings ask for."""
    settings = call.config.gallery
    if not settings.per_class:
        return
    trained_N = division.shipped.train_N
    chosen = choose(
        labelled.labels_N[trained_N],
        labelled.patients_N[trained_N],
        HexDigests(digest_values(labelled.digests)[trained_N]),
        settings.per_class,
    )
    places_R = trained_N[chosen]
    with waiting("The references' embeddings are computed"):
        write_references(
            call.output,
            load_package(str(call.output)),
            labelled.images_NSS[places_R],
            labelled.labels_N[places_R],
            settings.source,
            settings.licence,
        )
    say(f"References: {len(chosen):,} radiographs, in {call.output / FILE}.")


def image_cache(call: Call) -> str:
    """Return the folder of the prepared images."""
    return call.config.data.cache or str(call.work / "images")


def workplace(call: Call) -> Workplace:
    """Return where the trainings run, see `place_workers`."""
    use_gpu = place_workers(call.workers.least, say)
    checkpoints = call.config.fit.checkpoints or str(call.work / "checkpoints")
    return Workplace(call.work, checkpoints, call.workers, use_gpu, say, waiting)


def say(line: str) -> None:
    """Print a line of progress at once."""
    print(line, flush=True)


def report_set(labelled: LabelledSet, division: Division, file: Path) -> ShortcutReport:
    """State and keep what is odd about the set, of many classes those of the fewest groups."""
    cues = probe_shortcuts(labelled.cues(), labelled.sizes_N2, labelled.labels_N, division.groups_N)
    classes = describe_classes(labelled, division)
    cue_lines = [*describe_shortcuts(cues)]
    kept = [*describe_links(labelled, division, named=True), *cue_lines, *classes]
    write_whole(file, ("\n".join(kept) + "\n").encode())
    more = len(classes) - CLASSES_SAID
    rest = [f"  and {more:,} classes more, in {file}"] if more > 0 else []
    links = describe_links(labelled, division, named=False)
    for line in (*links, *cue_lines, *classes[:CLASSES_SAID], *rest):
        say(line)
    return cues


def warn_of_bits(config: TrainConfig) -> None:
    """State that near duplicates among patients' radiographs may be taken for different ones."""
    bits = config.split.duplicate_bits
    if bits < PICTURE_BITS and not config.card.synthetic:
        say(
            f"WARNING: split.duplicate_bits is {bits}, which is for phantoms: pictures of one "
            f"radiograph differ in up to {PICTURE_BITS} bits, and may be on two sides of the "
            "split. Leave it out for radiographs of patients (40), or state card.synthetic."
        )


def find_masks(labelled: LabelledSet, call: Call) -> MaskSet | None:
    """Return the masks that the settings want; None where they want none."""
    settings = call.config.segmenter
    if not call.config.needs_masks:
        if call.labels is not None and call.labels.masks:
            say("Masks of the labels file are not read: segmenter.width is 0, so none is fitted.")
        return None
    table = table_masks(call.labels, settings.masks, call.config.pixels)
    with waiting("Looking for the implants' outlines"):
        masks = gather_masks(labelled, settings.masks, image_cache(call), table)
    folder = call.work / "poor-masks"
    written = write_poor(labelled, masks, folder)
    counts = masks.counts(np.arange(len(labelled)))
    for line in describe_masks(counts, written, folder, has_segmenter=bool(settings.width)):
        say(line)
    if table is not None:
        say(table.summary(masks.of_table))
    if masks.unused:
        say(f"Masks in {settings.masks} that belong to no image: {masks.unused}")
    return masks


def describe_masks(
    counts: tuple[int, int, int], written: int, folder: Path, *, has_segmenter: bool
) -> Iterator[str]:
    """Yield how many masks there are, and what the poor ones mean.

    Args:
        counts: Poor, good and hand-made ones.
        written: Poor ones that lie in the folder, to be corrected.
        folder: See `write_poor`.
        has_segmenter: Whether masks teach a segmenter; else they show how an implant lies.
    """
    poor, good, by_hand = counts
    yield f"Masks: {by_hand:,} given, {good:,} automatic, {poor:,} poor{'.' if poor else ''}"
    if poor:
        use = "the segmenter learns" if has_segmenter else "it is learned how an implant lies"
        yield f"  The poor ones are not used: {use} from the others. None need be corrected."
    if written and has_segmenter:
        yield (
            f"  {written:,} of them are in {folder}; corrected there, and named by segmenter.masks "
            "in another training, they teach its segmenter, too."
        )


def fit(
    labelled: LabelledSet,
    division: Division,
    call: Call,
    place: Workplace,
    masks: MaskSet | None,
) -> tuple[Fitted, list[Fitted]]:
    """Fit the folds' networks, if there are folds, and the one that is shipped."""
    name = training_name(call, labelled.fingerprint if masks is None else masks.digest)
    fit_one = partial(fit_split, labelled, division.groups_N, place=place, masks=masks)
    folds = []
    for number, split in enumerate(division.folds):
        say(f"Fold {number + 1} of {len(division.folds)}: {len(split.train_N)} images")
        folds.append(fit_one(split, call.config, f"{name}-fold-{number}"))
    say(f"The network to ship: {len(division.shipped.train_N)} images")
    return fit_one(division.shipped, call.config, f"{name}-shipped"), folds


def training_name(call: Call, fingerprint: str) -> str:
    """Name a training by all that decides it, so that --resume never mixes two.

    Args:
        call: Of the training.
        fingerprint: Of the set, with its masks where they teach.
    """
    facts = [fingerprint, fitted_settings(call.config), call.workers.to_json()]
    if call.config.network.architecture in FISHERS:
        facts.append(RECIPE)
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def summarise(
    call: Call, labelled: LabelledSet, division: Division, package: str, figures: Figures
) -> None:
    """Print what was made, from what, and how well it did."""
    print(f"{len(labelled):,} images of {len(labelled.names)} classes", end="; ")
    print(f"{len(labelled.excluded):,} left out, listed in {call.work / 'excluded.csv'}")
    parts = f"Test parts of {len(division.folds)} folds" if division.folds else "Test part"
    count = sum(len(split.test_N) for split in division.folds or (division.shipped,))
    print(f"{parts} of {', '.join(call.images)}, {count:,} images; 95 % intervals:")
    for name, figure in figures.items():
        print(f"  {name:<40} {figure}, {figure.count:,} images")
    for weakness in weaknesses({name: figure.to_json() for name, figure in figures.items()}):
        print(f"Warning: the model is weak. {weakness}")
    synthetic = " Its figures are of phantoms: no evidence about patients." * (
        call.config.card.synthetic
    )
    print(f"Package {package} in {call.output}, with its MODEL_CARD.md.{synthetic}")


def say_missing(labelled: LabelledSet) -> int:
    """State what the training went without; return the exit code."""
    missing, unread = num_missing(labelled), unread_archives(labelled)
    if missing:
        print(f"Labelled, but not to be read: {missing:,} images, see excluded.csv")
    if unread:
        print(
            f"Of the archives {len(unread):,} could not be read now, {shown(unread[0])} the first."
        )
    return INCOMPLETE if missing else OK
