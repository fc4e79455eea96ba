"""One training from its split to calibrated, measured outputs; done work is not done again."""

import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from implant_model.networks.build import build, pretrained_weights
from implant_model.networks.spec import FISHERS, NetworkSpec
from implant_model.networks.weights import load_network, weights_bytes
from implant_model.novelty import NoveltyReference, fit_novelty
from implant_model.package.load import load_package
from implant_model.storage.local_files import write_whole
from training.calibrate import (
    Calibrated,
    HeldOut,
    Measured,
    Scored,
    calibrate,
    hold_out_folds,
    measure,
    reference_part,
    run_networks,
    score,
    scored_part,
)
from training.config import TrainConfig
from training.data.divide import watch
from training.data.labelled import LabelledSet
from training.data.links import Indices
from training.data.shards import Chosen, in_parts
from training.data.split import Split, deal_folds, renumber
from training.first_weights import of_architecture, trunks_of_files
from training.fisher.fit_fisher import FisherTask, fit_fisher
from training.fit.scoring import MAX_HERE, describe_known, score_by_ray
from training.fit.segmenting import masked_examples, measure_segmenter, segmenter_task
from training.fit.trainer import fit_network
from training.fit.worker_inputs import Examples, FitTask, Material, State
from training.fit.workers import Workers
from training.masks.mask_set import POOR, MaskSet
from training.masks.overlap import Overlaps
from training.weight_files import filled, map_file, reordered

NOVELTY_FOLDS = 40
"""A novelty grows as the images grow fewer that it is measured from, so that few are held out."""
Networks = Mapping[NetworkSpec, bytes]


@dataclass(frozen=True)
class Fitted:
    """Networks with all that was set and measured on them.

    Attributes:
        networks: Each with the content of its file in the package.
        calibrated: Temperature, candidates' threshold, novelty.
        measured: Predictions on the test part; no rows where that is empty.
        overlaps: The segmenter's masks of the test part against those that may measure; None
            without a segmenter.
    """

    networks: Networks
    calibrated: Calibrated
    measured: Measured
    overlaps: Overlaps | None


@dataclass(frozen=True)
class Workplace:
    """Where trainings run and leave what a resumed one needs.

    Attributes:
        folder: Reached by every worker under the same path.
        checkpoints: Folder or URI for checkpoints, which every worker reaches.
        workers: Of each training.
        use_gpu: Whether each worker holds a GPU.
        say: Gets a line as each epoch ends.
        waiting: Gives signs of life of a step that it is called with, while the step lasts.
    """

    folder: Path
    checkpoints: str
    workers: Workers
    use_gpu: bool
    say: Callable[[str], None] = lambda line: None
    waiting: Callable[[str], AbstractContextManager[object]] = nullcontext

    def weights_file(self, name: str, spec: NetworkSpec) -> Path:
        """Return where the weights of a network that is done lie."""
        return self.folder / f"{name}-{spec.file}"

    def held_out_file(self, name: str) -> Path:
        """Return where the logits lie of a training part that was held out from itself."""
        return self.folder / f"{name}-held-out.npy"

    def curve(self, name: str, spec: NetworkSpec) -> Path:
        """Return where the losses of its epochs are written as they come."""
        return self.folder / f"{name}-{Path(spec.file).stem}.jsonl"


def specs_of(config: TrainConfig) -> tuple[NetworkSpec, ...]:
    """Return the networks that a training fits, the segmenter first, since others learn from it.

    With a segmenter they are OrthoNet's: one sees the radiograph, one radiograph and cut-out.
    """
    network = config.network
    if network.architecture in FISHERS:  # they even the greys by themselves
        kind = network.architecture
        return (NetworkSpec("classifier.safetensors", "classifier", kind, mean=0.0, std=1.0),)

    def classifier(file: str, channels: int) -> NetworkSpec:
        return NetworkSpec(
            file,
            "classifier",
            network.architecture,
            2 if channels == 2 else 1,
            mean=network.mean,
            std=network.std,
        )

    if not config.segmenter.width:
        return (classifier("classifier.safetensors", 1),)
    return (
        config.segmenter.spec(),
        classifier("radiograph.safetensors", 1),
        classifier("cut-out.safetensors", 2),
    )


