"""The steps of an evaluation, in order: read, examine, compare, measure, write, summary."""

import math
import tempfile
from pathlib import Path

from implant_model.classifier import Classifier
from implant_model.decode.preprocess import Preprocessing
from implant_model.errors import UsageError
from implant_model.limits import Limits
from jobs.entry.command import DISCLAIMER, INCOMPLETE, OK
from jobs.entry.ticker import ticking, waiting
from jobs.evaluating.assessment import (
    Examined,
    UnderDistortion,
    assess,
    assess_classes,
    reliability,
)
from jobs.evaluating.evaluation import Evaluation
from jobs.evaluating.evaluation_call import EvaluationCall
from jobs.evaluating.evaluation_page import EXCLUDED, write_evaluation
from jobs.evaluating.examination import examine, usable_device
from jobs.evaluating.naming import Name, name_fast, name_here
from jobs.evaluating.opponent import compare_with
from jobs.evaluating.outcomes import confusion, data_facts, mistakes, poor_scans, usual_name
from jobs.evaluating.paired import Paired
from jobs.evaluating.robustness import distortions
from jobs.fitting.read_images import read_fast
from training.data.gather import Gathered, Read, gather
from training.data.labelled import reason_counts, write_excluded
from training.data.reading import read_here

SHOWN = ("top_1", "top_3", "macro_f1", "mean_auroc", "calibration_error", "coverage", "set_size")
NOVELTY = ("called_unknown", "unknown_found", "novelty_auroc")


def evaluate(call: EvaluationCall) -> int:
    """Evaluate as the command line asks, see `_evaluate`."""
    if call.cache is not None:
        return _evaluate(call, call.cache, read_fast, name_fast)
    with tempfile.TemporaryDirectory() as cache:
        return _evaluate(call, cache, read_here, name_here)


def _evaluate(call: EvaluationCall, cache: str, read_bundles: Read, name: Name) -> int:
    """Evaluate with prepared images in a cache.

    Args:
        call: Of `jobs.evaluate`, checked.
        cache: Folder or URI.
        read_bundles: Reads what is not there.
        name: Where the images are named, see `naming`.

    Returns:
        The exit code.

    Raises:
        UsageError: The device is not there, the weights do not fit, or no image can be read.
    """
    device = usable_device(call.device)
    with waiting("Loading the networks"):
        classifier = Classifier(call.package, device)
        theirs = call.opponent.package if call.opponent else None
        other = None if theirs is None else Classifier(theirs, device)

    def read(spec: Preprocessing) -> Gathered:
        with ticking("Images read") as tick:
            return gather(call.objects, call.labels, spec, Limits(), cache, tick, read_bundles)

    held = read(classifier.package.preprocessing)
    check_images(held)
    print(f"{len(held.images):,} images read, {len(held.excluded):,} left out", flush=True)
    with waiting("Naming the images"):
        examined = examine(classifier, held, name)
    paired = None
    if call.opponent is not None:
        with waiting(f"Comparing with {call.opponent.name}"):
            paired = compare_with(
                call.opponent, other, call.package, examined, held, call.objects, read, name
            )
    found = measure(call, classifier, examined, held, paired)
    write_evaluation(call.folder, found)
    write_excluded(held, call.folder / EXCLUDED)
    summarise(found, call.folder)
    return INCOMPLETE if found.data.missing else OK


def measure(
    call: EvaluationCall,
    classifier: Classifier,
    examined: Examined,
    held: Gathered,
    paired: Paired | None,
) -> Evaluation:
    """Return all figures of the images that were named."""
    name = call.data or usual_name(call.images)
    with waiting("Drawing the worst mistakes" if call.pictures else "Looking for mistakes"):
        wrong, num_wrong = mistakes(classifier, examined, held, pictures=call.pictures)
    with waiting("Figures with their intervals"):
        figures, classes = assess(examined), assess_classes(examined)
    return Evaluation(
        model=classifier.package.id,
        coverage_asked=classifier.package.coverage,
        novelty_threshold=classifier.package.novelty.threshold,
        data=data_facts(name, call.images, call.labels, call.package, examined, held),
        figures=figures,
        classes=classes,
        reliability=reliability(examined),
        comparison=confusion(examined, held),
        robustness=try_poor_scans(classifier, examined, held, call.robustness),
        opponent=call.opponent.name if call.opponent else None,
        paired=paired,
        mistakes=wrong,
        num_mistakes=num_wrong,
    )


def try_poor_scans(
    classifier: Classifier, examined: Examined, held: Gathered, most: int
) -> list[UnderDistortion]:
    """Return figures on the images as poor scans would show them, kind by kind."""
    found: list[UnderDistortion] = []
    with ticking("Kinds of poor scans tried", 1 + len([*distortions()])) as tick:
        for scan in poor_scans(classifier, examined, held, most):
            found.append(scan)
            tick(len(found))
    return found


def check_images(held: Gathered) -> None:
    """Refuse a set without an image.

    Raises:
        UsageError: No labelled image could be read.
    """
    if not len(held.images):
        raise UsageError(f"No labelled image could be read ({reason_counts(held)}).")


def summarise(found: Evaluation, folder: Path) -> None:
    """Print the figures, what they rest on, and what is not in them."""
    data = found.data
    print(f"{found.model} on {data.name}: {data.num_images:,} images, {data.num_groups:,} groups")
    for name in (*SHOWN, *NOVELTY):
        if name not in found.trivial and not math.isnan(found.figures[name].value):
            print(f"  {name:<20} {found.figures[name]}, {found.figures[name].count:,} images")
    if data.trained_on:
        print(
            f"WARNING: the package was trained on {data.trained_on:,} of these "
            f"{data.num_images:,} images, and its figures on them are too good. Leave them out."
        )
    for weakness in found.weaknesses:
        print(f"Warning: the model is weak on these images. {weakness}")
    if found.paired is not None:
        print(f"  against {found.opponent}: McNemar's exact p = {found.paired.p_value:.2g}")
    for label, count in data.outside.items():
        print(f"Outside the catalogue: {label!r}, {count:,} images")
    if data.missing:
        print(f"Labelled, but not to be read: {data.missing:,} images, see excluded.csv")
    print(f"Report: {folder / 'evaluation.html'}\n{DISCLAIMER}")
