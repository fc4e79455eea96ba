"""A model that tells nothing is told from one that does."""

import pytest

from implant_model.package.load import load_package
from implant_model.package.weakness import weaknesses
from tests.support.paths import ROOT
from training.metrics import wilson


def figures(right: dict[str, tuple[int, int]]) -> dict[str, object]:
    """Figures of a test set by implant: images named right, and images."""
    total = wilson(sum(hits for hits, _ in right.values()), sum(n for _, n in right.values()))
    shares = {f"sensitivity: {name}": wilson(*hits) for name, hits in right.items()}
    return {name: figure.to_json() for name, figure in {"top_1": total, **shares}.items()}


def test_one_that_always_names_the_same_is_weak_in_two_ways() -> None:
    first, second = weaknesses(figures({"a": (0, 20), "b": (0, 20), "c": (21, 21)}))
    assert first.startswith("The best candidate is right in 34.4 % of the test images")
    assert "always naming the commonest implant, 34.4 %" in first
    assert second == "Of a, b no test image was named right: 2 of 3 implants."


def test_one_class_that_is_never_found_is_named() -> None:
    (only,) = weaknesses(figures({"a": (95, 100), "b": (0, 5), "c": (90, 100)}))
    assert only.startswith("Of b no test image was named right")
    many = {f"class-{n}": (0, 5) for n in range(9)} | {"a": (500, 500)}
    assert "class-4 and 4 more no test image" in [*weaknesses(figures(many))][-1]


def test_chance_is_no_strength() -> None:
    """Half of two equal classes right, or a little more of few images."""
    assert len([*weaknesses(figures({"a": (50, 100), "b": (50, 100)}))]) == 1
    assert len([*weaknesses(figures({"a": (4, 5), "b": (3, 5)}))]) == 1
    assert [*weaknesses(figures({"a": (80, 100), "b": (80, 100)}))] == []


@pytest.mark.parametrize(
    "odd", [{}, {"top_1": None}, {"top_1": {"value": None}}, {"sensitivity: a": {"value": "x"}}]
)
def test_what_is_missing_shows_no_weakness(odd: dict[str, object]) -> None:
    assert [*weaknesses(odd)] == []


def test_the_packages_that_ship_are_not_weak() -> None:
    for name in ("phantom", "shoulder"):
        assert load_package(str(ROOT / "models" / name), weights=False).weaknesses == ()
