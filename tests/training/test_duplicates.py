"""Near duplicates: all that comparing each pair would find, in random and in clustered sets."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.pictures import encoded
from training.data import duplicates
from training.data.duplicates import duplicate_groups, near_groups
from training.data.links import Components


def picture(seed: int) -> Image.Image:
    """A random pattern of its own."""
    coarse = np.random.default_rng(seed).integers(20, 235, (24, 24), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((200, 200), Image.Resampling.BICUBIC)
    return Image.open(io.BytesIO(encoded(image)))


def test_near_duplicates_survive_rescaling_and_jpeg() -> None:
    pictures = [picture(seed) for seed in range(20)]
    buffer = io.BytesIO()
    pictures[3].resize((150, 150)).save(buffer, "JPEG", quality=40)
    pictures.append(Image.open(buffer))
    images = np.stack([np.asarray(item.convert("L").resize((96, 96))) for item in pictures])
    assert duplicate_groups(images, 20).tolist() == [*range(20), 3]


def by_all_pairs(hashes_NB: np.ndarray, most_bits: int) -> np.ndarray:
    """The groups as comparing each hash with each later one gives them, joined one by one."""
    group_N = np.arange(len(hashes_NB))
    bits_NN = np.bitwise_count(hashes_NB[:, None] ^ hashes_NB[None]).sum(axis=2)
    for low, high in np.argwhere(bits_NN <= most_bits).tolist():
        first, second = sorted((group_N[low], group_N[high]))
        group_N[group_N == second] = first
    return group_N


def flipped(hashes_NB: np.ndarray, counts_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each hash with so many of its bits changed."""
    order = rng.random((len(hashes_NB), 256)).argsort(axis=1).argsort(axis=1)
    return hashes_NB ^ np.packbits(order < counts_N[:, None], axis=1)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 1 << 30),
    st.integers(1, 300),
    st.sampled_from([0, 1, 3, 4, 8, 17, 40, 41, 63, 100]),
    st.integers(1, 60),
    st.sampled_from([1, 8, 128]),
    st.sampled_from([1, 16, 1 << 10]),
)
def test_groups_are_those_of_all_pairs(
    seed: int, count: int, most_bits: int, num_sources: int, bucket: int, few: int
) -> None:
    """Copies of a few sources, as far from them as is still, and as is no longer, the same."""
    rng = np.random.default_rng(seed)
    sources = rng.integers(0, 256, (num_sources, 32), dtype=np.uint8)
    sources[:, : rng.integers(33)] = sources[0, 0]  # what does not vary
    copies = sources[rng.integers(num_sources, size=count)]
    hashes_NB = flipped(copies, rng.integers(0, most_bits + 3, count), rng)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BUCKET", bucket)  # few and many bands
        patch.setattr(duplicates, "FEW_PAIRS", few)
        patch.setattr(duplicates, "PAIRS_AT_ONCE", 64)
        found = near_groups(hashes_NB, most_bits)
    assert found.tolist() == by_all_pairs(hashes_NB, most_bits).tolist()


def test_a_pair_is_found_at_the_bits_exactly_and_not_beyond() -> None:
    """3,000 pairs, each as far apart as the bits allow; and as many, one bit farther."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (3000, 32), dtype=np.uint8)
    for bits in (4, 40):
        near = near_groups(np.concatenate([first, flipped(first, np.full(3000, bits), rng)]), bits)
        assert near.tolist() == [*range(3000), *range(3000)]
        far = near_groups(
            np.concatenate([first, flipped(first, np.full(3000, bits + 1), rng)]), bits
        )
        assert far.tolist() == [*range(6000)]


def test_equal_pictures_are_one_group_without_comparing_them() -> None:
    """A million pairs and more would be; most of a set may be one blank picture."""
    hashes_NB = np.zeros((50_000, 32), np.uint8)
    hashes_NB[-1] = 255
    assert near_groups(hashes_NB, 40).tolist() == [0] * 49_999 + [49_999]


def test_no_hashes_have_no_groups() -> None:
    assert near_groups(np.zeros((0, 32), np.uint8), 40).tolist() == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=60))
def test_components_are_named_by_their_first(links: list[tuple[int, int]]) -> None:
    components = Components(30)
    for start in range(0, len(links), 7):
        part = np.array(links[start : start + 7], np.int64).reshape(-1, 2)
        components.link(part[:, 0], part[:, 1])
    group_N = np.arange(30)
    for one, other in links:
        first, second = sorted((group_N[one], group_N[other]))
        group_N[group_N == second] = first
    assert components.all_roots().tolist() == group_N.tolist()
