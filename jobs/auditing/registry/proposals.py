"""The likeliest meaning of a text that is not surely known, for a person to accept or to refuse."""

from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

from jobs.auditing.registry.names import Names
from jobs.auditing.registry.spelling import FORMER, forms, is_harmless, maker, plain, written
from jobs.auditing.registry.words import BOTH, JOINTS, LEFT, RIGHT, SIDES, bare, kind_of

MIN_SCORE: Final = 0.6
"""Likeness below which nothing is proposed."""
MAX_SCORE: Final = 0.99
"""Likeness at most of what is proposed: what is sure is taken."""
_FORMER_SCORE: Final = 0.9
_MOST_WITHIN: Final = 0.85
"""Likeness at most of a text with all words of a name, and others that may make it another."""
_FIRST_WORD: Final = 0.8
"""Likeness of first words from which the others are thought to be additions."""
_OTHERS: Final = frozenset(("cup", "head", "liner", "cement", "screw", "neck"))
"""Components that are never a stem of the same name, which alone is proposed else."""
_SIDE_WORDS: Final = {LEFT: "left", RIGHT: "right", BOTH: "both"}
Proposal = tuple[str, float]
"""A word that `means` accepts, and how alike it is, 0..1."""


def propose(field: str, text: str, names: Names, made: Iterable[int] = ()) -> Proposal | None:
    """Return the likeliest meaning of a text, or None where nothing is like it.

    Args:
        field: Where the text is.
        text: As the registry writes it.
        names: The catalogue's names.
        made: Implants of the record's maker; the others are proposed where none of these is like.
    """
    if field == "side":
        return _of_words(bare(text), {w: _SIDE_WORDS[side] for w, side in SIDES.items()})
    if field == "joint":
        return _of_words(bare(text), {**JOINTS, **{bare(j): j for j in names.joints}})
    if field == "manufacturer":
        return _maker(text, names)
    return _product(text, names, frozenset(made)) or _product(text, names, frozenset())


def accepted(field: str, names: Names) -> list[str]:
    """Return the words that `means` accepts for a field."""
    catalogue = names.catalogue
    if field == "side":
        return [*_SIDE_WORDS.values()]
    if field == "joint":
        return [*names.joints]
    if field == "manufacturer":
        return [*dict.fromkeys(implant.manufacturer for implant in catalogue)]
    if field == "product":
        products = [implant.product for implant in catalogue if implant.product]
        families = [product.partition(",")[0] for product in products]
        return [*dict.fromkeys([*products, *families, *catalogue.names])]
    return []


def _of_words(said: str, words: dict[str, str]) -> Proposal | None:
    best = max(((_alike(said, word), means) for word, means in words.items()), default=(0.0, ""))
    return (best[1], round(best[0], 2)) if best[0] >= MIN_SCORE and len(said) > 2 else None


def _maker(text: str, names: Names) -> Proposal | None:
    said = maker(text)
    made_by = {maker(implant.manufacturer): implant.manufacturer for implant in names.catalogue}
    former = FORMER.get(said)
    if former in made_by:
        return made_by[former], _FORMER_SCORE
    within = [name for name in made_by if set(name.split()) <= set(said.split())]
    if len(within) > 1:
        return None
    return (made_by[within[0]], _MOST_WITHIN) if within else _of_words(said, made_by)


def _product(text: str, names: Names, made: frozenset[int]) -> Proposal | None:
    """Return the product, family or name that is most like; one of `made`, unless it is empty."""
    if kind_of(text) in _OTHERS or not plain(text):
        return None
    found: list[tuple[float, int, str]] = []
    makers = {word for name in names.by_maker for word in name.split()}
    for said in forms(plain(text)):
        kept = [w for w in said.split() if w not in makers and not is_harmless(w)] or said.split()
        for word in accepted("product", names):
            form = plain(word)
            claim = names.by_product.get(form) or names.by_name.get(form) or set()
            if not made or claim & made:
                likeness = max(_likeness(kept, said, other) for other in written(form))
                # Of names that are as alike: the longest whose words are all there, or a family.
                is_within = set(form.split()) <= set(said.split())
                found.append((likeness, len(form) if is_within else -len(form), word))
    best = max(found, default=(0.0, 0, ""))
    return (best[2], min(round(best[0], 2), MAX_SCORE)) if best[0] >= MIN_SCORE else None


def _likeness(kept: list[str], said: str, form: str) -> float:
    """Return how like a product is: by all letters, by its first word, or as a part of the text."""
    words = form.split()
    alike = _alike(" ".join(kept), form)
    first = _alike(kept[0], words[0])
    if first > _FIRST_WORD:
        alike = max(alike, first * _FIRST_WORD)
    if set(words) <= set(said.split()):
        share = len(form) / max(len(" ".join(kept)), len(form))
        alike = max(alike, MIN_SCORE + share * (_MOST_WITHIN - MIN_SCORE))
    return alike


def _alike(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()