@dataclass(frozen=True)
class _Fitting:
    """One training, so far."""

    labelled: LabelledSet
    groups_N: Indices
    split: Split
    config: TrainConfig
    name: str
    place: Workplace
    masks: MaskSet | None

    def networks(self) -> Networks:
        """Fit what is not done, and keep each network as soon as it is."""
        done: dict[NetworkSpec, bytes] = {}
        for spec in specs_of(self.config):
            file = self.place.weights_file(self.name, spec)
            if not file.is_file():
                with self._watched_fit(spec):
                    weights = self._fit(spec, done)
                write_whole(file, weights)
            done[spec] = file.read_bytes()
        return done

    def _watched_fit(self, spec: NetworkSpec) -> AbstractContextManager[object]:
        name = Path(spec.file).stem
        if spec.architecture in FISHERS:
            return self.place.waiting(f"  {name}: fitted to {len(self.split.train_N):,} images")
        if not self._epochs(spec):
            return self.place.waiting(f"  {name}: taken from {self.config.network.weights[0]}")
        curve = self.place.curve(self.name, spec)
        return watched(curve, name, self._epochs(spec), self.place.say)

    def _epochs(self, spec: NetworkSpec) -> int:
        part = self.config.segmenter if spec.role == "segmenter" else self.config.fit
        return part.epochs

    def _fit(self, spec: NetworkSpec, done: Networks) -> bytes:
        network = build(spec, len(self.labelled.names))
        if spec.role == "segmenter":
            network.load_state_dict(self._fit_segmenter(spec))
        elif spec.architecture in FISHERS:
            network.load_state_dict(self._fit_fisher())
        else:
            network.load_state_dict(self._fit_classifier(spec, done))
        return weights_bytes(network)

    def _fit_segmenter(self, spec: NetworkSpec) -> State:
        if self.masks is None:
            raise ValueError("A segmenter is fitted to masks, and there are none.")
        examples = masked_examples(self.labelled.images_NSS, self.masks, self.split.train_N)
        first = first_segmenter(self.config.network.start_from, spec)
        return self._fit_on_workers(Material(examples, first), segmenter_task(self.config))

    def _fit_on_workers(self, material: Material, recipe: FitTask) -> State:
        place, spec = self.place, recipe.spec
        return fit_network(
            material,
            recipe,
            f"{self.name}-{Path(spec.file).stem}",
            place.checkpoints,
            place.curve(self.name, spec),
            place.workers,
            place.use_gpu,
        )

    def _fit_fisher(self) -> State:
        if self.masks is None:
            raise ValueError("The template of an upright implant is learned from masks.")
        train_N, weights = self.split.train_N, self.config.network.weights
        fit = fit_fisher(
            FisherTask(
                self.labelled.images_NSS[train_N],
                self.labelled.labels_N[train_N],
                self.masks.masks_NSS[train_N],
                self.masks.grades_N[train_N] != POOR,
                len(self.labelled.names),
                self.config.fit.class_balance,
                self.config.fit.seed,
                self.folds_N,
                self.config.network.architecture,
                trunks_of_files(weights) if weights else (),
            )
        )
        held_out = io.BytesIO()
        np.save(held_out, fit.held_out_NK)
        write_whole(self.place.held_out_file(self.name), held_out.getvalue())
        return fit.state

    @property
    def folds_N(self) -> Indices | None:
        """Fold of each training image by which it calibrates; None where a part does."""
        folds = self.config.calibration.folds
        return self.deal_training(folds) if folds else None

    def deal_training(self, folds: int) -> Indices:
        """Deal the training part to folds of whole groups."""
        train_N = self.split.train_N
        groups_N = renumber(self.groups_N[train_N])
        seed = self.config.split.seed
        return deal_folds(self.labelled.labels_N[train_N], groups_N, folds, seed)

    def _fit_classifier(self, spec: NetworkSpec, done: Networks) -> State:
        config = self.config
        if not config.fit.epochs:
            return self._as_in_file(spec)
        train_N, watched_N = self._watched()
        segmenter = next((other for other in done if other.role == "segmenter"), None)
        if spec.channels == 1:
            segmenter = None
        recipe = FitTask(
            spec,
            len(self.labelled.names),
            segmenter,
            config.network.pretrained,
            config.fit,
            config.augment,
        )
        material = Material(
            self._labelled(train_N),
            self._first_weights(spec),
            b"" if segmenter is None else done[segmenter],
            self._labelled(watched_N),
        )
        return self._fit_on_workers(material, recipe)

    def _labelled(self, part_N: Indices) -> Examples:
        images, labels_N = self.labelled.images_NSS, self.labelled.labels_N
        return Examples(Chosen(images, part_N), labels_N[part_N])

    def _first_weights(self, spec: NetworkSpec) -> State | None:
        network = self.config.network
        if not network.weights:
            return first_weights(network.start_from, spec)
        state = map_file(network.weights[0], spec).state
        return {name: part for name, part in state.items() if not name.startswith("head.")}

    def _as_in_file(self, spec: NetworkSpec) -> State:
        """Take a file's network whole, its outputs in the order of the set's classes."""
        network, names = self.config.network, self.labelled.names
        order = [name.strip() for name in network.classes.split(",")] if network.classes else []
        mapped = map_file(network.weights[0], spec)
        return filled(build(spec, len(names)), reordered(mapped, order or sorted(names), names))

    def _watched(self) -> tuple[Indices, Indices]:
        """The training part, and the share of its groups that early stopping watches instead."""
        train_N, share = self.split.train_N, self.config.fit.validation
        if not share:
            return train_N, train_N[:0]
        labels_N, groups_N = self.labelled.labels_N[train_N], self.groups_N[train_N]
        is_watched_N = watch(labels_N, groups_N, share, self.config.split.seed)
        return train_N[~is_watched_N], train_N[is_watched_N]


