"""JSON that others wrote, read strictly: bounded, finite, no name twice, no field unread.

What a file of a package states is data to be judged: each value is taken with its type and range,
and what nobody took is refused. Every refusal is a PackageError sentence that names the field.
"""

import json
import math
from collections.abc import Collection, Sequence

from implant_model.errors import PackageError

MAX_TEXT = 4096
_SHOWN = 80  # characters of an offending value in a message


def parse(data: bytes, where: str) -> object:
    """Parse UTF-8 JSON.

    Args:
        data: The file.
        where: What to call it in a message.

    Returns:
        dict, list, str, int, float, bool or None; all numbers finite, all text valid UTF-8.

    Raises:
        PackageError: Not JSON, a name twice in one object, NaN, an infinity or a lone surrogate.
    """
    try:
        document: object = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite
        )
        json.dumps(document, ensure_ascii=False).encode()
    except RecursionError:
        raise PackageError(f"{where} is not readable: it is nested too deeply.") from None
    except ValueError as error:  # JSON and Unicode errors are among them
        text = str(error)[:_SHOWN]
        raise PackageError(f"{where} is not readable as JSON in UTF-8: {text}.") from error
    return document


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:40]!r} occurs twice in one object")
    return document


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is out of range")
    return value


class Fields:
    """One JSON object, taken field by field.

    Args:
        document: What `parse` returned, or a part of it.
        where: Its place, for messages: `package.json`, `package.json: networks[0]`.

    Raises:
        PackageError: From each method: the field is missing, or not what was asked for.
    """

    def __init__(self, document: object, where: str) -> None:
        if not isinstance(document, dict):
            raise PackageError(f"{where} is {_shown(document)}; an object is expected.")
        self._left = dict(document)
        self.where = where

    def take(self, name: str) -> object:
        """Return the field as it is."""
        if name not in self._left:
            raise PackageError(f"{self.where} lacks the field {name!r}.")
        return self._left.pop(name)

    def has(self, name: str) -> bool:
        """Tell whether the field is there and not yet taken."""
        return name in self._left

    def text(self, name: str, most: int = MAX_TEXT) -> str:
        """Return a string of 1 to `most` characters."""
        value = self.take(name)
        if not isinstance(value, str) or not 1 <= len(value) <= most:
            raise self._wrong(name, value, f"a text of 1 to {most} characters")
        return value

    def text_or_none(self, name: str, most: int = MAX_TEXT) -> str | None:
        """Return a string as `text` does, or None where the field is null or missing."""
        if self._left.get(name) is None:
            self._left.pop(name, None)
            return None
        return self.text(name, most)

    def choice(self, name: str, accepted: Collection[str]) -> str:
        """Return a string that is one of `accepted`."""
        value = self.take(name)
        if not isinstance(value, str) or value not in accepted:
            raise self._wrong(name, value, " or ".join(sorted(accepted)))
        return value

    def number(self, name: str, low: float, high: float) -> float:
        """Return a number in low..high, both included."""
        value = self.take(name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise self._wrong(name, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def numbers(self, name: str, low: float, high: float) -> list[float]:
        """Return a list of finite numbers of that range, at most 10,000."""
        values = self.items(name, 1, 10_000)
        places = Fields({str(place): value for place, value in enumerate(values)}, name)
        return [places.number(str(place), low, high) for place in range(len(values))]

    def whole(self, name: str, low: int, high: int) -> int:
        """Return a whole number in low..high, both included."""
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._wrong(name, value, f"a whole number from {low} to {high}")
        return value

    def whole_or_none(self, name: str, low: int, high: int) -> int | None:
        """Return a whole number as `whole` does, or None where the field is null."""
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return None
        return self.whole(name, low, high)

    def items(self, name: str, least: int, most: int) -> Sequence[object]:
        """Return a list of `least` to `most` items."""
        value = self.take(name)
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise self._wrong(name, value, f"a list of {least} to {most} items")
        return value

    def nested(self, name: str) -> "Fields":
        """Return a nested object."""
        return Fields(self.take(name), f"{self.where}: {name}")

    def mapping(self, name: str) -> dict[str, object]:
        """Return a nested object as it is, unchecked."""
        value = self.take(name)
        if not isinstance(value, dict):
            raise self._wrong(name, value, "an object")
        return value

    def names(self) -> list[str]:
        """Return the names that are not yet taken, in their order."""
        return list(self._left)

    def close(self) -> None:
        """Refuse an object of which a field was not taken."""
        if self._left:
            names = ", ".join(repr(name[:40]) for name in list(self._left)[:5])
            raise PackageError(
                f"{self.where} has unknown fields ({names}); it was made by another version of "
                "this software, or is damaged."
            )

    def _wrong(self, name: str, value: object, wanted: str) -> PackageError:
        return PackageError(f"{self.where}: {name} is {_shown(value)}; {wanted} is expected.")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
