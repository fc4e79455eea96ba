"""The catalogue's names, and the implants that makers' and products' names of a registry mean.

A claim is a set of implants: `Corail` alone means the stem with a collar or the one without, and a
maker alone means all that it makes for the joint. A name means, first one that fits,

1. what the user said that it means;
2. the implant of which it is the name or a synonym;
3. the product of the catalogue, or such a product up to its first comma;
4. such a name or product behind its maker's.

A product among more words (`Exeter V40`) is found apart from these, see `Names.near_product`.
"""

from functools import cached_property

from implant_model.package.catalogue import Catalogue
from jobs.auditing.registry.spelling import (
    ALIASES,
    forms,
    is_beside_maker,
    is_harmless,
    maker,
    plain,
)
from jobs.auditing.registry.synonyms import NOTHING, Meanings
from jobs.auditing.registry.words import MISSING, bare, joint_of

Claim = frozenset[int]
"""Indices of implants; empty where the catalogue has none that fits."""
MIN_LETTERS = 4
"""Letters of a name's longest word, below which it is not looked for among other words."""


class Names:
    """The catalogue's names, and what else texts are known to mean.

    Args:
        catalogue: Of the model.
        meanings: What the user said that texts mean, in words that the catalogue knows; see
            `claims.check_meanings`.
    """

    def __init__(self, catalogue: Catalogue, meanings: Meanings | None = None) -> None:
        self.catalogue = catalogue
        joints = dict.fromkeys(implant.joint for implant in catalogue)
        self.joints = tuple(joint for joint in joints if bare(joint) not in MISSING)
        self.meanings = meanings or Meanings()
        self._given = {
            field: {_key(text): means for text, means in self.meanings.of(field).items()}
            for field in ("implant", "product", "manufacturer", "joint")
        }

    @cached_property
    def by_name(self) -> dict[str, set[int]]:
        """Return the implants of each name or synonym, plain, with its maker before it or not."""
        found: dict[str, set[int]] = {}
        for index, implant in enumerate(self.catalogue):
            for text in (implant.name, *implant.synonyms):
                for form in forms(plain(text)):
                    found.setdefault(form, set()).add(index)
        return found

    @cached_property
    def by_product(self) -> dict[str, set[int]]:
        """Return the implants of each product, plain, whole and up to its first comma."""
        found: dict[str, set[int]] = {}
        for index, implant in enumerate(self.catalogue):
            if implant.product is not None:
                family = implant.product.partition(",")[0]
                for text in {plain(implant.product), plain(family)}:
                    found.setdefault(text, set()).add(index)
        return found

    @cached_property
    def by_maker(self) -> dict[str, set[int]]:
        """Return the implants of each maker, plain and without legal form."""
        found: dict[str, set[int]] = {}
        for index, implant in enumerate(self.catalogue):
            found.setdefault(maker(implant.manufacturer), set()).add(index)
        return found

    def given(self, field: str, text: str) -> str | None:
        """Return what the user said that a text of a field means; None where nothing was said."""
        return self._given[field].get(_key(text))

    def is_nothing(self, field: str, text: str) -> bool:
        """Return whether the user said that a text is nothing of the catalogue."""
        return (self.given(field, text) or "").casefold() == NOTHING

    def product(self, text: str, field: str = "product") -> Claim:
        """Return implants that a product's or an implant's name means."""
        means = self.given(field, text)
        return self._exactly(text) if means is None else self.means_product(means)

    def near_product(self, text: str) -> Claim:
        """Return implants whose product is named among words that leave it what it is."""
        return self._nearly(text)

    def maker(self, text: str) -> Claim:
        """Return implants of a maker, by its name, a former one, or with words around it."""
        return self.means_maker(self.given("manufacturer", text) or text)

    def means_product(self, text: str) -> Claim:
        """Return implants that a text means by itself, whatever else was said of it."""
        return self._exactly(text) or self._nearly(text)

    def means_maker(self, text: str) -> Claim:
        """Return implants of the maker that a text names, whatever else was said of it."""
        return frozenset(self.by_maker.get(self._maker_of(maker(text)) or "", ()))

    def means_joint(self, text: str) -> str | None:
        """Return the joint that a text names, in the catalogue's word if it has it."""
        own = {bare(joint): joint for joint in self.joints}
        return own.get(bare(text)) or joint_of(text)

    def joint(self, name: str) -> Claim:
        """Return implants for a joint."""
        return frozenset(i for i, implant in enumerate(self.catalogue) if implant.joint == name)

    def _exactly(self, text: str) -> Claim:
        for said in forms(plain(text)):
            found = self.by_name.get(said) or self.by_product.get(said) or self._of_maker(said)
            found = found or self._unspaced.get(said.replace(" ", ""), set())
            if found:
                return frozenset(found)
        return frozenset()

    @cached_property
    def _unspaced(self) -> dict[str, set[int]]:
        """Names and products without blanks: `Polar Stem` is `Polarstem`."""
        named = {**self.by_product, **self.by_name}
        return {name.replace(" ", ""): found for name, found in named.items() if name}

    def _of_maker(self, said: str) -> set[int]:
        """Return implants of a maker's name followed by a product."""
        words = said.split()
        for count in range(min(len(words) - 1, 6), 0, -1):
            name = self._maker_of(maker(" ".join(words[:count])))
            if name is not None:
                rest = " ".join(words[count:])
                found = self.by_product.get(rest, set()) | self.by_name.get(f"{name} {rest}", set())
                if found := found & self.by_maker[name]:
                    return found
        return set()

    def _nearly(self, text: str) -> Claim:
        """Return what the longest name means that is among the words, all others harmless."""
        best: set[int] = set()
        length = 0
        for said in forms(plain(text)):
            words = said.split()
            for name, found in (*self.by_product.items(), *self.by_name.items()):
                named = name.split()
                if (
                    len(named) >= length
                    and max(map(len, named), default=0) >= MIN_LETTERS
                    and set(named) <= set(words)
                ):
                    rest = " ".join(word for word in words if word not in named)
                    if self._is_harmless(rest, found):
                        best = best | found if len(named) == length else found
                        length = len(named)
        return frozenset(best)

    def _is_harmless(self, rest: str, found: set[int]) -> bool:
        words = [word for word in rest.split() if not is_harmless(word)]
        if not words:
            return True
        name = self._maker_of(maker(" ".join(words)))
        return name is not None and bool(self.by_maker[name] & found)

    def _maker_of(self, said: str) -> str | None:
        """Return the catalogue's maker that a plain name surely means; None if none or several."""
        if said in self.by_maker:
            return said
        if (alias := ALIASES.get(said)) in self.by_maker:
            return alias
        words, unspaced = said.split(), said.replace(" ", "")
        for name in self.by_maker:
            if unspaced == name.replace(" ", ""):
                return name
        there = [name for name in self.by_maker if set(name.split()) <= set(words)]
        if len(there) != 1:
            return None
        rest = [word for word in words if word not in there[0].split()]
        return there[0] if all(is_beside_maker(word) for word in rest) else None


def _key(text: str) -> str:
    return plain(text) or text.strip()
