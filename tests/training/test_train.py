"""The training job: its call, its parts, and one whole run on two workers."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from implant_model.classifier import Classifier
from implant_model.errors import UsageError
from implant_model.limits import Limits
from implant_model.networks.build import build
from implant_model.networks.spec import NetworkSpec
from implant_model.package.catalogue import ORTHONET
from implant_model.package.load import ModelPackage, load_package
from implant_model.package.references import load_references
from implant_model.phantoms.files import Sample, sample_archives
from jobs.fitting import training_run
from jobs.fitting.begun import begun, check_begun, check_same
from jobs.fitting.training_call import Call
from jobs.fitting.training_run import (
    describe_masks,
    divide_set,
    report_set,
    say_missing,
    summarise,
    training_name,
    warn_of_bits,
)
from jobs.train import main
from tests.support.paths import ROOT
from tests.support.pictures import noise_png
from tests.support.ray_cluster import RayCluster
from training.config import from_document, load_config
from training.data.divide import divide
from training.data.gather import load_set
from training.data.labelled import Excluded, LabelledSet
from training.data.labels import read_labels
from training.data.set_report import describe_shortcuts
from training.data.shortcuts import cues_of, probe_shortcuts
from training.fisher.fit_fisher import RECIPE
from training.fit.loop import learning_rate, take_weights
from training.fit.objectives import decay_groups, draw_order
from training.fit.workers import Workers
from training.metrics import wilson
from training.settings import FitSettings, SplitSettings


def test_a_package_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "package.json").write_text("{}")
    call = ["--images", str(tmp_path), "--labels", "x.csv", "--output", str(tmp_path / "model")]
    with pytest.raises(UsageError, match="is there already"):
        main(call)


@pytest.mark.parametrize("uri", ["s3://bucket/models/mine", "gs://bucket/mine", "file:///mine"])
def test_a_package_is_written_to_a_folder_of_this_machine(tmp_path: Path, uri: str) -> None:
    with pytest.raises(UsageError, match=f"--output is {uri}; a folder of this machine"):
        main(["--images", str(tmp_path), "--output", uri])


def test_a_folder_that_cannot_be_written_is_found_before_images_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--output .*model\.work cannot be written: "):
        main(["--images", str(tmp_path), "--output", str(tmp_path / "file" / "model")])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('[network]\narchitecture = "resnet19"', "'resnet19'; one of resnet18, resnet34"),
        ('[network]\nstart_from = "{none}"', "none"),
        ('[network]\nstart_from = "{package}"', "holds no resnet18 to start from"),
        ('[segmenter]\nwidth = 4\nmasks = "{none}"', "segmenter.masks is .*none; a folder"),
        ("", "--labels cannot be read: .*labels.csv"),
        ("[network]\npretrained = true", "pretrained weights of resnet18 are not in"),
    ],
)
def test_what_the_call_names_is_looked_at_before_images_are_read(
    tmp_path: Path, small_package: Path, settings: str, message: str
) -> None:
    names = {"none": tmp_path / "none", "package": small_package}
    (tmp_path / "train.toml").write_text(settings.format(**names))
    call = ["--images", str(tmp_path / "no images"), "--config", str(tmp_path / "train.toml")]
    paths = ["--labels", str(tmp_path / "labels.csv"), "--output", str(tmp_path / "model")]
    with pytest.raises(UsageError, match=message):
        main([*call, *paths])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.toml"]


def test_labels_of_one_class_are_refused_before_images_are_read(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("archive,member,label\na.tar,1.png,stem\n")
    call = ["--images", str(tmp_path / "no images"), "--labels", str(tmp_path / "labels.csv")]
    with pytest.raises(UsageError, match="one label only; two classes are needed"):
        main([*call, "--output", str(tmp_path / "model")])
    assert not (tmp_path / "model.work").exists()


def test_a_training_that_was_begun_needs_resume(tmp_path: Path) -> None:
    (tmp_path / "model.work" / "checkpoints").mkdir(parents=True)
    call = ["--images", str(tmp_path), "--labels", "x.csv", "--output", str(tmp_path / "model")]
    with pytest.raises(UsageError, match="go on with --resume"):
        main(call)
    with pytest.raises(UsageError, match="--workers is 99"):
        main([*call, "--workers", "99"])


def test_a_refused_call_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is nothing at --images"):
        main(["--images", str(tmp_path / "none"), "--output", str(tmp_path / "new" / "model")])
    assert list(tmp_path.iterdir()) == []


def test_a_refused_set_leaves_no_training_behind(tmp_path: Path) -> None:
    (tmp_path / "images" / "stem").mkdir(parents=True)
    (tmp_path / "images" / "stem" / "1.png").write_bytes(noise_png(1))
    call = ["--images", str(tmp_path / "images"), "--output", str(tmp_path / "model")]
    for _ in range(2):
        with pytest.raises(UsageError, match="two classes or more"):
            main(call)
    assert [path.name for path in (tmp_path / "model.work").iterdir()] == ["images"]  # prepared


def test_nothing_to_resume_is_said(tmp_path: Path) -> None:
    call = ["--images", str(tmp_path), "--resume", "--output"]
    nothing = f"There is nothing to resume at {tmp_path}/m1.work; "
    with pytest.raises(UsageError, match=f"{nothing}leave --resume out to begin a training"):
        main([*call, str(tmp_path / "m1")])
    with begun(tmp_path / "m2.work", from_document({}, "a test"), 1):
        pass
    with pytest.raises(UsageError, match=f"{nothing}trainings that .* of the outputs m2"):
        main([*call, str(tmp_path / "m1")])


def test_a_training_goes_on_as_it_was_begun_or_not_at_all(tmp_path: Path) -> None:
    work = tmp_path / "m.work"
    before = from_document({"preprocessing": {"size_px": 128}}, "a test")
    check_begun(work, before, 1, resume=False)
    with begun(work, before, 1):
        check_same(work, "images and labels", "a")
        check_same(work, "masks", "b")
    with pytest.raises(UsageError, match=r"m.work holds a training that was begun; go on with --r"):
        check_begun(work, before, 1, resume=False)
    check_begun(work, before, 1, resume=True)
    described = {"name": "x", "card": {"licence": "Apache-2.0"}}
    check_begun(
        work,
        from_document({"preprocessing": {"size_px": 128}, **described}, "a test"),
        1,
        resume=True,
    )
    other = {"preprocessing": {"size_px": 160}, "fit": {"epochs": 3}}
    changes = "fit.epochs was 60 and is 3; preprocessing.size_px was 128 and is 160. To go on, use"
    with pytest.raises(UsageError, match=f"of other settings: {changes}"):
        check_begun(work, from_document(other, "a test"), 1, resume=True)
    with pytest.raises(UsageError, match="settings: --workers was 1 and is 2"):
        check_begun(work, before, 2, resume=True)
    with pytest.raises(UsageError, match="size_px was 128 and is its default"):
        check_begun(work, from_document({}, "a test"), 1, resume=True)
    with begun(work, before, 1):  # goes on
        check_same(work, "images and labels", "a")
        with pytest.raises(UsageError, match="The masks are not those that the training in"):
            check_same(work, "masks", "c")


@pytest.mark.parametrize(
    "record",
    ["{", "", "[]", "[1]", "null", '"x"', '{"settings": {}}', '{"settings": 5, "workers": 1}'],
)
def test_a_damaged_record_is_a_sentence(record: str, tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(record)
    with pytest.raises(UsageError, match=r"training.json is damaged; remove .* and begin anew"):
        check_begun(tmp_path, from_document({}, "a test"), 1, resume=True)


def test_a_training_is_not_gone_on_with_while_it_runs(tmp_path: Path) -> None:
    work, config = tmp_path / "m.work", from_document({}, "a test")
    with begun(work, config, 1):
        with (
            pytest.raises(UsageError, match=r"Another process trains in .*m.work; wait for"),
            begun(work, config, 1),
        ):
            raise AssertionError
        assert (work / "training.json").is_file()
    with begun(work, config, 1):
        pass


def test_a_refusal_keeps_a_training_that_was_begun_before(tmp_path: Path) -> None:
    config = from_document({}, "a test")

    def refused() -> None:
        with begun(tmp_path / "m.work", config, 1):
            raise UsageError("refused")

    with begun(tmp_path / "m.work", config, 1):
        check_same(tmp_path / "m.work", "masks", "a")
    with pytest.raises(UsageError, match="refused"):
        refused()
    check_begun(tmp_path / "m.work", config, 1, resume=True)


@pytest.mark.parametrize(
    ("job", "words", "message"),
    [
        ("train", ["--images", "{at}", "--output", "m", "--config", "{at}/a.toml"], "its line 1"),
        ("train", ["--images", "{at}/none", "--output", "m"], "nothing at --images"),
        ("train", ["--images", "{at}", "--output", "m", "--resume"], "nothing to resume"),
        (
            "evaluate",
            ["--model", "{at}/m", "--images", "{at}", "--report", "r"],
            "nothing at the model package",
        ),
        ("explain", ["--model", "{at}/m", "{at}/a.toml"], "nothing at the model package"),
        ("explain", ["--model", "{at}/m", "{at}/none.png"], "IMAGE cannot be read"),
    ],
)
def test_a_mistake_is_found_before_torch_and_ray_are_loaded(
    job: str, words: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.toml").write_text("x = 1 px")
    code = (
        "import sys\n"
        f"from jobs.{job} import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except Exception as error:\n"
        "    print(error, [name for name in ('torch', 'ray') if name in sys.modules])\n"
    )
    call = [sys.executable, "-c", code, *(word.replace("{at}", str(tmp_path)) for word in words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert message in done.stdout
    assert done.stdout.endswith(" []\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.toml"]


def test_the_rate_climbs_and_falls() -> None:
    fit = FitSettings(learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(done, fit) for done in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 0.5, 0.0])


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.1), (0.5, 0.25), (1.0, 0.5)])
def test_balance_draws_rare_classes_as_told(balance: float, share: float) -> None:
    labels_N = torch.tensor([0] * 9000 + [1] * 1000)
    order_N = draw_order(labels_N, balance, torch.Generator().manual_seed(0))
    assert float((labels_N[order_N] == 1).double().mean()) == pytest.approx(share, abs=0.02)
    if balance == 0:
        assert len(set(order_N.tolist())) == len(labels_N)


def test_weights_are_taken_where_they_fit() -> None:
    spec = NetworkSpec("a.safetensors", "classifier", "shufflenet_v2_x0_5")
    source, target = build(spec, 3), build(spec, 5)
    taken = take_weights(target, source.state_dict())
    assert taken == len(source.state_dict()) - 2  # all but the head's weight and bias
    first = next(name for name in source.state_dict() if name.endswith("weight"))
    assert torch.equal(target.state_dict()[first], source.state_dict()[first])


def test_decay_spares_biases_and_scales() -> None:
    network = build(NetworkSpec("a.safetensors", "classifier", "shufflenet_v2_x0_5"), 3)
    decayed, spared = decay_groups(network, 0.1)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for p in spared["params"])
    assert spared["weight_decay"] == 0
    assert len(decayed["params"]) + len(spared["params"]) == len(list(network.parameters()))


def test_a_cue_that_tells_the_class_is_found() -> None:
    rng = np.random.default_rng(0)
    labels_N = np.arange(80) % 2
    images_NSS = rng.integers(60, 200, (80, 16, 16), dtype=np.uint8)
    sizes_N2 = np.where(labels_N[:, None] == 1, rng.integers(300, 900, (80, 1)), 250)
    report = probe_shortcuts(
        cues_of(images_NSS), np.repeat(sizes_N2, 2, axis=1)[:, :2], labels_N, np.arange(80)
    )
    assert report.native.value > 0.95
    assert report.seen.high < 0.8
    assert report.majority.value == 0.5


@pytest.mark.parametrize("counts", [(20, 20, 20, 20), (20, 60), (2, 2, 2, 2, 2, 2, 2, 2, 2, 2)])
def test_a_cue_that_is_the_same_in_all_images_tells_nothing(counts: tuple[int, ...]) -> None:
    labels_N = np.repeat(np.arange(len(counts)), counts)  # sorted by class, all of one size
    num = len(labels_N)
    images_NSS = np.random.default_rng(0).integers(0, 255, (num, 16, 16), dtype=np.uint8)
    report = probe_shortcuts(cues_of(images_NSS), np.full((num, 2), 250), labels_N, np.arange(num))
    assert report.native.low <= report.majority.value <= report.native.high
    assert not [line for line in describe_shortcuts(report) if line.startswith("WARNING")]


def test_a_cues_share_is_no_surer_than_its_groups() -> None:
    labels_N, groups_N = np.arange(90) // 3 % 2, np.arange(90) // 3
    images_NSS = np.random.default_rng(0).integers(60, 200, (90, 16, 16), dtype=np.uint8)
    sizes_N2 = np.where(labels_N[:, None] == 1, 900, 250).repeat(2, axis=1)
    report = probe_shortcuts(cues_of(images_NSS), sizes_N2, labels_N, groups_N)
    assert report.native.value == 1.0
    assert report.native.low == pytest.approx(wilson(30, 30).low)
    assert report.majority.low < wilson(45, 90).low


@pytest.mark.parametrize(
    ("reasons", "code", "words"),
    [
        ([], 0, ""),
        (["no_label", "clutter"], 0, ""),
        (["truncated", "no_label"], 3, "Labelled, but not to be read: 1 images"),
        (["storage_error", "not_in_archive"], 3, "1 could not be read now, a.tar the first."),
    ],
)
def test_labelled_images_that_could_not_be_read_are_said(
    capsys: pytest.CaptureFixture[str], reasons: list[str], code: int, words: str
) -> None:
    excluded = tuple(Excluded("a.tar", "", reason) for reason in reasons)
    nothing = np.zeros(0, np.int64)
    pictures = np.zeros((0, 8, 8), np.uint8)
    held = LabelledSet(pictures, nothing, nothing, nothing, (), ("a", "b"), excluded, "f")
    assert say_missing(held) == code
    out = capsys.readouterr().out
    assert words in out
    assert bool(out) == bool(code)


@pytest.mark.parametrize("folds", [0, 3])
def test_printed_figures_name_their_data_and_intervals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], folds: int
) -> None:
    at = np.arange(60)
    pictures = np.random.default_rng(0).integers(0, 255, (60, 16, 16), dtype=np.uint8)
    places = tuple(("a.tar", str(number)) for number in at)
    sizes = np.full((60, 2), 16)
    held = LabelledSet(pictures, at % 2, at, sizes, places, ("a", "b"), (), "f")
    division = divide(held, SplitSettings(folds=folds))
    config = from_document({}, "a test")
    call = Call(("s3://b/x", "y"), None, tmp_path / "m", config, Workers(1, 1), resume=False)
    summarise(call, held, division, "m@1", {"top_1": wilson(9, 10)})
    out = capsys.readouterr().out
    tests = len(division.shipped.test_N)
    parts = "Test parts of 3 folds" if folds else "Test part"
    count = 60 if folds else tests
    assert f"{parts} of s3://b/x, y, {count} images; 95 % intervals:\n" in out
    assert "0.900 (0.596 to 0.982), 10 images\n" in out


def a_call(folder: Path, document: dict[str, object]) -> Call:
    config = from_document(document, "a test")
    return Call(("s3://b/x",), None, folder / "m", config, Workers(1, 1), resume=False)


def test_a_training_at_once_is_divided_to_parts_that_it_can_be_fitted_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_run, "MAX_IMAGES", 20)
    at = np.arange(60)
    pictures = np.random.default_rng(0).integers(0, 255, (60, 16, 16), dtype=np.uint8)
    places = tuple(("a.tar", str(number)) for number in at)
    held = LabelledSet(pictures, at % 2, at, np.full((60, 2), 16), places, ("a", "b"), (), "f")
    for architecture, count in (("fisher", 20), ("resnet18", 20 + 20)):
        document = {"network": {"architecture": architecture}, "split": {"folds": 3}}
        division = divide_set(held, a_call(tmp_path, document).config)
        assert len(division.shipped.train_N) == count
        assert [len(split.train_N) for split in division.folds] == [20] * 3
        assert [len(split.test_N) for split in division.folds] == [20] * 3
    whole = divide(held, SplitSettings(folds=3), most=5)
    assert [len(split.train_N) for split in whole.folds] == [4] * 3


def test_a_training_at_once_is_not_gone_on_with_by_another_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [a_call(tmp_path, {"network": {"architecture": it}}) for it in ("fisher", "resnet18")]
    before = [training_name(call, "f") for call in calls]
    assert before == [training_name(call, "f") for call in calls]
    monkeypatch.setattr(training_run, "RECIPE", RECIPE + 1)
    assert [training_name(call, "f") == name for call, name in zip(calls, before, strict=True)] == [
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("counts", "has_segmenter", "words"),
    [
        ((0, 40, 2), True, ["Masks: 2 given, 40 automatic, 0 poor"]),
        (
            (42, 38, 0),
            False,
            [
                "Masks: 0 given, 38 automatic, 42 poor.",
                "  The poor ones are not used: it is learned how an implant lies from the others. "
                "None need be corrected.",
            ],
        ),
        (
            (42, 38, 0),
            True,
            [
                "Masks: 0 given, 38 automatic, 42 poor.",
                "  The poor ones are not used: the segmenter learns from the others. "
                "None need be corrected.",
                "  42 of them are in poor; corrected there, and named by segmenter.masks in "
                "another training, they teach its segmenter, too.",
            ],
        ),
    ],
)
def test_poor_masks_are_no_task_for_the_user(
    counts: tuple[int, int, int], has_segmenter: bool, words: list[str]
) -> None:
    lines = describe_masks(counts, counts[0], Path("poor"), has_segmenter=has_segmenter)
    assert [*lines] == words


@pytest.mark.parametrize(
    ("split", "synthetic", "is_warned"),
    [
        ({"duplicate_bits": 8}, False, True),
        ({"duplicate_bits": 8}, True, False),
        ({}, False, False),
    ],
)
def test_a_weak_guard_against_near_duplicates_is_warned_of(
    split: dict[str, int],
    synthetic: bool,
    is_warned: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    warn_of_bits(from_document({"split": split, "card": {"synthetic": synthetic}}, "a test"))
    assert ("WARNING: split.duplicate_bits is 8" in capsys.readouterr().out) == is_warned


def test_what_is_odd_about_a_set_is_said_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = np.arange(200)
    pictures = np.random.default_rng(0).integers(0, 255, (200, 16, 16), dtype=np.uint8)
    places = tuple(("a.tar", str(number)) for number in at)
    names = tuple(f"class {number:02}" for number in range(20))
    held = LabelledSet(pictures, at % 20, at, np.full((200, 2), 9), places, names, (), "f")
    cues = report_set(held, divide(held, SplitSettings()), tmp_path / "set.txt")
    out = capsys.readouterr().out
    kept = (tmp_path / "set.txt").read_text()
    assert f"  stored size: {cues.native}\n" in out
    assert f"  and 8 classes more, in {tmp_path / 'set.txt'}\n" in out
    assert [name for name in names if name not in kept] == []
    assert sum(name in out for name in names) == 12


CONFIG = """
name = "trial"
[preprocessing]
size_px = 32
[split]
calibration = 0.3
test = 0.3
duplicate_bits = 4
[segmenter]
width = 4
reduction = 2
epochs = 4
batch_size = 4
[network]
architecture = "shufflenet_v2_x0_5"
[fit]
epochs = 2
batch_size = 16
validation = 0.2
patience = 2
mixed_precision = false
[card]
source = "Phantoms of this test."
licence = "Apache-2.0"
synthetic = true
[gallery]
per_class = 3
source = "Phantoms of this test."
licence = "Apache-2.0"
"""


def shipped_top_1(package: ModelPackage, archives: Path, tmp_path: Path) -> float:
    """The package's share right on its own test part, as a user of the package would find it."""
    labels = read_labels(str(tmp_path / "labels.csv"))
    spec = package.preprocessing
    labelled = load_set([str(archives)], labels, spec, Limits(), str(tmp_path / "again"))
    settings = load_config(str(tmp_path / "train.toml")).split
    test_N = divide(labelled, settings).shipped.test_N
    predictions = Classifier(package).classify(labelled.images_NSS[test_N])
    right_N = predictions.probabilities_NC.argmax(axis=1) == labelled.labels_N[test_N]
    return float(right_N.mean())


