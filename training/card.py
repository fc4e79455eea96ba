"""MODEL_CARD.md: what a package is, where it comes from, how well it did and on what."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from implant_model.networks.spec import (
    FISHER,
    FISHER_LITE,
    FISHERS,
)
from implant_model.package.catalogue import Catalogue
from implant_model.package.weakness import weaknesses
from training.config import TrainConfig
from training.data.labelled import Excluded, reasons_of
from training.data.shortcuts import ShortcutReport
from training.first_weights import weights_path
from training.metrics import Figure
from training.settings import SegmenterSettings

WARNING = (
    "**For registry audit and research. Not a medical device: not for diagnosis, and not for "
    "identifying an implant before surgery.**"
)
PHANTOM_WARNING = (
    "**The images are synthetic phantoms. Figures on them show that the software works; they are "
    "no evidence about patients.**"
)
INTERVALS = (
    "Intervals are 95 %: Wilson's for shares, widened where images of one group are right or wrong "
    "together; bootstrap over groups, joined with what groups may do of which none was seen, for "
    "the others."
)
TITLES = {
    "top_1": "Top-1 accuracy",
    "top_3": "Top-3 accuracy",
    "macro_f1": "Macro F1",
    "mean_auroc": "Mean AUROC, one class against the rest",
    "calibration_error": "Expected calibration error (10 bins of equal count)",
    "coverage": "Realised coverage of the candidate sets",
    "set_size": "Mean size of the candidate sets",
    "dice": "Segmenter's Dice",
    "iou": "Segmenter's intersection over union",
    "flagged": "Known implants called unknown",
}


@dataclass(frozen=True)
class CardFacts:
    """What the card reports.

    Attributes:
        counts: Images of each class in training, calibration and test (of the shipped network).
        undrawn: Images that are in no part, since so many could not train.
        figures: Measured figures by name, see `training.metrics.evaluate`.
        controls: The same figures on subsets that a cue cannot help, by the subset's description.
        measured_on: One sentence that names the data and the design of the measurement.
        cues: What file facts alone give away; None where it was not looked at.
        groups: Number of groups of patients and near duplicates.
        duplicates: Images that are near duplicates of another.
        patients_known: Images of which the patient is known.
        excluded: Images that could not be used.
        masks: Poor, good and hand-made masks of the training part; None where masks taught nothing.
        command: The command line that made the package.
        environment: Versions and machine.
        start_known: Whether the package that it started from, if any, states what it trained on.
        samples: What rests on a part of the images that could be looked at, a sentence each.
    """

    counts: Mapping[str, tuple[int, int, int]]
    undrawn: int
    figures: Mapping[str, Figure]
    controls: Mapping[str, Mapping[str, Figure]]
    measured_on: str
    cues: ShortcutReport | None
    groups: int
    duplicates: int
    patients_known: int
    excluded: Sequence[Excluded]
    masks: tuple[int, int, int] | None
    command: str
    environment: str
    start_known: bool = True
    samples: tuple[str, ...] = ()

    @property
    def weaknesses(self) -> tuple[str, ...]:
        """Return what the figures say against the model, a sentence each."""
        return tuple(weaknesses({name: asdict(figure) for name, figure in self.figures.items()}))


def write_card(config: TrainConfig, catalogue: Catalogue, facts: CardFacts) -> str:
    """Write the whole card as Markdown."""
    parts = [
        [f"# {config.name}", WARNING],
        [PHANTOM_WARNING] if config.card.synthetic else [],
        [f"**Warning: the model is weak.** {weakness}" for weakness in facts.weaknesses],
        ["## What it tells apart", _catalogue_table(catalogue, facts)],
        ["## Data", *_data(config, facts)],
        ["## Figures", facts.measured_on, figure_table(facts.figures)],
        [INTERVALS],
        _comparison(facts),
        *[[f"### Control: {name}", figure_table(f)] for name, f in facts.controls.items()],
        ["## Cues", *_cues(facts.cues)] if facts.cues else [],
        ["## Samples", *facts.samples] if facts.samples else [],
        ["## Training", *_training(config, facts)],
        ["## Limits", *_limits(config)],
    ]
    return "\n\n".join(paragraph for part in parts for paragraph in part) + "\n"


def _catalogue_table(catalogue: Catalogue, facts: CardFacts) -> str:
    rows = ["| implant | joint | manufacturer | product | training | calibration | test |"]
    rows.append("|---|---|---|---|---|---|---|")
    for implant in catalogue:
        train, calibration, test = facts.counts[implant.name]
        product = implant.product or "not distinguished"
        texts = (implant.name, implant.joint, implant.manufacturer, product)
        counts = (str(train), str(calibration), str(test))
        rows.append("| " + " | ".join([*map(_cell, texts), *counts]) + " |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def figure_table(figures: Mapping[str, Figure]) -> str:
    """Return figures as a table of Markdown."""
    rows = ["| figure | value | 95 % interval | images |", "|---|---|---|---|"]
    for name, figure in figures.items():
        title = TITLES.get(name, name[:1].upper() + name[1:])
        interval = f"{figure.low:.3f} to {figure.high:.3f}"
        rows.append(f"| {_cell(title)} | {figure.value:.3f} | {interval} | {figure.count} |")
    return "\n".join(rows)


def _data(config: TrainConfig, facts: CardFacts) -> list[str]:
    images = facts.undrawn + sum(sum(counts) for counts in facts.counts.values())
    text = [
        f"Source: {config.card.source}",
        f"Licence: {config.card.licence}",
        f"{images} images in {facts.groups} groups; no group is on two sides of a split. A group "
        f"is a patient with all near duplicates; {facts.duplicates} images are near duplicates of "
        f"an earlier one, and of {facts.patients_known} the patient is known.",
    ]
    if facts.patients_known < images:
        text.append(
            "Where no patient is known, images of one patient may be on both sides of a split, "
            "and the figures are then too good."
        )
    if facts.excluded:
        reasons = sorted(reasons_of(facts.excluded).items())
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons)
        text.append(f"{len(facts.excluded)} members were left out: {counts}.")
    return text


def _comparison(facts: CardFacts) -> list[str]:
    """State it plainly where a model is not shown to be better than no model."""
    if facts.cues is None or facts.figures["top_1"].low > facts.cues.majority.value:
        return []
    return [
        "**Top-1 accuracy is not shown to be better than always naming the commonest class, which "
        f"is right in {facts.cues.majority.value:.3f} of the images.** Judge it by macro F1, mean "
        "AUROC and the candidate sets."
    ]


def _cues(cues: ShortcutReport) -> list[str]:
    return [
        "What facts of the file alone give away, by a vote of the five nearest neighbours outside "
        "the image's own group:",
        figure_table(
            {
                "always the commonest class": cues.majority,
                "stored size alone (the network never sees it)": cues.native,
                "black border and sharpness after preprocessing": cues.seen,
            }
        ),
    ]


def _training(config: TrainConfig, facts: CardFacts) -> list[str]:
    how = _at_once if config.network.architecture in FISHERS else _by_epochs
    return [
        *how(config, facts),
        f"```\n{facts.command}\n```",
        _calibration(config.calibration.folds),
    ]


def _calibration(folds: int) -> str:
    if not folds:
        return (
            "The calibration part set temperature, candidates and novelty threshold; it neither "
            "trained nor tested."
        )
    return (
        "Temperature, candidates and novelty threshold were set on the training part, held out "
        f"from itself in {folds} folds of whole groups: what saw labels was fitted anew without "
        "each fold and judged on it (cross-conformal prediction, Vovk 2015). Nothing was set on "
        "what tests."
    )


_DESCRIBED = {
    FISHER: "descriptors of its edges",
    FISHER_LITE: "descriptors of its upper part, made by the first five stages of an "
    "EfficientNet-Lite1 and of an EfficientNet-Lite2 with weights of ImageNet, which were not "
    "fitted",
}


def _at_once(config: TrainConfig, facts: CardFacts) -> list[str]:
    poor, good, by_hand = facts.masks or (0, 0, 0)
    lite = config.network.architecture == FISHER_LITE
    described = _DESCRIBED[config.network.architecture]
    scratch = "The rest" if lite else "All of it"
    return [
        f"A search for the implant brings it upright; Gaussians are laid into {described}, and a "
        "linear layer tells the classes by how far those lie from the Gaussians' means (Perronnin "
        f"et al. 2010). {scratch} was fitted to the training part, from scratch; "
        "only the linear layer saw labels. How an upright implant looks was learned from "
        f"{by_hand} masks that were given and {good} automatic ones ({poor} more were graded poor "
        f"and left out), those of the training part. Seed {config.fit.seed}. {facts.environment}",
        *(_origin(config) if lite else []),
    ]


def _origin(config: TrainConfig) -> list[str]:
    """Return where a file of first weights is from, as the settings state it."""
    names = ", ".join(f"`{weights_path(path).name}`" for path in config.network.weights)
    origin = config.card.weights or "**Origin and licence are not stated.**"
    return [f"First weights: {names}. {origin}"]


def _by_epochs(config: TrainConfig, facts: CardFacts) -> list[str]:
    network, fit = config.network, config.fit
    if not fit.epochs:
        return [
            f"{network.architecture}, one grey channel, with the weights of a file, which were not "
            f"fitted here. {facts.environment}",
            *_origin(config),
            "**What they were fitted to is not known here.** If any of it calibrates or tests, the "
            "figures are too good.",
        ]
    start = "from scratch"
    if network.pretrained:
        start = "from torchvision's ImageNet weights"
    elif network.weights:
        start = "from the weights of a file"
    elif network.start_from:
        start = f"from the weights of the package `{network.start_from}`"
    seen = "one grey channel" if facts.masks is None else "of two kinds, averaged"
    return [
        *([] if facts.masks is None else [_segmenter(config.segmenter, facts.masks)]),
        f"{network.architecture}, {seen}, {start}; {fit.epochs} epochs, batches of "
        f"{fit.batch_size}, AdamW at {fit.learning_rate:g}, seed {fit.seed}. {facts.environment}",
        *([_start(facts.start_known)] if network.start_from else []),
        *(_origin(config) if network.weights else []),
    ]


def _start(known: bool) -> str:
    if known:
        return (
            "The package that it started from names the files that it was trained on; none of "
            "them calibrates or tests here."
        )
    return (
        "**The package that it started from does not say what it was trained on.** If any of it "
        "calibrates or tests here, the figures are too good."
    )


def _segmenter(settings: SegmenterSettings, masks: tuple[int, int, int]) -> str:
    poor, good, by_hand = masks
    judge = "the masks that were given" if by_hand else "automatic masks that were graded good"
    return (
        f"A U-Net of width {settings.width} cuts the implant out; one network sees the radiograph, "
        "another the radiograph and its cut-out, and their probabilities are averaged (Patel et "
        f"al. 2021). The U-Net learned from {by_hand} masks that were given and {good} automatic "
        f"ones ({poor} more were graded poor and left out), those of the training part; "
        f"{settings.epochs} epochs. Its figures compare it with {judge} of the test part."
    )


def _limits(config: TrainConfig) -> list[str]:
    limits = [
        "It knows the implants above and no other. Candidates hold the right one at the stated "
        "rate only for radiographs like those it was calibrated on, "
        + (
            "each class by itself where it has calibration images enough."
            if config.calibration.by_class
            else "all classes taken together."
        ),
    ]
    return [*limits, config.card.notes] if config.card.notes else limits
