r"""Measures how well a packaged model does on labelled radiographs.

    python -m jobs.evaluate --model models/phantom --images archives/ --labels labels.csv \
        --report evaluation/
    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python -m jobs.evaluate --model s3://models/hips --images s3://registry/held-out \
        --labels s3://registry/held-out.csv --report /shared/evaluation --against models/old

Writes DIR/evaluation.json, DIR/evaluation.html (the same figures for people, in one file) and
DIR/excluded.csv (what could not be used, and why; it holds members' names, the others do not).
--labels is a file as for jobs.train; without it, each image's folder is its label. Labels that the
model's catalogue lacks measure how it meets unknown implants. --against compares with another
package, or with a reader's answers in a table of archive, member and label.
Runs on one machine, on CPU or --device cuda, with all prepared images in memory: for some ten
thousand of them. Exit codes: 0 done; 2 the call is wrong; 3 done, without labelled images that
could not be read.
"""

import math
import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from implant_model.classifier import Classifier
from implant_model.errors import UsageError
from implant_model.limits import Limits
from implant_model.package.load import load_package
from jobs.entry.command import DISCLAIMER, INCOMPLETE, OK, Parser, run_command
from jobs.entry.folder import make_folder
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    call = parse(arguments)
    folder = make_folder(call.report)
    classifier = Classifier(load_package(call.model, weights=False), usable_device(call.device))
    labels = None if call.labels is None else read_table(call.labels, "--labels")
    opponent = None if call.against is None else read_opponent(call.against, call.device)
    answers = None if opponent is None else opponent.answers
    tables = [table.uri for table in (labels, answers) if table is not None]
    objects = list_images(call.images, tables)
    read = partial(gather, objects, labels, limits=Limits())
    held = read(classifier.package.preprocessing)
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


def parse(arguments: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser("evaluate", __doc__)
    parser.add_argument("--model", required=True, metavar="URI", help="a model package")
    parser.add_argument("--images", nargs="+", required=True, metavar="URI")
    parser.add_argument("--labels", metavar="FILE", help="archive, member, label, patient")
    parser.add_argument("--report", required=True, metavar="DIR", help="where to write")
    parser.add_argument("--data", metavar="NAME", help="what to call the images in the report")
    parser.add_argument("--against", metavar="URI", help="another package, or a reader's table")
    parser.add_argument("--pictures", action="store_true", help="show the worst mistakes' images")
    parser.add_argument(
        "--robustness", type=int, default=500, metavar="N", help="on so many images"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    call = parser.parse_args(arguments)
    call.images = tuple(call.images)
    if call.robustness < 0:
        raise UsageError(f"--robustness is {call.robustness}; 0 or more images are accepted.")
    return call


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
        if not math.isnan(found.figures[name].value):
            print(f"  {name:<20} {found.figures[name]}, {found.figures[name].count:,} images")
    if found.paired is not None:
        print(f"  against {found.opponent}: McNemar's exact p = {found.paired.p_value:.2g}")
    for label, count in data.outside.items():
        print(f"Outside the catalogue: {label!r}, {count:,} images")
    if data.missing:
        print(f"Labelled, but not to be read: {data.missing:,} images, see excluded.csv")
    print(f"Report: {folder / 'evaluation.html'}\n{DISCLAIMER}")


if __name__ == "__main__":
    run_command("evaluate", lambda: main(sys.argv[1:]))