def fit_split(
    labelled: LabelledSet,
    groups_N: Indices,
    split: Split,
    config: TrainConfig,
    name: str,
    place: Workplace,
    masks: MaskSet | None = None,
) -> Fitted:
    """Fit networks to a split's training part, calibrate and measure them.

    Args:
        labelled: The set.
        groups_N: Group of each of its images.
        split: What of it trains, calibrates and tests.
        config: All settings.
        name: Of this training in `place`; networks that are done there are taken as they are.
        place: Where it runs.
        masks: Of the set; wanted where `TrainConfig.needs_masks`.
    """
    fitting = _Fitting(labelled, groups_N, split, config, name, place, masks)
    networks = fitting.networks()
    device = "cuda" if place.use_gpu and torch.cuda.is_available() else "cpu"
    with place.waiting("  Calibrating and measuring"):
        calibrated, measured = _calibrate_and_measure(fitting, networks, device)
    overlaps = None
    for spec, weights in networks.items():
        if spec.role == "segmenter" and masks is not None:
            with place.waiting("  Measuring the segmenter"):
                overlaps = measure_segmenter(
                    config.segmenter, weights, labelled.images_NSS, masks, split.test_N, device
                )
    return Fitted(networks, calibrated, measured, overlaps)


def fetch_pretrained(config: TrainConfig) -> None:
    """Have torchvision's weights on this machine, where they are asked for, before images are read.

    Raises:
        UsageError: They are not to be had.
    """
    if config.network.pretrained:
        pretrained_weights(config.network.architecture)


def first_weights(package_uri: str, spec: NetworkSpec) -> State | None:
    """Take a package's network as a start, all but its head; None without a package.

    Where it has networks of the same architecture with the wanted channels and with others, the
    former is taken; of another number of channels all but the first layer fits.

    Raises:
        UsageError: The package holds no network of the same architecture.
    """
    if not package_uri:
        return None
    package = load_package(package_uri)
    fitting = of_architecture(package.networks, spec.architecture, package_uri)
    other = min(fitting, key=lambda other: other.channels != spec.channels)
    network = load_network(other, len(package.catalogue), package.files[other.file])
    return {
        key: value for key, value in network.state_dict().items() if not key.startswith("head.")
    }


def first_segmenter(package_uri: str, spec: NetworkSpec) -> State | None:
    """A package's U-Net as a start; None without a package, or one of the same width in it."""
    if not package_uri:
        return None
    package = load_package(package_uri)
    for other in package.networks:
        if (other.role, other.width) == (spec.role, spec.width):
            return load_network(other, 1, package.files[other.file]).state_dict()
    return None


