"""What is odd about a labelled set, said before it is trained on: hours later it is too late.

Classes and their sizes, near duplicates, patients of two classes, and cues that give a class away.
Patients are counted and never named.
"""

from collections.abc import Iterator

import numpy as np

from training.data.divide import Division
from training.data.labelled import LabelledSet, as_numbers, as_size
from training.data.set_columns import digest_values
from training.data.shortcuts import ShortcutReport


def describe_classes(labelled: LabelledSet, division: Division) -> list[str]:
    """A line for each class, the one of fewest groups first: images, groups, stored sizes."""
    lines = []
    for label, name in enumerate(labelled.names):
        at = np.flatnonzero(labelled.labels_N == label)
        groups = len(np.unique(division.groups_N[at]))
        sizes, first, counts = np.unique(
            as_numbers(labelled.sizes_N2[at]), return_index=True, return_counts=True
        )
        commonest = np.lexsort((first, -counts))[0]  # of as many, the one that comes first
        (rows, columns), often = as_size(sizes[commonest]), int(counts[commonest])
        line = (
            f"  {name}: {len(at):,} images in {groups:,} groups; {rows} x {columns} in {often:,}, "
            f"{len(sizes) - 1:,} other sizes"
        )
        lines.append((groups, len(at), line))
    return [line for _, _, line in sorted(lines)]


def describe_links(labelled: LabelledSet, division: Division, named: bool) -> list[str]:
    """Return what the groups are made of, and how many of them hold two classes.

    Args:
        labelled: The set.
        division: Its groups.
        named: Give an example by its names: for a file, not for a log.
    """
    patients_N = labelled.patients_N
    known_N = patients_N >= 0
    groups = len(np.unique(division.groups_N))
    lines = [
        f"{len(labelled):,} images of {len(labelled.names):,} classes in {groups:,} groups of "
        f"patients and near duplicates; of {int(known_N.sum()):,} the patient is known.",
        f"Near duplicates of an earlier image: {division.duplicates:,}",
    ]
    for title, keys_N, chosen_N in (
        ("Patients", patients_N, known_N),
        ("Groups", division.groups_N, np.ones(len(labelled), dtype=bool)),
    ):
        mixed = _of_two_classes(keys_N[chosen_N], labelled.labels_N[chosen_N])
        example = ""
        if len(mixed) and named:
            first = int(np.flatnonzero(keys_N == mixed[0])[0])
            example = f", such as that of {' '.join(filter(None, labelled.places_N[first]))}"
        lines.append(f"{title} with images of two classes or more: {len(mixed):,}{example}")
    return [*lines, *_describe_contradictions(labelled, named)]


def _describe_contradictions(labelled: LabelledSet, named: bool) -> Iterator[str]:
    """Warn of files of the same content that have different labels: one of them is wrong."""
    contents, of_N = np.unique(digest_values(labelled.digests), return_inverse=True)
    mixed = _of_two_classes(of_N, labelled.labels_N) if len(contents) else of_N
    if len(mixed):
        first = int(np.flatnonzero(of_N == mixed[0])[0])
        example = f", such as {' '.join(filter(None, labelled.places_N[first]))}" * named
        yield (
            f"WARNING: {len(mixed):,} radiographs are there more than once, under different "
            f"labels{example}. Correct the labels, or leave these images out."
        )


def describe_shortcuts(cues: ShortcutReport) -> Iterator[str]:
    """How often cues alone name the class, and a warning of each that does better than chance."""
    yield "Named rightly by the nearest neighbours in cues alone, outside the own group (95 %):"
    yield f"  always the commonest class: {cues.majority}"
    named = {"stored size": cues.native, "black borders, padding and sharpness": cues.seen}
    for name, figure in named.items():
        yield f"  {name}: {figure}"
    for name, figure in named.items():
        if figure.low > cues.majority.high:
            yield (
                f"WARNING: {name} give a class away; a network may learn that and not the "
                "implants. Take images of all classes from the same sources, or distrust the "
                "figures."
            )


def _of_two_classes(keys_N: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    num_classes = int(labels_N.max(initial=0)) + 1
    pairs = np.unique(keys_N * num_classes + labels_N)
    keys, counts = np.unique(pairs // num_classes, return_counts=True)
    return np.asarray(keys[counts > 1])
