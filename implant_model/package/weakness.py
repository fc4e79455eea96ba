"""What a package's own figures say against it: a model that tells nothing is to be known as one."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

MOST_NAMED: Final = 5
_SENSITIVITY: Final = "sensitivity: "


def weaknesses(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each weakness.

    Args:
        figures: Measured on a test set, by name, each with `value`, `low` (of its 95 % interval)
            and `count`, as in `package.json` below `metrics`; what is missing shows no weakness.
    """
    found = {name: _numbers(figure) for name, figure in figures.items()}
    classes = {
        name.removeprefix(_SENSITIVITY): numbers
        for name, numbers in found.items()
        if name.startswith(_SENSITIVITY) and numbers is not None and numbers[2]
    }
    images = sum(count for _, _, count in classes.values())
    top_1 = found.get("top_1")
    if top_1 is not None and images:
        commonest = max(count for _, _, count in classes.values()) / images
        if top_1[1] <= commonest:
            value, low = 100 * top_1[0], 100 * top_1[1]
            yield (
                f"The best candidate is right in {value:.1f} % of the test images (95 % interval "
                f"from {low:.1f} %): that is not shown to be better than always naming the "
                f"commonest implant, {100 * commonest:.1f} %."
            )
    never = [name for name, (value, _, _) in classes.items() if value == 0]
    if never:
        more = f" and {len(never) - MOST_NAMED} more" if len(never) > MOST_NAMED else ""
        yield (
            f"Of {', '.join(never[:MOST_NAMED])}{more} no test image was named right: "
            f"{len(never)} of {len(classes)} implants."
        )


def _numbers(figure: Any) -> tuple[float, float, int] | None:
    try:
        return float(figure["value"]), float(figure["low"]), int(figure["count"])
    except (KeyError, TypeError, ValueError):
        return None
