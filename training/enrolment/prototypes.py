"""Rows of a last layer for new implants, from the mean embeddings of a few images of each.

A new implant's row is that of the known implants that the network takes it for, a blend of their
rows, plus a linear discriminant (Fisher 1936) from the same blend of their centres to the new one's
mean embedding, the prototype (Snell et al. 2017), in the covariance that the package's novelty
reference holds, shrunk to a ball. No covariance is estimated from a few images. Known rows stay as
they are (after Qi et al. 2018, who imprint rows), so the networks, and OpenVINO's conversion of
them, stay, too. What scores become logits by, one scale and one offset for all new implants, is
fitted to the new images, each scored by prototypes that were made without its group, against images
of the known implants that the networks did not learn from. Of an implant without such images points
are drawn around its mean instead: a package holds no radiograph of it. Around means of images that
trained them the networks name nearly every point right, so that rows that are fitted to such points
take known images for new implants. So the points are pulled to the middle of all means until the
networks name as many right as were measured right.

Letters: N images, G groups, C known implants, J new ones, M networks, F features of one network (of
all of them side by side in the novelty reference), K axes, P drawn points.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from implant_model.calibration import softmax
from implant_model.networks.build import Ensemble
from implant_model.novelty import NoveltyReference
from training.enrolment.embedded import Embedded, Floats, Indices, lengths, means, unit
from training.enrolment.head_rows import SHARES, RowTask, Space, append_rows, fit_rows
from training.enrolment.known_points import known_centres, known_points


@dataclass(frozen=True)
class Enrolment:
    """New implants in a package.

    Attributes:
        reference: The novelty reference with the new implants' centres behind the known ones.
        logs_NC: Of the new images by rows that were made without their group, as `Ensemble` gives.
        novelty_N: Of the new images, from centres that were made without their group.
        drawn_logs_PC: Of what stands for the known implants, by the final rows.
    """

    reference: NoveltyReference
    logs_NC: Floats
    novelty_N: Floats
    drawn_logs_PC: Floats


def enrol_implants(
    networks: Ensemble,
    reference: NoveltyReference,
    temperature: float,
    images: Embedded,
    known: Embedded | None = None,
    accuracy: float | None = None,
) -> Enrolment:
    """Give each network of a package rows for new implants; the networks are changed in place.

    Args:
        networks: Of the package, with heads for C implants.
        reference: Of the package.
        temperature: Of the package.
        images: Of new implants alone; of each at least two groups.
        known: Of known implants, which the networks did not learn from; None or empty without any.
        accuracy: Measured share of images whose best candidate is right; None where it is not
            known.
    """
    num_known = len(reference.centres_CF)
    labels_N = images.labels_N - num_known
    drawn_PF, drawn_labels_P = known_points(networks, reference, images, known, accuracy)
    splits = np.cumsum([network.num_features for network in networks.members])[:-1]
    points = np.split(drawn_PF, splits, axis=1)
    centres = np.split(known_centres(reference, images.features_NF), splits, axis=1)
    axes = np.split(reference.within.axes_KF.astype(np.float64), splits, axis=1)
    held_out, drawn = [], []
    for network, raw_NF, points_PF, centres_CF, axes_KF, length in zip(
        networks.members, images.raw, points, centres, axes, lengths(images), strict=True
    ):
        spaces = [
            Space(network, centres_CF, axes_KF, reference.within, length, share) for share in SHARES
        ]
        task = RowTask(raw_NF, labels_N, images.groups_N, points_PF * length, drawn_labels_P)
        rows = fit_rows(spaces, task, temperature)
        held_out.append(rows.held_out_NC)
        drawn.append(rows.drawn_PC)
        append_rows(network, rows)
    placed_NF = placed(reference, images.features_NF)
    return Enrolment(
        _with_centres(reference, means(placed_NF, labels_N)),
        _average(held_out),
        held_out_novelty(reference, images.features_NF, labels_N, images.groups_N),
        _average(drawn),
    )


def held_out_novelty(
    reference: NoveltyReference, features_NF: Floats, labels_N: Indices, groups_N: Indices
) -> Floats:
    """Return the novelty of new images from centres that were made without their group."""
    placed_NF = placed(reference, features_NF)
    novelty_N = np.zeros(len(features_NF))
    for group in np.unique(groups_N).tolist():
        centres_JF = _means_without(placed_NF, labels_N, groups_N, group)
        inside_N = groups_N == group
        novelty_N[inside_N] = _with_centres(reference, centres_JF).score(features_NF[inside_N])
    return novelty_N


def placed(reference: NoveltyReference, features_NF: Floats) -> Floats:
    """Return embeddings in the space of the reference's centres."""
    if reference.method != "normalised_mahalanobis":
        return features_NF
    return unit(features_NF - reference.mean_F.astype(np.float64))


def _with_centres(reference: NoveltyReference, centres_JF: Floats) -> NoveltyReference:
    centres = np.concatenate((reference.centres_CF, centres_JF.astype(np.float32)))
    return replace(reference, centres_CF=centres)


def _means_without(vectors_NF: Floats, labels_N: Indices, groups_N: Indices, group: int) -> Floats:
    others_N = groups_N != group
    return means(vectors_NF[others_N], labels_N[others_N])


def _average(logits: Sequence[Floats]) -> Floats:
    """Return logs of the networks' averaged probabilities, as `Ensemble.average` does."""
    shares = np.mean([softmax(each) for each in logits], axis=0)
    return np.asarray(np.log(np.maximum(shares, 1e-300)), np.float64)
