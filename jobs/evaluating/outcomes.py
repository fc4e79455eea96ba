"""What a package said of labelled images > the parts of an `Evaluation`."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from implant_model.classifier import Classifier
from implant_model.package.load import ModelPackage
from implant_model.saliency import explain
from jobs.evaluating.assessment import Examined, UnderDistortion, assess_robustness, worst_mistakes
from jobs.evaluating.evaluation import DataFacts, Mistake
from jobs.evaluating.examination import outside, trained_on
from jobs.pages.comparison import Comparison, Judged, compare
from jobs.pages.saliency_picture import saliency_picture
from training.data.gather import Gathered
from training.data.labelled import num_missing
from training.data.labels import Labels

MAX_MISTAKES = 12


def data_facts(
    name: str,
    images: tuple[str, ...],
    labels: Labels | None,
    package: ModelPackage,
    examined: Examined,
    held: Gathered,
) -> DataFacts:
    """Count what was examined, what the package was trained on, and what was left out."""
    excluded = Counter(item.reason for item in held.excluded)
    return DataFacts(
        name=name,
        images=images,
        labels=None if labels is None else labels.uri,
        num_images=len(held.images),
        num_groups=len(np.unique(examined.groups_N)),
        num_patients_known=int((held.patients_N >= 0).sum()),
        outside=dict(outside(examined, held).most_common()),
        excluded=excluded,
        missing=num_missing(held),
        trained_on=trained_on(package, held),
    )


def confusion(examined: Examined, held: Gathered) -> Comparison:
    """Return the table of what was shown and what was said."""
    said, names = examined.said, examined.names
    return compare(
        (
            Judged(
                names[label] if label >= 0 else held.labels[place],
                said.outcomes[place],
                names[examined.best_N[place]],
                [names[index] for index in said.candidates[place]],
            )
            for place, label in enumerate(examined.labels_N.tolist())
        ),
        names,
    )


def mistakes(
    classifier: Classifier, examined: Examined, held: Gathered, *, pictures: bool
) -> tuple[list[Mistake], int]:
    """The worst mistakes, with saliency pictures if they are expected, and the number of all."""
    wrong = worst_mistakes(examined, len(held.images))
    return [
        _mistake(classifier, examined, held, place, pictures) for place in wrong[:MAX_MISTAKES]
    ], len(wrong)


def _mistake(
    classifier: Classifier, examined: Examined, held: Gathered, place: int, pictures: bool
) -> Mistake:
    said, label, best = examined.said, int(examined.labels_N[place]), int(examined.best_N[place])
    probabilities_C = said.probabilities_NC[place]
    picture = None
    if pictures:
        picture = saliency_picture(explain(classifier, held.images[place], best))
    return Mistake(
        archive=held.places[place].archive,
        index=held.places[place].index,
        label=examined.names[label] if label >= 0 else held.labels[place],
        said=examined.names[best],
        probability=float(probabilities_C[best]),
        label_probability=float(probabilities_C[label]) if label >= 0 else None,
        outcome=said.outcomes[place],
        novelty=float(said.novelty_N[place]),
        picture=picture,
    )


def poor_scans(
    classifier: Classifier, examined: Examined, held: Gathered, most: int
) -> Iterator[UnderDistortion]:
    """Yield robustness on at most so many images of known implants, drawn by a fixed seed."""
    known = np.flatnonzero(examined.known_N)
    drawn = np.sort(np.random.default_rng(0).permutation(known)[:most])
    if not len(drawn):
        return
    images_NSS = held.images[drawn]
    labels_N, groups_N = examined.labels_N[drawn], examined.groups_N[drawn]
    yield from assess_robustness(images_NSS, labels_N, groups_N, classifier.classify)


def usual_name(images: tuple[str, ...]) -> str:
    """Return what to call data that nobody named: the last parts of its URIs."""
    return ", ".join(uri.rstrip("/").rsplit("/", 1)[-1] or uri for uri in images)
