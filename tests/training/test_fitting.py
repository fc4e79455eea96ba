"""What a training fits, the masks that its segmenter learns from, and how its progress is told."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

from implant_model.decode.preprocess import Preprocessing, preprocess
from implant_model.errors import UsageError
from implant_model.networks.build import build
from implant_model.networks.spec import NetworkSpec
from implant_model.networks.weights import weights_bytes
from implant_model.novelty import fit_novelty
from implant_model.package.catalogue import ORTHONET
from implant_model.phantoms.render import render
from tests.support.ray_cluster import RayCluster
from training.calibrate import run_networks, score
from training.config import TrainConfig
from training.data.labelled import LabelledSet
from training.data.shards import in_parts
from training.fit import fitting, scoring
from training.fit.fitting import specs_of, watched
from training.fit.segmenting import masked_examples, measure_segmenter, segmenter_task
from training.fit.trainer import fit_network
from training.fit.worker_inputs import Material
from training.fit.workers import Workers
from training.masks.mask_files import write_masks
from training.masks.mask_set import BY_HAND, GOOD, POOR, MaskSet, gather_masks, write_poor
from training.settings import Augmentation, SegmenterSettings

SIZE_PX = 64
IMAGE = Preprocessing(size_px=SIZE_PX, trim_borders=False)
MASK = Preprocessing(size_px=SIZE_PX, trim_borders=False, low_percent=0.0, high_percent=100.0)


@pytest.fixture(scope="module")
def phantoms() -> tuple[LabelledSet, np.ndarray]:
    """24 hips and 24 knees with their true masks."""
    images, masks = [], []
    for number in range(48):
        implant = ORTHONET.implants[7 + number % 2]
        phantom = render(implant, np.random.default_rng(number), 96)
        images.append(preprocess(phantom.pixels_HW, IMAGE))
        masks.append(preprocess(phantom.mask_HW.astype(np.uint8) * 255, MASK) > 127)
    labelled = LabelledSet(
        np.stack(images),
        np.arange(48) % 2,
        np.arange(48) // 2,
        np.full((48, 2), 96),
        tuple(("a.tar", f"{number}.dcm") for number in range(48)),
        ("exeter", "sigma"),
        (),
        "e" * 64,
    )
    return labelled, np.stack(masks)


@pytest.fixture
def joined(ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as a driver on the session's cluster."""
    for name, value in ray_cluster.environment.items():
        monkeypatch.setenv(name, value)
    ray.init(address=ray_cluster.address, log_to_driver=False)
    yield
    ray.shutdown()


def test_with_a_segmenter_the_networks_are_those_of_orthonet() -> None:
    config = TrainConfig(segmenter=SegmenterSettings(width=4))
    specs = specs_of(config)
    assert [(spec.role, spec.channels) for spec in specs] == [
        ("segmenter", 1),
        ("classifier", 1),
        ("classifier", 2),
    ]
    assert [spec.file for spec in specs_of(TrainConfig())] == ["classifier.safetensors"]


