"""A contender of `benchmarks.speed`: Daft, which decodes images by its own engine.

As Daft's documentation shows it: `read_webdataset`, `decode_image_file`, `resize`, a class with a
batch method, and `write_parquet`. For pictures alone, since Daft reads no DICOM; those of 16 bits
it is asked for in 8, since its `resize` takes no others. `uv pip install daft==0.7.26` (Apache-2.0)
installs it; the project itself does not use it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

os.environ["DO_NOT_TRACK"] = "true"  # read as it is imported

import daft
import numpy as np
import torch
from daft import DataType, Series, col
from daft.functions import decode_image_file, resize

from benchmarks.rivals.speed_loader import BATCH, load_model
from implant_model.package.load import ModelPackage

ANSWER: Final = DataType.struct({"implant": DataType.string(), "p": DataType.float32()})


@daft.cls(max_concurrency=1)
class Model:
    """The networks."""

    def __init__(self, package: ModelPackage) -> None:
        self._model = load_model(package)
        self._names = package.catalogue.names
        self._temperature = package.temperature

    @daft.method.batch(return_dtype=ANSWER, batch_size=BATCH)  # type: ignore[untyped-decorator, unused-ignore]
    def name(self, pictures: Series) -> list[dict[str, Any]]:
        """Name the implants of one batch."""
        grey_NHW1 = torch.from_numpy(np.stack(pictures.to_pylist()))
        with torch.inference_mode():
            logs, _ = self._model(grey_NHW1.movedim(3, 1).float() / 255)
        best, index = (logs / self._temperature).softmax(dim=1).max(dim=1)
        answers = zip(index.tolist(), best.tolist(), strict=True)
        return [{"implant": self._names[place], "p": p} for place, p in answers]


def classify(paths: Sequence[Path], output: Path, package: ModelPackage) -> None:
    """Name the implant on every radiograph of the tars."""
    size_px = package.preprocessing.size_px
    frame = daft.read_webdataset([str(path) for path in paths])
    suffix = next(name for name in ("jpg", "png") if name in frame.column_names)
    picture = resize(decode_image_file(col(suffix), mode="L"), size_px, size_px)
    model: Any = Model(package)  # its method takes an expression outside of Daft's processes
    answer = model.name(picture).alias("answer")
    frame = frame.select(col("__url__"), col("__key__"), answer)
    frame = frame.select("__url__", "__key__", col("answer")["implant"], col("answer")["p"])
    frame.write_parquet(str(output))
