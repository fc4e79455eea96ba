"""A contender of `benchmarks.speed`: a plain PyTorch DataLoader loop that writes Parquet.

What a good engineer writes in a first hour, by the documented calls: pydicom's pixel array and
look-up tables, Pillow, torchvision's transforms, two workers, batches, inference mode.
"""

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from pydicom import dcmread
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torchvision import transforms

from implant_model.networks.build import Ensemble
from implant_model.networks.weights import load_networks
from implant_model.package.load import ModelPackage

WORKERS = 2
BATCH = 32
SCHEMA = pa.schema(
    {"archive": pa.string(), "member": pa.string(), "implant": pa.string(), "p": pa.float32()}
)


class Archives(IterableDataset[tuple[str, str, torch.Tensor]]):
    """Archive, member and tensor of each radiograph of the tars; each worker reads every other."""

    def __init__(self, paths: Sequence[Path], size_px: int) -> None:
        self._paths = list(paths)
        self._transform = to_tensor(size_px)

    def __iter__(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        for archive, member, data in own_members(self._paths):
            yield archive, member, self._transform(read_image(member, data))


def own_members(paths: Sequence[Path]) -> Iterator[tuple[str, str, bytes]]:
    """Yield archive, member and bytes of each radiograph of the tars that this worker reads."""
    worker = get_worker_info()
    step = (0, 1) if worker is None else (worker.id, worker.num_workers)
    for path in paths[step[0] :: step[1]]:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None:
                    yield path.name, member.name, file.read()


def to_tensor(size_px: int) -> transforms.Compose:
    """Return Pillow image to the network's input."""
    return transforms.Compose([transforms.Resize((size_px, size_px)), transforms.ToTensor()])


def read_image(name: str, data: bytes) -> Image.Image:
    """Return a radiograph as an 8-bit grey picture."""
    if name.endswith(".dcm"):
        dataset = dcmread(io.BytesIO(data))
        values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            values = values.max() - values
        return Image.fromarray(to_bytes(values))
    image = Image.open(io.BytesIO(data))
    if image.mode.startswith("I"):
        return Image.fromarray(to_bytes(np.asarray(image)))
    return image.convert("L")


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Stretch the values from their least to their greatest over 0 to 255."""
    values = values.astype(np.float64)
    values = (values - values.min()) / max(float(np.ptp(values)), 1e-9)
    return (values * 255).astype(np.uint8)


def load_model(package: ModelPackage) -> Ensemble:
    """Return the package's networks in evaluation mode, as torch builds them."""
    return load_networks(package.networks, len(package.catalogue), package.files)


def classify(paths: Sequence[Path], output: Path, package: ModelPackage) -> None:
    """Name the implant on every radiograph of the tars."""
    model = load_model(package)
    names = package.catalogue.names
    dataset = Archives(paths, package.preprocessing.size_px)
    with pq.ParquetWriter(output / "predictions.parquet", SCHEMA) as writer:
        for archives, members, images in DataLoader(dataset, BATCH, num_workers=WORKERS):
            with torch.inference_mode():
                logs, _ = model(images)
            best, index = (logs / package.temperature).softmax(dim=1).max(dim=1)
            implants = [names[i] for i in index.tolist()]
            columns = [list(archives), list(members), implants, best.tolist()]
            writer.write_table(pa.table(columns, schema=SCHEMA))
