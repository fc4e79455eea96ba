"""A contender of `benchmarks.speed`: a straightforward Ray Data pipeline.

As Ray's documentation shows it: `read_webdataset`, `map`, `map_batches` with an actor, and
`write_parquet`. Decoding and the model's use are those of `benchmarks.rivals.speed_loader`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from benchmarks.rivals.speed_loader import BATCH, load_model, read_image, to_tensor
from implant_model.package.load import ModelPackage


class Model:
    """The networks in an actor."""

    def __init__(self, package: ModelPackage) -> None:
        self._model = load_model(package)
        self._names = np.array(package.catalogue.names)
        self._temperature = package.temperature

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Name the implants of one batch."""
        with torch.inference_mode():
            logs, _ = self._model(torch.from_numpy(batch["image"].copy()))
        best, index = (logs / self._temperature).softmax(dim=1).max(dim=1)
        return {"member": batch["member"], "implant": self._names[index], "p": best.numpy()}


def classify(paths: Sequence[Path], output: Path, package: ModelPackage) -> None:
    """Name the implant on every radiograph of the tars."""
    transform = to_tensor(package.preprocessing.size_px)

    def decode(row: dict[str, Any]) -> dict[str, Any]:
        suffix = next(name for name in ("dcm", "png", "jpg") if row.get(name) is not None)
        image = read_image(f".{suffix}", row[suffix])
        return {"member": row["__key__"], "image": transform(image).numpy()}

    rows = ray.data.read_webdataset([str(path) for path in paths], decoder=None)
    rows.map(decode).map_batches(
        Model,
        fn_constructor_args=(package,),
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=1),
    ).write_parquet(str(output))