def _calibrate_and_measure(
    fitting: _Fitting, networks: Networks, device: str
) -> tuple[Calibrated, Measured]:
    labelled, split, settings = fitting.labelled, fitting.split, fitting.config.calibration
    num_classes, labels_N, images = len(labelled.names), labelled.labels_N, labelled.images_NSS

    def run(part_N: Indices) -> Scored:
        place = fitting.place
        if len(part_N) > MAX_HERE:
            return score_by_ray(networks, num_classes, reference, images, part_N, place.use_gpu)
        return score(networks, num_classes, reference, in_parts(images, part_N), device)

    train_N = split.train_N
    if fitting.folds_N is None:
        known_N = train_N[reference_part(labels_N[train_N])]
        reference = describe_known(
            networks,
            num_classes,
            images,
            known_N,
            labels_N[known_N],
            settings.method,
            device,
            fitting.place.use_gpu,
        )
        part_N = scored_part(split.calibration_N, num_classes)
        scored = run(part_N)
        held_out = HeldOut(scored.logits_NK, labels_N[part_N], scored.novelty_N)
    else:
        reference, held_out = _held_out(fitting, networks, device)
    calibrated = calibrate(
        reference, held_out, settings.coverage, settings.known_pass, settings.by_class
    )
    test_N = scored_part(split.test_N, num_classes, fitting.config.split.folds)
    return calibrated, measure(run(test_N), test_N, calibrated)


def _held_out(
    fitting: _Fitting, networks: Networks, device: str
) -> tuple[NoveltyReference, HeldOut]:
    """Hold the training part out from itself, fold by fold."""
    labelled, train_N = fitting.labelled, fitting.split.train_N
    labels_N, num_classes = labelled.labels_N[train_N], len(labelled.names)
    method = fitting.config.calibration.method
    train = run_networks(networks, num_classes, in_parts(labelled.images_NSS, train_N), device)
    reference = fit_novelty(train.features_NF, labels_N, num_classes, method)
    logits_NK = np.load(fitting.place.held_out_file(fitting.name))
    folds_N = fitting.deal_training(NOVELTY_FOLDS)
    return reference, hold_out_folds(train, labels_N, logits_NK, folds_N, method)


def class_counts(labelled: LabelledSet, split: Split) -> dict[str, tuple[int, int, int]]:
    """Return images of each class in training, calibration and test."""
    counts_K3 = np.column_stack(
        [
            np.bincount(labelled.labels_N[part_N], minlength=len(labelled.names))
            for part_N in (split.train_N, split.calibration_N, split.test_N)
        ]
    )
    return {
        name: (train, calibration, test)
        for name, (train, calibration, test) in zip(labelled.names, counts_K3.tolist(), strict=True)
    }


EVERY_S = 5.0
SILENCE_S = 60.0


@contextmanager
def watched(
    curve: Path, name: str, epochs: int, say: Callable[[str], None], every_s: float = EVERY_S
) -> Iterator[None]:
    """State a line for each epoch that ends, and now and then that none has ended yet.

    Args:
        curve: Gets a line of JSON for each epoch, with `epoch` and `loss`.
        name: What is trained, for the reader.
        epochs: How many there will be.
        say: Gets each line.
        every_s: Seconds between two looks at the file.
    """
    seen = max((epoch for epoch, _ in _losses(curve)), default=-1)
    ended = threading.Event()

    def look(before: int) -> int:
        last = before
        for epoch, loss in _losses(curve):
            if epoch > last:
                say(f"  {name}: epoch {epoch + 1} of {epochs}, loss {loss:.4f}")
                last = epoch
        return last

    def watch() -> None:
        begun = spoken = time.monotonic()
        last = seen
        while not ended.wait(every_s):
            last = look(last)
            now = time.monotonic()
            if last == seen and now - spoken >= SILENCE_S:
                spoken = now
                say(
                    f"  {name}: no epoch has ended in {now - begun:.0f} s; Ray starts the workers, "
                    "or waits for cores that others hold, or an epoch takes long."
                )
        look(last)

    thread = threading.Thread(target=watch, name=f"watch {name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _losses(curve: Path) -> list[tuple[int, float]]:
    """Return epoch and loss of each whole line; one that is being written has no end yet."""
    lines = curve.read_text().split("\n")[:-1] if curve.is_file() else []
    facts = [json.loads(line) for line in lines]
    return [(int(fact["epoch"]), float(fact.get("loss", "nan"))) for fact in facts]