@pytest.mark.cluster
@pytest.mark.long
def test_two_workers_make_a_package_that_classifies(
    tmp_path: Path, ray_cluster: RayCluster
) -> None:
    sample = Sample(implants=ORTHONET.implants[7:9], height_px=96, images_per_patient=2)
    archives = tmp_path / "archives"
    sample_archives(archives, 48, 5, sample)
    (archives / "labels.csv").rename(tmp_path / "labels.csv")
    (tmp_path / "train.toml").write_text(CONFIG)
    output = tmp_path / "model"
    done = ray_cluster.run(
        *("jobs.train", "--images", str(archives), "--workers", "2"),
        *("--labels", str(tmp_path / "labels.csv"), "--config", str(tmp_path / "train.toml")),
        *("--output", str(output)),
        timeout_s=540,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "train: exit code 0"
    assert "48 images of 2 classes; 0 left out" in done.stdout
    package = load_package(str(output))
    assert package.id in done.stdout
    references = load_references(package)
    assert references is not None
    assert references.label_R.tolist() == [0] * 3 + [1] * 3
    assert "no evidence about patients" in package.card
    assert "Not a medical device" in package.card
    assert [(spec.role, spec.channels) for spec in package.networks] == [
        ("segmenter", 1),
        ("classifier", 1),
        ("classifier", 2),
    ]
    assert "| Segmenter's Dice |" in package.card
    for name, epochs in (("segmenter", 4), ("radiograph", 2), ("cut-out", 2)):
        assert f"  {name}: epoch {epochs} of {epochs}, loss" in done.stdout
        kept = tmp_path / "model.work" / "checkpoints"
        assert [*kept.glob(f"*-{name}/*/state.pt")] != []

    figures = package.metrics["figures"]
    assert isinstance(figures, dict)
    assert figures["top_1"]["value"] == pytest.approx(shipped_top_1(package, archives, tmp_path))

    with (tmp_path / "model.work" / "excluded.csv").open(encoding="utf-8-sig") as file:
        assert list(csv.reader(file)) == [["archive", "member", "reason"]]
    with pytest.raises(UsageError, match="is there already"):
        main(["--images", str(archives), "--output", str(output), "--resume"])
