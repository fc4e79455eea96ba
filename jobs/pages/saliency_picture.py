"""An explanation as one picture: radiograph, cut-out and saliency side by side, with captions.

It shows the pixels that the networks saw, so whatever is burned into a radiograph is in it; of the
file, its name and its header there is nothing.
"""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from implant_model.errors import UsageError
from implant_model.saliency import Explanation
from implant_model.storage.local_files import write_whole
from jobs.entry.command import DISCLAIMER

Grey = npt.NDArray[np.uint8]
PANEL_PX: Final = 400
MARGIN_PX: Final = 20
TITLE_PX: Final = 24
TEXT_PX: Final = 17
LEADING: Final = 1.45
STRONGEST: Final = 0.65
"""Share of colour in the overlay where the heat is 1: the bone beneath stays visible."""
MARK: Final = "Explanation of an implant's identification"
GROUND: Final = (250, 249, 246)
INK: Final = (28, 36, 48)
SOFT: Final = (86, 96, 112)
WARNING: Final = (120, 70, 0)


def overlay(image_HW: Grey, heat_HW: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Lay heat over a radiograph.

    Args:
        image_HW: uint8.
        heat_HW: In 0..1.

    Returns:
        RGB, uint8, HW3; the grey picture itself wherever the heat is 0.
    """
    levels_HW = np.rint(np.clip(heat_HW, 0, 1) * 255).astype(np.uint8)
    colours_HW3 = cv2.applyColorMap(levels_HW, cv2.COLORMAP_INFERNO)[..., ::-1].astype(np.float32)
    grey_HW3 = np.repeat(image_HW[..., None], 3, axis=2).astype(np.float32)
    share_HW1 = STRONGEST * np.clip(heat_HW, 0, 1)[..., None]
    return np.rint(grey_HW3 + share_HW1 * (colours_HW3 - grey_HW3)).astype(np.uint8)


def saliency_picture(explanation: Explanation, size_px: int = 200) -> bytes:
    """Return the radiograph and its overlay side by side, as PNG, for a page."""
    grey = _panel(np.repeat(explanation.image_HW[..., None], 3, axis=2), size_px)
    warm = _panel(overlay(explanation.image_HW, explanation.heat_HW), size_px)
    picture = Image.new("RGB", (2 * size_px + 4, size_px), GROUND)
    picture.paste(grey, (0, 0))
    picture.paste(warm, (size_px + 4, 0))
    return _png(picture)


def explanation_picture(
    explanation: Explanation, title: str, lines: Sequence[str], asked: str
) -> bytes:
    """Draw everything as one PNG.

    Args:
        explanation: What to show.
        title: One line.
        lines: Text below it; long lines are wrapped.
        asked: Name of the implant that the heat speaks for.
    """
    panels = _panels(explanation, asked)
    width = len(panels) * (PANEL_PX + MARGIN_PX) + MARGIN_PX
    picture = Image.new("RGB", (width, 4000), GROUND)
    writer = _Writer(picture, width)
    writer.write([title], TITLE_PX, INK)
    writer.write(lines, TEXT_PX, SOFT)
    top, captions_end = writer.y + MARGIN_PX // 2, 0
    for place, (pixels_HW3, caption) in enumerate(panels):
        left = MARGIN_PX + place * (PANEL_PX + MARGIN_PX)
        picture.paste(_panel(pixels_HW3, PANEL_PX), (left, top))
        below = _Writer(picture, PANEL_PX + 2 * MARGIN_PX, left, top + PANEL_PX + 8)
        below.write([caption], TEXT_PX, INK)
        captions_end = max(captions_end, below.y)
    writer.y = captions_end + MARGIN_PX // 2
    writer.write([DISCLAIMER], TEXT_PX, WARNING)
    return _png(picture.crop((0, 0, width, writer.y + MARGIN_PX)))


def checked_path(path: str) -> Path:
    """Return where to draw; nothing but an older picture of this module is replaced.

    Raises:
        UsageError: It is not a .png, its folder is not there, or it is something else.
    """
    output = Path(path)
    if "://" in path or output.suffix.lower() != ".png":
        raise UsageError(f"--output is {path}; a .png on this machine is expected.")
    if not output.parent.is_dir():
        raise UsageError(f"The folder of --output {path} is not there; make it first.")
    if output.exists() and not _is_own(output):
        raise UsageError(f"--output {path} is there already; choose another name.")
    return output


def write_picture(output: Path, picture: bytes) -> None:
    """Write the picture.

    Raises:
        UsageError: The folder may not be written to.
    """
    try:
        write_whole(output, picture)
    except OSError as error:
        raise UsageError(f"--output {output} cannot be written: {error.strerror}.") from error


def _is_own(path: Path) -> bool:
    """Return whether a file is a picture that this module made: it may be replaced."""
    if not path.is_file():
        return False
    head = path.read_bytes()[:4096]
    return head.startswith(b"\x89PNG") and MARK.encode() in head


def _panels(explanation: Explanation, asked: str) -> list[tuple[npt.NDArray[np.uint8], str]]:
    image_HW, heat_HW = explanation.image_HW, explanation.heat_HW
    panels = [(_grey(image_HW), "The radiograph as the networks see it.")]
    if explanation.cut_out_HW is not None:
        panels.append((_grey(explanation.cut_out_HW), "What the segmenter cuts out as implant."))
    caption = (
        f"What speaks for {asked}: the brighter the colour, the more. Rough, and no proof of why."
        if heat_HW.any()
        else f"Nothing that the networks see speaks for {asked}."
    )
    return [*panels, (overlay(image_HW, heat_HW), caption)]


def _grey(image_HW: Grey) -> npt.NDArray[np.uint8]:
    return np.repeat(image_HW[..., None], 3, axis=2)


def _panel(pixels_HW3: npt.NDArray[np.uint8], size_px: int) -> Image.Image:
    return Image.fromarray(pixels_HW3).resize((size_px, size_px), Image.Resampling.BICUBIC)


class _Writer:
    """Writes lines downwards, wrapped to a width."""

    def __init__(
        self, picture: Image.Image, width: int, left: int = MARGIN_PX, top: int = MARGIN_PX
    ) -> None:
        self._draw = ImageDraw.Draw(picture)
        self._room = width - 2 * MARGIN_PX
        self._left = left
        self.y = top

    def write(self, lines: Sequence[str], size_px: int, colour: tuple[int, int, int]) -> None:
        font = ImageFont.load_default(size_px)  # Pillow's own: the same on every machine
        for line in lines:
            for part in self._wrapped(line, font):
                self._draw.text((self._left, self.y), part, colour, font)
                self.y += round(size_px * LEADING)

    def _wrapped(
        self, line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    ) -> Sequence[str]:
        """Split by the measured width: wraps at fewer characters until every part fits."""
        for most in range(len(line), 8, -1):
            parts = textwrap.wrap(line, most)
            if all(self._draw.textlength(part, font) <= self._room for part in parts):
                return parts
        return textwrap.wrap(line, 8)


def _png(picture: Image.Image) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", MARK)
    info.add_text("Disclaimer", DISCLAIMER)
    file = io.BytesIO()
    picture.save(file, "PNG", pnginfo=info)
    return file.getvalue()
