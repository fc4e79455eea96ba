"""What a package with enrolled implants states of itself: card, figures and provenance."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from implant_model.calibration import prediction_sets, softmax
from implant_model.package.catalogue import Catalogue
from implant_model.package.load import ModelPackage
from training.card import INTERVALS, WARNING, figure_table
from training.enrolment.promises import Judged, Promise, Promises, fewest
from training.metrics import Figure, share

Figures = dict[str, Figure]


@dataclass(frozen=True)
class EnrolledFacts:
    """What was done.

    Attributes:
        base: The package that implants were added to.
        name: Of the new one.
        catalogue: All implants, the known ones first.
        counts: Images of each new implant, by its place in the catalogue.
        promises: What holds for the candidates of each.
        figures: Measured on the images that were given.
        num_learned: Images that were left out, since the networks learned from them.
        is_record_kept: Whether the base package names what its networks learned from.
        command: The command line.
    """

    base: ModelPackage
    name: str
    catalogue: Catalogue
    counts: Mapping[int, int]
    promises: Promises
    figures: Figures
    num_learned: int
    is_record_kept: bool
    command: str

    @property
    def new(self) -> range:
        """Return the places of the new implants."""
        return range(len(self.base.catalogue), len(self.catalogue))

    def metrics(self) -> dict[str, object]:
        """Return what `package.json` holds below `metrics`; none of the base package's figures."""
        return {
            "measured_on": (
                f"Images given to jobs.enrol: {sum(self.counts.values())} of the new implants, "
                "each by rows that were made without its group. Figures of the known implants are "
                f"those of {self.base.id}, before implants were added."
            ),
            "figures": {name: figure.to_json() for name, figure in self.figures.items()},
            "base": dict(self.base.metrics),
        }

    def provenance(self) -> dict[str, object]:
        """Return what `package.json` holds below `provenance.enrolled`."""
        before = self.base.provenance.get("enrolled")
        implants = [
            {
                "name": self.catalogue.names[place],
                "images": self.counts[place],
                "quantile_share": promise.share,
            }
            for place, promise in enumerate(self.promises.implants)
            if place in self.new
        ]
        return {
            "base": {"id": self.base.id, "sha256": self.base.hash},
            "implants": implants,
            "known_calibrated": [
                self.catalogue.names[place]
                for place, promise in enumerate(self.promises.implants)
                if place not in self.new and promise.share is not None
            ],
            "novelty_threshold_before": self.base.novelty.threshold,
            **({} if before is None else {"before": before}),
        }


def enrolled_figures(
    base: ModelPackage, catalogue: Catalogue, promises: Promises, new: Judged, known: Judged
) -> Figures:
    """Return figures of the new implants, held out, and of known ones that were given."""
    quantiles = np.array([promise.quantile for promise in promises.implants])
    figures: Figures = {}
    for part, title in ((new, "new implants"), (known, "known implants")):
        if not len(part.labels_N):
            continue
        probabilities = softmax(part.logs_NC, base.temperature)
        sets = prediction_sets(probabilities, quantiles)
        right_N = probabilities.argmax(axis=1) == part.labels_N
        inside_N = np.array(
            [label in s for label, s in zip(part.labels_N.tolist(), sets, strict=True)]
        )
        flagged_N = part.novelty_N > promises.threshold
        for name, hits_N in (
            ("best candidate right", right_N),
            ("implant among the candidates", inside_N),
            ("called unknown", flagged_N),
        ):
            figures[f"{title}: {name}"] = share(hits_N, part.groups_N)
    for place in range(len(base.catalogue), len(catalogue)):
        mine_N = new.of(place)
        right_N = new.logs_NC[mine_N].argmax(axis=1) == place
        figures[f"best candidate right: {catalogue.names[place]}"] = share(
            right_N, new.groups_N[mine_N]
        )
    return figures


def promise_words(promise: Promise, coverage: float) -> str:
    """Return what holds for the candidates of an implant, in a few words."""
    if promise.share is None:
        return f"candidates by the old quantile, {promise.quantile:.3f}: not shown again"
    images = f"{promise.images} images, quantile {promise.quantile:.3f}"
    if promise.share < coverage:
        return f"candidates hold it in {promise.share:.2f}, not {coverage:g} ({images})"
    return f"candidates hold it in {promise.share:.2f} ({images})"


def summary(base: ModelPackage, promises: Promises, num_learned: int) -> Iterator[str]:
    """Yield which promises hold and which do not, a sentence each."""
    known = promises.implants[: len(base.catalogue)]
    carried = sum(promise.share is None for promise in known)
    if carried:
        yield (
            f"The coverage of {base.coverage:g} is not shown again for {carried} of {len(known)} "
            f"known implants: {fewest(base.coverage)} images of each, which trained nothing, would "
            "show it. Their quantiles were kept or made wider, by the "
            f"{promises.yielded:.3f} of probability that known implants give up to new ones at "
            f"most in {base.coverage:g} of the points that were drawn around them."
        )
    few = [promise for promise in promises.implants[len(known) :] if _is_few(promise, base)]
    if few:
        yield (
            f"Of {len(few)} new implants the images are too few for a coverage of "
            f"{base.coverage:g}, which takes {fewest(base.coverage)} patients: their least likely "
            "image sets the quantile, which n patients show for n / (n + 1) of their kind."
        )
    yield (
        f"The novelty threshold is {promises.threshold:.4g}; it was {base.novelty.threshold:.4g}."
        + ("" if promises.is_threshold_anew else " It was kept or raised, never lowered.")
    )
    if num_learned:
        yield f"{num_learned} images were left out, since the networks learned from them."


def _is_few(promise: Promise, base: ModelPackage) -> bool:
    return promise.share is not None and promise.share < base.coverage


def write_enrolled_card(facts: EnrolledFacts) -> str:
    """Write the card: what was added, then the base package's own card."""
    base = facts.base
    parts = [
        f"# {facts.name}",
        WARNING,
        "## Implants that were added from a few images",
        f"Implants were added to `{base.id}` without training: its networks are unchanged but "
        f"for {len(facts.new)} more rows in the last layer, made from the mean embeddings of the "
        "images counted below. **What the figures further down state was measured before, and does "
        "not hold for the new implants, nor wholly for the known ones beside them.**",
        _table(facts),
        *summary(base, facts.promises, facts.num_learned),
        *([] if facts.is_record_kept else [_NO_RECORD]),
        "Figures of the images that were given. Each image of a new implant was judged by rows and "
        "centres that were made without it and without its patient; one scale and one offset for "
        "all rows were fitted to the same scores, so the figures may be slightly too good.",
        figure_table(facts.figures),
        INTERVALS,
        f"```\n{facts.command}\n```",
        f"# Card of `{base.id}`, before",
        base.card.strip(),
    ]
    return "\n\n".join(parts) + "\n"


_NO_RECORD = (
    "**The package does not say what it was trained on.** If images of known implants that were "
    "given are among it, their quantiles are too narrow."
)


def _table(facts: EnrolledFacts) -> str:
    rows = ["| implant | manufacturer | images | its candidates |", "|---|---|---|---|"]
    for place, promise in enumerate(facts.promises.implants):
        implant = facts.catalogue[place]
        texts = [implant.name, implant.manufacturer]
        cells = [text.replace("|", "\\|").replace("<", "&lt;") for text in texts]
        kind = f"{promise.images}, new" if place in facts.new else str(promise.images)
        words = promise_words(promise, facts.base.coverage)
        rows.append(f"| {cells[0]} | {cells[1]} | {kind} | {words} |")
    return "\n".join(rows)
