"""The classifier of upright local descriptors: fitted, packed, run and explained on phantoms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch.nn import functional

from implant_model.decode.preprocess import Preprocessing, preprocess
from implant_model.errors import PackageError, UsageError
from implant_model.networks.build import Ensemble, ImplantClassifier, build, fold_batch_norms
from implant_model.networks.descriptors import describe, even_greys
from implant_model.networks.fisher import EdgeFisherBackbone, LiteFisherBackbone, resized
from implant_model.networks.lite_trunk import (
    LITE1,
    LITE2,
    LiteSize,
    LiteTrunk,
    _SameConv2d,
    trunk_state,
)
from implant_model.networks.spec import FISHER, FISHER_LITE, NetworkSpec
from implant_model.networks.weights import load_network, weights_bytes
from implant_model.phantoms.render import render_unknown
from implant_model.saliency import heat_maps
from tests.support.package_samples import calibrated_norms
from training.config import from_document
from training.fisher.fit_fisher import FisherTask, _at_side, fit_fisher, fit_shares
from training.fisher.gmm import fit_mixture, main_axes
from training.masks.automatic import find_mask

SPEC = NetworkSpec("classifier.safetensors", "classifier", FISHER, mean=0.0, std=1.0)
LITE = replace(SPEC, architecture=FISHER_LITE)
KINDS = ("humeral-stem", "reverse-shoulder")
EACH = 10


def phantoms(seed: int, each: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels_N = np.repeat(np.arange(len(KINDS)), each)
    images = [
        preprocess(render_unknown(rng, 256, KINDS[label]).pixels_HW, Preprocessing(size_px=224))
        for label in labels_N
    ]
    return np.stack(images), labels_N


@pytest.fixture(scope="module")
def task() -> FisherTask:
    images_NSS, labels_N = phantoms(1, EACH)
    found = [find_mask(image_SS) for image_SS in images_NSS]
    masks_NSS = np.stack([graded.mask_HW for graded in found])
    usable_N = np.array([not graded.grade.reasons for graded in found])
    return FisherTask(images_NSS, labels_N, masks_NSS, usable_N, len(KINDS), 0.3, 0)


@pytest.fixture(scope="module")
def network(task: FisherTask) -> ImplantClassifier:
    return packed(SPEC, task)


def as_tensor(images_NSS: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images_NSS)[:, None].float() / 255


def test_a_fitted_network_tells_phantoms_that_it_has_not_seen(network: ImplantClassifier) -> None:
    images_NSS, labels_N = phantoms(2, 6)
    named_N = network(as_tensor(images_NSS)).argmax(dim=1).numpy()
    assert (named_N == labels_N).mean() >= 10 / 12


def test_an_image_is_named_alike_alone_and_among_others(
    network: ImplantClassifier, task: FisherTask
) -> None:
    images = as_tensor(task.images_NSS[:3])
    assert network.features(images)[1:2].equal(network.features(images[1:2]))


def test_an_image_without_an_edge_has_an_embedding(network: ImplantClassifier) -> None:
    embedding = network.features(torch.full((1, 1, 224, 224), 0.5))
    assert embedding.shape == (1, EdgeFisherBackbone.num_features)
    assert bool(torch.isfinite(embedding).all())


def test_a_faint_implant_is_described_nearly_like_a_bright_one(task: FisherTask) -> None:
    view_HW = as_tensor(task.images_NSS[:1])[0, 0]
    faint_HW = 0.35 + 0.3 * view_HW
    everywhere = torch.ones(1, 1, 8, 8)

    def kept(evened: bool) -> float:
        bright, faint = (describe(hw, everywhere, evened) for hw in (view_HW, faint_HW))
        return len(faint.counts_N) / len(bright.counts_N)

    assert kept(evened=True) > 0.3
    assert kept(evened=False) < 0.15


def test_a_network_of_0_1_0_is_read_with_the_greys_that_it_was_fitted_to(
    network: ImplantClassifier, task: FisherTask
) -> None:
    backbone = network.backbone
    assert isinstance(backbone, EdgeFisherBackbone)
    tensors = load(weights_bytes(network))
    del tensors["backbone.evened"]
    old = load_network(SPEC, len(KINDS), save(tensors))
    assert isinstance(old, ImplantClassifier)
    image = as_tensor(task.images_NSS[:1])
    vectors = [
        backbone.encode(describe(view_HW, backbone.presence_11QQ, evened=False))
        for view_HW in backbone.views(image)
    ]
    assert old.features(image)[0].equal(torch.stack(vectors).mean(dim=0))
    assert not old.features(image).equal(network.features(image))


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0])
def test_greys_are_evened_or_not(network: ImplantClassifier, value: float) -> None:
    tensors = load(weights_bytes(network))
    tensors["backbone.evened"] = torch.full((1,), value)
    with pytest.raises(PackageError, match=f"backbone.evened is {value}; 0 or 1 is accepted"):
        load_network(SPEC, len(KINDS), save(tensors))


def test_images_that_give_too_few_descriptors_are_refused(task: FisherTask) -> None:
    few = np.flatnonzero(task.usable_N)[:3]
    black = replace(
        task,
        images_NSS=np.zeros_like(task.images_NSS[few]),
        labels_N=task.labels_N[few],
        masks_NSS=task.masks_NSS[few],
        usable_N=task.usable_N[few],
    )
    with pytest.raises(UsageError, match="The 3 images of the training part give 0 descriptors"):
        fit_fisher(black)


def test_images_of_another_side_are_brought_to_the_search_s_one_by_one(task: FisherTask) -> None:
    large_NSS = task.images_NSS.repeat(2, axis=1).repeat(2, axis=2)[:2]
    together = resized(torch.from_numpy(large_NSS)[:, None].float() / 255)
    assert _at_side(large_NSS).equal(together)


def test_the_same_seed_fits_the_same_network(task: FisherTask) -> None:
    few = np.r_[0:4, EACH : EACH + 4]
    small = FisherTask(
        task.images_NSS[few], task.labels_N[few], task.masks_NSS[few], np.ones(8, bool), 2, 0.3, 5
    )
    first, second = fit_fisher(small).state, fit_fisher(small).state
    assert all(first[name].equal(second[name]) for name in first)


def test_a_held_out_image_is_judged_without_its_label(task: FisherTask) -> None:
    few = np.r_[0:6, EACH : EACH + 6]
    labels_N = task.labels_N[few]
    folds_N = np.arange(12) % 3

    def held_out(labels_N: NDArray[np.int64]) -> NDArray[np.float32]:
        images_NSS, masks_NSS = task.images_NSS[few], task.masks_NSS[few]
        usable_N = np.ones(12, bool)
        return fit_fisher(
            FisherTask(images_NSS, labels_N, masks_NSS, usable_N, 2, 0.3, 5, folds_N)
        ).held_out_NK

    right = held_out(labels_N)
    assert (right.argmax(axis=1) == labels_N).mean() >= 0.75
    wrong_N = labels_N.copy()
    wrong_N[0] = 1 - wrong_N[0]
    wrong = held_out(wrong_N)
    assert (wrong[folds_N == folds_N[0]] == right[folds_N == folds_N[0]]).all()
    assert (wrong[folds_N != folds_N[0]] != right[folds_N != folds_N[0]]).any(axis=1).all()


def test_heat_lies_on_the_implant(network: ImplantClassifier, task: FisherTask) -> None:
    good = np.flatnonzero(task.usable_N)[:4]
    heat = heat_maps(Ensemble([network]), task.images_NSS[good], task.labels_N[good])
    assert heat.shape == task.images_NSS[good].shape
    assert heat.max() == 1
    assert heat.min() == 0
    on = heat[task.masks_NSS[good]].sum() / heat.sum()
    assert on > 2 * task.masks_NSS[good].mean()


def test_a_mixture_finds_separate_clouds() -> None:
    generator = torch.Generator().manual_seed(0)
    clouds = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    points = (clouds[:, None] + 0.5 * torch.randn(3, 300, 2, generator=generator)).flatten(0, 1)
    mixture = fit_mixture(points, 3, seed=1)
    nearest = torch.cdist(clouds, mixture.means_GE).min(dim=1).values
    assert float(nearest.max()) < 0.2
    assert mixture.shares_G.tolist() == pytest.approx([1 / 3] * 3, abs=0.02)
    assert (1 / mixture.sharpness_GE).flatten().tolist() == pytest.approx([0.5] * 6, abs=0.06)


def test_main_axes_are_those_of_most_variance() -> None:
    points = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    points = points * torch.tensor([1.0, 5.0, 2.0]) + 3
    centre, basis, variances = main_axes(points, 2)
    assert centre.tolist() == pytest.approx([3, 3, 3], abs=0.4)
    assert basis.abs().argmax(dim=0).tolist() == [1, 2]
    assert variances.tolist() == pytest.approx([25, 4], rel=0.1)


def test_the_linear_layer_separates_what_is_separable_and_balances_what_is_not() -> None:
    products = torch.eye(4)
    shares, bias = fit_shares(products, torch.tensor([0, 1, 1, 0]), 2, 0.0)
    assert (products @ shares + bias).argmax(dim=1).tolist() == [0, 1, 1, 0]
    same, labels = torch.ones(10, 10), torch.tensor([0] * 8 + [1] * 2)
    for balance, share in ((0.0, 0.8), (1.0, 0.5)):
        shares, bias = fit_shares(same, labels, 2, balance)
        logits = same[0] @ shares + bias
        assert float(torch.softmax(logits, 0)[0]) == pytest.approx(share, abs=0.01)


def test_what_cannot_go_together_is_refused() -> None:
    with pytest.raises(UsageError, match="fisher has 1 input channel, not 2"):
        NetworkSpec("classifier.safetensors", "classifier", FISHER, channels=2)
    network = {"architecture": FISHER}
    with pytest.raises(UsageError, match=r"segmenter\.width is 16 and network\.architecture"):
        from_document({"network": network, "segmenter": {"width": 16}}, "a file")
    with pytest.raises(UsageError, match="which has no such first weights"):
        from_document({"network": {**network, "start_from": "models/phantom"}}, "a file")
    with pytest.raises(UsageError, match=r"calibration\.folds is 5 and network\.architecture"):
        from_document({"calibration": {"folds": 5}}, "a file")
    assert from_document({"network": network}, "a file").needs_masks
    assert not from_document({}, "a file").needs_masks


@pytest.fixture(scope="module")
def lite_task(task: FisherTask) -> FisherTask:
    """Of trunks of random weights: the recipe must work with them, not tell implants."""
    torch.manual_seed(0)
    trunks = [LiteTrunk(size).eval() for size in (LITE1, LITE2)]
    for trunk in trunks:
        calibrated_norms(trunk)
    few = np.r_[0:5, EACH : EACH + 5]
    return replace(
        task,
        images_NSS=task.images_NSS[few],
        labels_N=task.labels_N[few],
        masks_NSS=task.masks_NSS[few],
        usable_N=task.usable_N[few],
        architecture=FISHER_LITE,
        trunks=tuple(trunk.state_dict() for trunk in trunks),
    )


def packed(spec: NetworkSpec, task: FisherTask) -> ImplantClassifier:
    fitted = build(spec, len(KINDS))
    fitted.load_state_dict(fit_fisher(task).state)
    loaded = load_network(spec, len(KINDS), weights_bytes(fitted))
    assert isinstance(loaded, ImplantClassifier)
    return loaded


@pytest.fixture(scope="module")
def lite(lite_task: FisherTask) -> ImplantClassifier:
    return packed(LITE, lite_task)


def test_descriptors_of_trunks_tell_phantoms_that_they_have_not_seen(
    lite: ImplantClassifier,
) -> None:
    images_NSS, labels_N = phantoms(2, 4)
    named_N = lite(as_tensor(images_NSS)).argmax(dim=1).numpy()
    assert (named_N == labels_N).mean() >= 6 / 8


def test_each_trunk_sees_a_view_of_its_own(lite: ImplantClassifier, task: FisherTask) -> None:
    image = as_tensor(task.images_NSS[:1])
    backbone = lite.backbone
    assert isinstance(backbone, LiteFisherBackbone)
    parts = lite.features(image)[0].tensor_split([64 * (48 + 2)])
    for part, mixture, view_HW in zip(parts, backbone.mixtures, backbone.views(image), strict=True):
        found = mixture.describe(view_HW, backbone.presence_11QQ)
        assert part.equal(mixture.encode(found))
        assert float(part.norm()) == pytest.approx(1, abs=1e-3)


def test_trunks_are_held_out_together(lite_task: FisherTask) -> None:
    folds_N = np.arange(len(lite_task.labels_N)) % 2
    held_out_NK = fit_fisher(replace(lite_task, folds_N=folds_N)).held_out_NK
    assert (held_out_NK.argmax(axis=1) == lite_task.labels_N).mean() >= 0.6
    with pytest.raises(ValueError, match="shorter"):
        fit_fisher(replace(lite_task, trunks=()))


def test_a_trunk_gives_the_same_with_its_batch_norms_folded(
    lite: ImplantClassifier, task: FisherTask
) -> None:
    image = as_tensor(task.images_NSS[:1])
    before = lite.features(image)
    folded = load_network(LITE, len(KINDS), weights_bytes(lite))
    fold_batch_norms(folded)
    assert isinstance(folded, ImplantClassifier)
    assert before.shape == (1, LiteFisherBackbone.num_features)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    # Each part is of length one; trunks of random weights enlarge roundings, ImageNet's do not.
    assert float((folded.features(image) - before).norm()) < 0.02


def test_heat_of_trunks_lies_on_the_implant(lite: ImplantClassifier, task: FisherTask) -> None:
    good = np.flatnonzero(task.usable_N)[:3]
    heat = heat_maps(Ensemble([lite]), task.images_NSS[good], task.labels_N[good])
    on = heat[task.masks_NSS[good]].sum() / heat.sum()
    assert on > 1.5 * task.masks_NSS[good].mean()


def test_a_trunk_is_padded_as_tensorflow_pads() -> None:
    for side, kernel, stride in ((8, 3, 1), (8, 3, 2), (9, 3, 2), (9, 5, 1), (10, 5, 2)):
        layer = _SameConv2d(1, 1, kernel, stride, bias=False)
        picture = torch.rand(1, 1, side, side + 1)
        around = [
            max((-(-length // stride) - 1) * stride + kernel - length, 0)
            for length in (side + 1, side)
        ]
        frame = [part for whole in around for part in (whole // 2, whole - whole // 2)]
        padded = functional.pad(picture, frame)
        expected = functional.conv2d(padded, layer.weight, stride=stride)
        assert torch.allclose(layer(picture), expected, atol=1e-6)


def test_even_greys_are_offsets_from_the_mean_around() -> None:
    picture_1HW = torch.rand(1, 30, 41, generator=torch.Generator().manual_seed(0))

    def mean(values_1HW: torch.Tensor) -> torch.Tensor:
        framed = functional.pad(values_1HW[None], (4,) * 4, mode="replicate")
        return functional.avg_pool2d(framed, 9, 1)[0]

    offsets = picture_1HW - mean(picture_1HW)
    expected = 0.5 + 0.2 * offsets / (mean(offsets**2).sqrt() + 0.03)
    assert torch.allclose(even_greys(picture_1HW, 4), expected.clamp(0, 1), atol=1e-4)
    assert even_greys(torch.full((1, 9, 9), 0.7), 4).sub(0.5).abs().max() < 1e-3


def test_published_weights_of_colours_give_the_same_for_greys() -> None:
    torch.manual_seed(0)
    state = LiteTrunk(LITE1).state_dict()
    colours = torch.randn(32, 3, 3, 3)
    published = {**state, "_conv_stem.weight": colours, "_fc.weight": torch.zeros(10, 1280)}
    grey = trunk_state(published, LITE1)
    assert grey.keys() == state.keys()
    picture = torch.rand(1, 1, 8, 8)
    by_colours = functional.conv2d(picture.expand(-1, 3, -1, -1), colours)
    assert torch.allclose(
        functional.conv2d(picture, grey["_conv_stem.weight"]), by_colours, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"_blocks\.4\..* has the shape"):
        trunk_state(published, LITE2)
    del published["_bn0.weight"]
    with pytest.raises(KeyError):
        trunk_state(published, LITE1)


@pytest.mark.parametrize("size", [LITE1, LITE2])
def test_a_trunk_has_a_place_for_each_16_pixels(size: LiteSize) -> None:
    with torch.no_grad():
        maps = LiteTrunk(size).eval()(torch.zeros(1, 1, 224, 240))
    assert maps.shape == (1, size.channels, 14, 15)