@pytest.mark.cluster
def test_masks_by_hand_go_before_automatic_ones(
    joined: None, phantoms: tuple[LabelledSet, np.ndarray], tmp_path: Path
) -> None:
    labelled, true_NSS = phantoms
    alone = gather_masks(labelled, "", str(tmp_path / "cache"))
    assert (alone.grades_N == POOR).any()
    written = write_poor(labelled, alone, tmp_path / "poor")
    assert written == int((alone.grades_N == POOR).sum())
    assert len(list((tmp_path / "poor" / "a.tar").glob("*.dcm.png"))) == written

    write_masks(tmp_path / "hand", ["a.tar/3.dcm"], labelled.images_NSS[3:4], true_NSS[3:4])
    mixed = gather_masks(labelled, str(tmp_path / "hand"), str(tmp_path / "cache"))
    assert mixed.grades_N[3] == BY_HAND
    assert (mixed.masks_NSS[3] == true_NSS[3]).all()
    assert mixed.digest != alone.digest
    assert mixed.measuring(np.arange(48)).tolist() == [3]
    others_N = np.delete(np.arange(48), 3)
    assert (mixed.masks_NSS[others_N] == alone.masks_NSS[others_N]).all()

    (tmp_path / "hand" / "a.tar" / "4.dcm.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"^Mask 2 of 2 in .*, by path, is no PNG"):
        gather_masks(labelled, str(tmp_path / "hand"), str(tmp_path / "cache"))


@pytest.mark.cluster
def test_rays_tasks_score_as_this_process_does(
    joined: None, phantoms: tuple[LabelledSet, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled, _ = phantoms
    spec = NetworkSpec("a.safetensors", "classifier", "shufflenet_v2_x0_5")
    files = {spec: weights_bytes(build(spec, 2))}
    images, positions_N = labelled.images_NSS, np.arange(47, 0, -1)
    train = run_networks(files, 2, in_parts(images), "cpu")
    reference = fit_novelty(train.features_NF, labelled.labels_N, 2)
    here = score(files, 2, reference, in_parts(images, positions_N), "cpu")
    monkeypatch.setattr(scoring, "TASK_IMAGES", 20)
    there = scoring.score_by_ray(files, 2, reference, images, positions_N, use_gpu=False)
    np.testing.assert_allclose(there.logits_NK, here.logits_NK, atol=1e-5)
    np.testing.assert_allclose(there.novelty_N, here.novelty_N, rtol=1e-3)
    np.testing.assert_allclose(here.logits_NK, train.logits_NK[positions_N], atol=1e-5)
    known = scoring.describe_known(
        *(files, 2, images, np.arange(48), labelled.labels_N, "mahalanobis", "cpu"), use_gpu=False
    )
    assert known.to_bytes() == reference.to_bytes()  # so few are one matrix
    for name in ("MAX_WHOLE", "MAX_HERE"):  # summed up here, then by the tasks
        monkeypatch.setattr(scoring, name, 10)
        known = scoring.describe_known(
            *(files, 2, images, np.arange(48), labelled.labels_N, "mahalanobis", "cpu"),
            use_gpu=False,
        )
        np.testing.assert_allclose(
            known.score(train.features_NF), reference.score(train.features_NF), rtol=1e-2
        )


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own settings
def test_two_workers_fit_a_segmenter_that_is_as_good_as_ones(
    joined: None, phantoms: tuple[LabelledSet, np.ndarray], tmp_path: Path
) -> None:
    labelled, true_NSS = phantoms
    masks = MaskSet(true_NSS, np.full(48, GOOD, np.uint8), "digest")
    settings = SegmenterSettings(width=4, epochs=12, batch_size=4, learning_rate=1e-2)
    gentle = Augmentation(rotation_deg=8.0, scale=0.1, shift=0.04, blur_px=0.5, resolution=0.0)
    task = segmenter_task(TrainConfig(segmenter=settings, augment=gentle))
    material = Material(masked_examples(labelled.images_NSS, masks, np.arange(36)))
    dices, losses, files = [], [], []
    for workers in (1, 2):
        count = Workers(workers, workers)
        curve = tmp_path / f"{workers}.jsonl"
        place = f"by-{workers}", str(tmp_path / "checkpoints"), curve
        network = build(task.spec, 2)
        network.load_state_dict(fit_network(material, task, *place, count, use_gpu=False))
        files.append(weights_bytes(network))
        test_N = np.arange(36, 48)
        found = measure_segmenter(
            settings, files[-1], labelled.images_NSS, masks, test_N, device="cpu"
        )
        dices.append(float(np.mean(found.dice_N)))
        losses.append(json.loads(curve.read_text().splitlines()[-1])["loss"])
    assert files[0] != files[1]
    assert min(dices) > 0.8
    assert abs(dices[0] - dices[1]) < 0.05
    assert losses[0] == pytest.approx(losses[1], rel=0.3)


def test_progress_is_said_once_an_epoch_and_not_for_what_was_done_before(tmp_path: Path) -> None:
    curve = tmp_path / "curve.jsonl"
    curve.write_text(json.dumps({"epoch": 4, "loss": 1.0}) + "\n")
    lines: list[str] = []
    with watched(curve, "radiograph", 6, lines.append, every_s=60):
        pass
    assert lines == []
    with watched(curve, "radiograph", 6, lines.append, every_s=60), curve.open("a") as file:
        file.write(json.dumps({"epoch": 5, "loss": 0.5}) + '\n{"epoch": 6, "lo')
    assert lines == ["  radiograph: epoch 6 of 6, loss 0.5000"]


def test_each_epoch_has_its_line_and_so_has_a_long_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = tmp_path / "curve.jsonl"
    lines: list[str] = []
    monkeypatch.setattr(fitting, "SILENCE_S", 0.05)
    with watched(curve, "radiograph", 3, lines.append, every_s=0.02):
        time.sleep(0.3)
        waiting = len(lines)
        curve.write_text("".join(f'{{"epoch": {n}, "loss": {n}.5}}\n' for n in range(3)))
        time.sleep(0.2)
    assert waiting >= 1
    assert "radiograph: no epoch has ended in 0 s; Ray starts the workers" in lines[0]
    said = [line for line in lines if "no epoch" not in line]
    assert said == [f"  radiograph: epoch {n + 1} of 3, loss {n}.5000" for n in range(3)]
