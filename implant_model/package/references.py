"""`references.parquet`: some reference radiographs of each implant, which lie beside a package.

People compare a radiograph with them. They change no answer, so the package's hash does not hold
them: a gallery is added to a package or taken from it, and tables that name the package stay valid.
It holds the hash of the package that its embeddings are of, and is refused beside another one.

The file may come from anywhere. It is bounded before it is read, its columns are stored as they are
(no page is expanded), and its pictures are never decoded here: a browser shows them as images.

Letters: R references, F features.
"""

import io
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from implant_model import storage
from implant_model.errors import NotFoundError, PackageError
from implant_model.package.load import ModelPackage

FILE: Final = "references.parquet"
FORMAT: Final = b"implant-references 1"
MAX_BYTES: Final = 256 << 20
MAX_ROWS: Final = 20_000
MAX_PICTURE: Final = 1 << 20
MAX_SIDE_PX: Final = 256
MAX_TEXT: Final = 4096
SCHEMA: Final = pa.schema(
    [
        pa.field("implant", pa.string(), nullable=False),
        pa.field("embedding", pa.binary(), nullable=False),
        pa.field("picture", pa.binary(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
    ]
)
_PNG: Final = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_HEADER: Final = struct.Struct(">IIBB")  # width, height, bits, colours (PNG, 11.2.2)
_GREY_8: Final = (8, 0)


@dataclass(frozen=True, eq=False)
class References:
    """Reference radiographs of a package's implants.

    Attributes:
        label_R: Index of each one's implant in the package's catalogue.
        features_RF: Embeddings by the package's networks, float32.
        pictures: 8-bit grey PNGs of at most 256 px a side.
        sources: Where each comes from, without an identifier.
        licences: Of each.
    """

    label_R: npt.NDArray[np.int64]
    features_RF: npt.NDArray[np.float32]
    pictures: tuple[bytes, ...]
    sources: tuple[str, ...]
    licences: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.label_R)

    def to_bytes(self, package: ModelPackage) -> bytes:
        """Return the file, for the package whose networks gave the embeddings."""
        names = package.catalogue.names
        columns = {
            "implant": [names[label] for label in self.label_R.tolist()],
            "embedding": [row_F.astype("<f4").tobytes() for row_F in self.features_RF],
            "picture": self.pictures,
            "source": self.sources,
            "licence": self.licences,
        }
        stated = {"format": FORMAT, "package": package.hash.encode()}
        arrays = [pa.array(columns[field.name], field.type) for field in SCHEMA]
        table = pa.Table.from_arrays(arrays, schema=SCHEMA.with_metadata(stated))
        file = io.BytesIO()
        pq.write_table(table, file, compression="none", use_dictionary=False)
        return file.getvalue()


def load_references(package: ModelPackage) -> References | None:
    """Read the references that lie beside a package, where it was read from.

    Returns:
        None where the package has none.

    Raises:
        PackageError: The file is damaged, of another package, or not of this form.
        StorageError: It cannot be read.
    """
    place = storage.join(package.uri, FILE)
    try:
        if storage.stat(place).size > MAX_BYTES:
            raise _refused(f"it has more than {MAX_BYTES} bytes")
        data = storage.read_bytes(place, MAX_BYTES)
    except NotFoundError:
        return None
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        _check_form(file, package, len(data))
        return _references(file.read(), package)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _refused("it is damaged, or no Parquet") from error


def _check_form(file: pq.ParquetFile, package: ModelPackage, size: int) -> None:
    """Refuse what need not be read to be refused."""
    stated = file.schema_arrow.metadata or {}
    if stated.get(b"format") != FORMAT or not file.schema_arrow.equals(SCHEMA):
        raise _refused("it is of another form or version")
    if stated.get(b"package") != package.hash.encode():
        raise _refused("it is of another package; make it again with jobs.gallery")
    if not 0 < file.metadata.num_rows <= MAX_ROWS:
        raise _refused(f"it has {file.metadata.num_rows} rows; 1 to {MAX_ROWS} are accepted")
    groups = [file.metadata.row_group(at) for at in range(file.metadata.num_row_groups)]
    chunks = [group.column(at) for group in groups for at in range(group.num_columns)]
    is_plain = all(chunk.compression == "UNCOMPRESSED" for chunk in chunks)
    if not is_plain or sum(chunk.total_uncompressed_size for chunk in chunks) > size:
        raise _refused("it is compressed, which is not accepted")


def _references(table: pa.Table, package: ModelPackage) -> References:
    if table.num_rows > MAX_ROWS or any(column.null_count for column in table.columns):
        raise _refused("a value is missing")
    names = package.catalogue.names
    label_R = pc.index_in(table["implant"], pa.array(names, pa.string()))
    if label_R.null_count:
        raise _refused("it names an implant that the package does not know")
    num_features = package.novelty_reference().centres_CF.shape[1]
    rows = table["embedding"].to_pylist()
    if any(len(row) != 4 * num_features for row in rows):
        raise _refused(f"an embedding has not {num_features} values")
    features_RF = np.frombuffer(b"".join(rows), "<f4").reshape(-1, num_features)
    if not np.isfinite(features_RF).all():
        raise _refused("an embedding is not finite")
    pictures = tuple(table["picture"].to_pylist())
    if not all(map(is_picture, pictures)):
        raise _refused(f"a picture is no 8-bit grey PNG of at most {MAX_SIDE_PX} px a side")
    texts = [tuple(table[name].to_pylist()) for name in ("source", "licence")]
    if any(len(text) > MAX_TEXT for column in texts for text in column):
        raise _refused(f"a text has more than {MAX_TEXT} characters")
    labels = np.array(label_R.to_pylist(), np.int64)
    return References(labels, features_RF.astype(np.float32), pictures, *texts)


def is_picture(data: bytes) -> bool:
    """Return whether bytes begin as an 8-bit grey PNG of a permitted size does."""
    if len(data) > MAX_PICTURE or not data.startswith(_PNG):
        return False
    if len(data) < len(_PNG) + _HEADER.size:
        return False
    width, height, *kind = _HEADER.unpack_from(data, len(_PNG))
    return 0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX and tuple(kind) == _GREY_8


def _refused(why: str) -> PackageError:
    return PackageError(
        f"The package's {FILE} cannot be used: {why}. Without the file the package works as before."
    )
