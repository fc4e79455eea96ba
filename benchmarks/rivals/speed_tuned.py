"""A contender of `benchmarks.speed`: the DataLoader loop after a good engineer's second hour.

What `benchmarks.rivals.speed_loader` does, made faster by the usual means: OpenCV decodes JPEG at a
reduced size and PNG, imagecodecs the compressed DICOM; pictures are made small before they are
windowed, and travel as bytes; OpenVINO runs the networks. There is a worker for each of two cores.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import cv2
import imagecodecs
import numpy as np
import openvino
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.rivals.speed_loader import SCHEMA, load_model, own_members
from implant_model.errors import ImplantError
from implant_model.package.load import ModelPackage, load_package

WORKERS: Final = 2
BATCH: Final = 32
BY_IMAGECODECS: Final = {
    JPEG2000Lossless: imagecodecs.jpeg2k_decode,
    JPEGLSLossless: imagecodecs.jpegls_decode,
}
REDUCTIONS: Final = (
    (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
    (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
)
"""What OpenCV decodes a JPEG at, and the flag for it."""


class Archives(IterableDataset[tuple[str, str, np.ndarray]]):
    """Archive, member and grey bytes of each radiograph; each worker reads every other tar."""

    def __init__(self, paths: Sequence[Path], size_px: int) -> None:
        self._paths = list(paths)
        self._size_px = size_px

    def __iter__(self) -> Iterator[tuple[str, str, np.ndarray]]:
        cv2.setNumThreads(1)
        for archive, member, data in own_members(self._paths):
            yield archive, member, read_image(data, self._size_px)


def read_image(data: bytes, size_px: int) -> np.ndarray:
    """Return a radiograph as grey bytes of the networks' size."""
    if data[128:132] == b"DICM":
        return _dicom(data, size_px)
    if data.startswith(b"\xff\xd8"):
        return _resized(_picture(data, _flag(data, size_px)), size_px)
    return _to_bytes(_resized(_picture(data, cv2.IMREAD_UNCHANGED), size_px))


def _picture(data: bytes, flag: int) -> np.ndarray:
    values = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    if values is None:
        raise ImplantError("OpenCV does not read a picture of the benchmark's archives.")
    return values


def _dicom(data: bytes, size_px: int) -> np.ndarray:
    dataset = dcmread(io.BytesIO(data))
    small = _resized(_stored_values(dataset), size_px)
    values = apply_voi_lut(apply_modality_lut(small, dataset), dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = values.max() - values
    return _to_bytes(values)


def _stored_values(dataset: Dataset) -> np.ndarray:
    decode = BY_IMAGECODECS.get(dataset.file_meta.TransferSyntaxUID)
    if decode is None:
        return np.asarray(dataset.pixel_array)
    return np.asarray(decode(next(generate_frames(dataset.PixelData, number_of_frames=1))))


def _flag(jpeg: bytes, size_px: int) -> int:
    height, width = _jpeg_size(jpeg)
    fitting = (flag for by, flag in REDUCTIONS if min(height, width) // by >= size_px)
    return next(fitting, cv2.IMREAD_GRAYSCALE)


def _jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """Return rows and columns by the frame header of a baseline JPEG."""
    at = jpeg.index(b"\xff\xc0")
    return int.from_bytes(jpeg[at + 5 : at + 7]), int.from_bytes(jpeg[at + 7 : at + 9])


def _resized(values: np.ndarray, size_px: int) -> np.ndarray:
    return cv2.resize(values, (size_px, size_px), interpolation=cv2.INTER_AREA)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float32)
    values = (values - values.min()) * (255 / max(float(np.ptp(values)), 1e-9))
    return values.astype(np.uint8)


@cache
def compiled(uri: str) -> Any:
    """Return the networks of a package, compiled by OpenVINO for full batches, in float32."""
    package = load_package(uri)
    shape = (BATCH, 1, package.preprocessing.size_px, package.preprocessing.size_px)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own trace
        converted = openvino.convert_model(load_model(package), example_input=torch.zeros(shape))
    converted.reshape(list(shape))
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(converted, "CPU", settings)


def classify(paths: Sequence[Path], output: Path, package: ModelPackage) -> None:
    """Name the implant on every radiograph of the tars."""
    model = compiled(package.uri)
    names = package.catalogue.names
    dataset = Archives(paths, package.preprocessing.size_px)
    loader = DataLoader(dataset, BATCH, num_workers=WORKERS, prefetch_factor=4)
    with pq.ParquetWriter(output / "predictions.parquet", SCHEMA) as writer:
        for archives, members, images in loader:
            batch = np.zeros((BATCH, 1, *images.shape[1:]), np.float32)
            batch[: len(images), 0] = images.numpy() / np.float32(255)
            logs = torch.from_numpy(model(batch)[0][: len(images)])
            best, index = (logs / package.temperature).softmax(dim=1).max(dim=1)
            implants = [names[i] for i in index.tolist()]
            columns = [list(archives), list(members), implants, best.tolist()]
            writer.write_table(pa.table(columns, schema=SCHEMA))
