"""Small DICOM radiographs for tests, written with pydicom, one fault at a time."""

import io
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

EXPLICIT = "1.2.840.10008.1.2.1"
CR = "1.2.840.10008.5.1.4.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def picture(rows: int = 96, columns: int = 80, bits: int = 12) -> np.ndarray:
    """A smooth picture with a bright bar, uint16, over the whole range of `bits` bits."""
    down, across = np.mgrid[0:rows, 0:columns]
    grey = 0.15 + 0.5 * np.sin(np.pi * down / rows) * np.sin(np.pi * across / columns)
    grey += 0.03 * np.sin(down / 3.0) * np.cos(across / 4.0)
    grey[rows // 3 : rows // 2, columns // 4 : columns // 2] += 0.3
    grey = (grey - grey.min()) / (grey.max() - grey.min())
    return np.asarray(np.rint(grey * ((1 << bits) - 1)), np.uint16)


def dataset(pixels: np.ndarray, **attributes: Any) -> Dataset:
    """A CR image of 8 or 16 bits a sample; attributes by keyword, None takes one out."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CR, "1.2.3.4"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    ds.PatientID, ds.PatientName, ds.AccessionNumber = "PAT-17", "Secret^Sam", "ACC-5"
    ds.Modality, ds.BodyPartExamined, ds.ViewPosition = "CR", "HIP", "AP"
    ds.ImageLaterality = "L"
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 1 if pixels.ndim == 2 else pixels.shape[2]
    ds.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = 8 * pixels.itemsize
    ds.BitsStored = 8 if pixels.itemsize == 1 else 12
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    return ds


def to_bytes(
    ds: Dataset, syntax: str = EXPLICIT, frame: bytes | list[bytes] | None = None
) -> bytes:
    """The file of a dataset; `frame` is its compressed frame, or fragments."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", CR)
    meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    ds.file_meta = meta
    if frame is not None:
        ds.PixelData = encapsulate(frame if isinstance(frame, list) else [frame])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
    elif "PixelData" in ds and ds["PixelData"].VR not in ("OB", "OW"):
        ds["PixelData"].VR = "OW"
    out = io.BytesIO()
    implicit = syntax == "1.2.840.10008.1.2"
    ds.save_as(
        out,
        enforce_file_format=False,
        implicit_vr=None if UID(syntax).is_transfer_syntax else implicit,
        little_endian=None if UID(syntax).is_transfer_syntax else True,
    )
    body = out.getvalue()
    return body if body[128:132] == b"DICM" else bytes(128) + b"DICM" + body


def dicom(pixels: np.ndarray, syntax: str = EXPLICIT, **attributes: Any) -> bytes:
    """A whole file of native pixels."""
    return to_bytes(dataset(pixels, **attributes), syntax)
