"""Figures, intervals and pictures as pages show them."""

import base64
import math
from typing import Final

from jobs.report.page import percent
from training.metrics import Figure

MINUS: Final = "\u2212"


def share(figure: Figure) -> str:
    """The value as a percentage."""
    return percent(figure.value).replace("-", MINUS)


def number(figure: Figure) -> str:
    """The value as a number; a dash where there is none."""
    return "\u2013" if math.isnan(figure.value) else f"{figure.value:.3f}"


def interval(figure: Figure, as_number: bool = False) -> str:
    """The interval for reading, or nothing where there is no figure."""
    if math.isnan(figure.value):
        return "not known" if figure.count else "no such images"
    if math.isnan(figure.low):
        return "no interval"
    if as_number:
        return f"{figure.low:.3f} to {figure.high:.3f}"
    return f"{100 * figure.low:.1f} to {percent(figure.high)}".replace("-", MINUS)


def data_uri(png: bytes) -> str:
    """A picture as the page holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
