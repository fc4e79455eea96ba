"""Manifests in the place of a listing: the same plan, or one sentence on what is wrong."""

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from implant_model import storage
from implant_model.errors import StorageError, UsageError
from implant_model.storage import ObjectInfo
from implant_model.storage.object_list import ObjectList
from jobs.pipeline.plan import make_plan
from jobs.tables.state.record_index import Records
from tests.support.object_store import ObjectStore

KEYS = ("pacs/a.tar", "pacs/b 1.dcm", "pacs/ü+%2F/c.dcm", "pacs/007", "other/d.tar", "pacs/")


@pytest.fixture
def root(object_store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket with objects, one of them a folder's marker."""
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    for number, key in enumerate(KEYS):
        body = b"" if key.endswith("/") else b"x" * (number + 1)
        object_store.client().put_object(Bucket=bucket, Key=key, Body=body)
    return f"s3://{bucket}"


def listed(root: str) -> list[ObjectInfo]:
    return sorted(storage.list_objects(root), key=lambda info: info.uri)


def rows(root: str) -> pa.Table:
    """All objects but the marker, and the marker."""
    infos = [*listed(root), ObjectInfo(f"{root}/pacs/", 0, "d41d8cd98f00b204e9800998ecf8427e")]
    return pa.table(
        {
            "Key": [info.uri.removeprefix(f"{root}/") for info in infos],
            "Size": [info.size for info in infos],
            "ETag": [f'"{info.version}"' for info in infos],
        }
    )


def found(manifest: str, root: str) -> list[ObjectInfo]:
    objects = ObjectList(storage.normalise(manifest)).objects(root)
    return sorted(objects, key=lambda info: info.uri)


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_table_is_what_a_listing_finds(ending: str, root: str, tmp_path: Path) -> None:
    path = tmp_path / f"keys.{ending}"
    if ending == "parquet":
        pq.write_table(rows(root), path)
    else:
        with path.open("wb") as raw, gzip.open(raw, "wb") if "gz" in ending else raw as file:
            pa_csv.write_csv(rows(root), file)
    assert found(str(path), f"{root}/pacs") == listed(f"{root}/pacs")
    assert found(str(path), root) == listed(root)
    assert found(str(path), f"{root}/pacs/a.tar") == listed(f"{root}/pacs/a.tar")
    plans = [
        list(make_plan([f"{root}/pacs"], Records.of(), manifest=manifest).todo)
        for manifest in (None, ObjectList(storage.normalise(str(path))))
    ]
    assert plans[0] == plans[1] != []
    uris = pa.table({"uri": [info.uri for info in listed(root)]})
    for name in ("Size", "ETag"):
        uris = uris.append_column(name, rows(root)[name].slice(0, len(uris)))
    pq.write_table(uris, tmp_path / "uris.parquet")
    assert found(str(tmp_path / "uris.parquet"), root) == listed(root)


def put_inventory(store: ObjectStore, root: str, kind: str) -> str:
    """An inventory as S3 writes it, of a bucket with versions: two tables and their manifest."""
    bucket = root.removeprefix("s3://")
    infos, files = listed(root), []
    for number, part in enumerate((infos[:2], infos[2:])):
        kept = [[bucket, info.uri.removeprefix(f"{root}/"), "v2", True, False, info.size,
                 info.version] for info in part]  # fmt: skip
        gone = [[bucket, "pacs/a.tar", "v1", False, False, 3, "0" * 32],
                [bucket, "pacs/gone.tar", "v3", True, True, None, None]]  # fmt: skip
        data = inventory_table(kind, [*gone, *kept])
        key = f"inventory/{number}.{'csv.gz' if kind == 'CSV' else 'parquet'}"
        store.client().put_object(Bucket=bucket, Key=key, Body=data)
        files.append({"key": key, "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()})  # noqa: S324
    schema = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, ETag"
    manifest = {
        "sourceBucket": bucket, "destinationBucket": f"arn:aws:s3:::{bucket}",
        "version": "2016-11-30", "fileFormat": kind,
        "fileSchema": schema if kind == "CSV" else "message s3.inventory { }", "files": files,
    }  # fmt: skip
    body = json.dumps(manifest).encode()
    store.client().put_object(Bucket=bucket, Key="inventory/manifest.json", Body=body)
    return f"{root}/inventory/manifest.json"


def inventory_table(kind: str, values: Sequence[Sequence[object]]) -> bytes:
    names = ["bucket", "key", "version_id", "is_latest", "is_delete_marker", "size", "e_tag"]
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in values])
    sink = pa.BufferOutputStream()
    if kind == "Parquet":
        pq.write_table(table, sink)
        return bytes(sink.getvalue())
    keys = pa.array([quote_plus(key) for key in table["key"].to_pylist()])
    table = table.set_column(1, "key", keys)
    options = pa_csv.WriteOptions(include_header=False, quoting_style="needed")
    pa_csv.write_csv(table, sink, options)
    return gzip.compress(bytes(sink.getvalue()))


@pytest.mark.parametrize("kind", ["CSV", "Parquet"])
def test_inventory_is_what_a_listing_finds(kind: str, root: str, object_store: ObjectStore) -> None:
    before = listed(f"{root}/pacs")
    manifest = put_inventory(object_store, root, kind)
    assert found(manifest, f"{root}/pacs") == before
    bucket = root.removeprefix("s3://")
    name = f"inventory/1.{'csv.gz' if kind == 'CSV' else 'parquet'}"
    object_store.client().put_object(Bucket=bucket, Key=name, Body=b"damaged")
    with pytest.raises(StorageError, match="its MD5 is not that of the inventory"):
        found(manifest, f"{root}/pacs")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("keys.txt", "", "accepted are .csv"),
        ("none.csv", None, "There is no manifest"),
        ("none.json", None, "There is no manifest"),
        ("m.json", "{}", "is no manifest of an S3 Inventory"),
        ("m.json", "[1]", "is no manifest of an S3 Inventory"),
        ("m.json", '{"fileFormat": "ORC", "fileSchema": "", "destinationBucket": "b", "files": []}',
         "in ORC; CSV and Parquet are read"),
        ("k.csv", "name,size\na,1\n", "has the columns name, size; key"),
        ("k.csv", "key,size,etag\npacs/a.tar,,e\n", "Row 1 of .*k.csv lacks a key, a size"),
        ("k.csv", "key,size,etag\npacs/a.tar,1,e\npacs/b,-1,e\n", "Row 2 .* '-1' is no number"),
        ("k.csv", "key,size,etag\nelsewhere/a.tar,1,e\n", "lists nothing at s3://bucket/pacs or"),
        ("k.csv", "", "k.csv is empty; a line of column names is needed"),
        ("k.csv", "key,size,etag\n", "lists nothing at s3://bucket/pacs or"),
        ("k.csv", "key,size,etag\rpacs/a.tar,1,e\r", "cannot be read .Error.; a CSV is UTF-8"),
        ("k.csv", "key,Key,size,etag\na,b,1,e\n", "has the column key more than once .key, Key"),
        ("k.csv", "key,size,etag,is_latest\npacs/a,1,e,perhaps\n",
         "Row 1 .* islatest is 'perhaps'; true and false are accepted"),
        ("m.json", '{"fileFormat": "CSV", "fileSchema": 5, "destinationBucket": "b", "files": []}',
         "is no manifest of an S3 Inventory"),
        ("k.csv", "key,size,etag\n1\n", "cannot be read"),
        ("k.parquet", "no parquet", "cannot be read"),
        ("k.csv.gz", "no gzip", "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_refused_in_one_sentence(
    name: str, content: str | None, words: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=words):
        found(str(tmp_path / name), "s3://bucket/pacs")


def test_only_rows_of_current_objects_below_the_input_are_taken(tmp_path: Path) -> None:
    """Of a flag that is missing nothing is lost; what lies elsewhere need not be whole."""
    (tmp_path / "k.csv").write_bytes(
        b"\xef\xbb\xbfKey,Size,ETag,IsLatest,IsDeleteMarker\r\n"
        b'pacs/1,1,e,,\r\npacs/2,1,"""e""",TRUE,False\r\npacs/3,1,e,false,\r\n'
        b"pacs/4,,,true,true\r\nelsewhere/5,,,true,\r\n\r\n"
    )
    rows = [(info.uri, info.version) for info in found(str(tmp_path / "k.csv"), "s3://bucket/pacs")]
    assert rows == [("s3://bucket/pacs/1", "e"), ("s3://bucket/pacs/2", "e")]


def test_one_empty_table_of_an_inventory_leaves_the_others(
    root: str, object_store: ObjectStore
) -> None:
    before = listed(f"{root}/pacs")
    manifest = put_inventory(object_store, root, "CSV")
    bucket = root.removeprefix("s3://")
    store = object_store.client()
    inventory = json.loads(
        store.get_object(Bucket=bucket, Key="inventory/manifest.json")["Body"].read()
    )
    inventory["files"].insert(0, {"key": "inventory/none.csv.gz"})
    store.put_object(Bucket=bucket, Key="inventory/none.csv.gz", Body=gzip.compress(b""))
    store.put_object(
        Bucket=bucket, Key="inventory/manifest.json", Body=json.dumps(inventory).encode()
    )
    assert found(manifest, f"{root}/pacs") == before


def test_input_on_disk_has_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "k.csv").write_text("key,size,etag\na,1,e\n")
    with pytest.raises(UsageError, match="lists objects of S3"):
        found(str(tmp_path / "k.csv"), storage.normalise(str(tmp_path)))
