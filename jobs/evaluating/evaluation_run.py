"""The steps of an evaluation, in order: read, examine, assess, compare, write, summary."""

import math
from argparse import Namespace
from functools import partial
from pathlib import Path

from implant_model.classifier import Classifier
from implant_model.errors import UsageError
from implant_model.limits import Limits
from implant_model.package.load import load_package
from jobs.entry.command import DISCLAIMER, INCOMPLETE, OK
from jobs.entry.folder import checked_folder
from jobs.entry.ticker import ticking
from jobs.evaluating.assessment import assess, assess_classes, reliability
from jobs.evaluating.evaluation import Evaluation
from jobs.evaluating.evaluation_page import EXCLUDED, write_evaluation
from jobs.evaluating.examination import examine, usable_device
from jobs.evaluating.opponent import compare_with, read_opponent
from jobs.evaluating.outcomes import confusion, data_facts, mistakes, poor_scans, usual_name
from training.data.gather import Gathered, gather, list_images
from training.data.labelled import reason_counts, write_excluded
from training.data.labels import read_table

SHOWN = ("top_1", "top_3", "macro_f1", "mean_auroc", "calibration_error", "coverage", "set_size")
NOVELTY = ("called_unknown", "unknown_found", "novelty_auroc")


def evaluate(call: Namespace) -> int:
    """Evaluate as the command line asks.

    Args:
        call: Of `jobs.evaluate`.

    Returns:
        The exit code.

    Raises:
        UsageError: Model, images, labels or opponent are not fit for it.
    """
    folder = checked_folder(call.report)
    classifier = Classifier(load_package(call.model, weights=False), usable_device(call.device))
    labels = None if call.labels is None else read_table(call.labels, "--labels")
    opponent = None if call.against is None else read_opponent(call.against, call.device)
    answers = None if opponent is None else opponent.answers
    tables = [table.uri for table in (labels, answers) if table is not None]
    objects = list_images(call.images, tables)
    read = partial(gather, objects, labels, limits=Limits())
    with ticking("Images read") as tick:
        held = read(classifier.package.preprocessing, tick=tick)
    check_images(held)
    print(f"{len(held.images):,} images read, {len(held.excluded):,} left out", flush=True)
    examined = examine(classifier, held)
    paired = (
        compare_with(opponent, classifier.package, examined, held, objects, read)
        if opponent
        else None
    )
    data = data_facts(call.data or usual_name(call.images), call.images, labels, examined, held)
    wrong, num_wrong = mistakes(classifier, examined, held, pictures=call.pictures)
    found = Evaluation(
        model=classifier.package.id,
        coverage_asked=classifier.package.coverage,
        novelty_threshold=classifier.package.novelty.threshold,
        data=data,
        figures=assess(examined),
        classes=assess_classes(examined),
        reliability=reliability(examined),
        comparison=confusion(examined, held),
        robustness=list(poor_scans(classifier, examined, held, call.robustness)),
        opponent=opponent.name if opponent else None,
        paired=paired,
        mistakes=wrong,
        num_mistakes=num_wrong,
    )
    write_evaluation(folder, found)
    write_excluded(held, folder / EXCLUDED)
    summarise(found, folder)
    return INCOMPLETE if data.missing else OK


def check_images(held: Gathered) -> None:
    """Refuse a set without an image.

    Raises:
        UsageError: No labelled image could be read.
    """
    if not held.images:
        raise UsageError(f"No labelled image could be read ({reason_counts(held)}).")


def summarise(found: Evaluation, folder: Path) -> None:
    """Print the figures, what they rest on, and what is not in them."""
    data = found.data
    print(f"{found.model} on {data.name}: {data.num_images:,} images, {data.num_groups:,} groups")
    for name in (*SHOWN, *NOVELTY):
        if name not in found.trivial and not math.isnan(found.figures[name].value):
            print(f"  {name:<20} {found.figures[name]}, {found.figures[name].count:,} images")
    for weakness in found.weaknesses:
        print(f"Warning: the model is weak on these images. {weakness}")
    if found.paired is not None:
        print(f"  against {found.opponent}: McNemar's exact p = {found.paired.p_value:.2g}")
    for label, count in data.outside.items():
        print(f"Outside the catalogue: {label!r}, {count:,} images")
    if data.missing:
        print(f"Labelled, but not to be read: {data.missing:,} images, see excluded.csv")
    print(f"Report: {folder / 'evaluation.html'}\n{DISCLAIMER}")
