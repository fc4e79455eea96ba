import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from implant_model.errors import (
    AccessDeniedError,
    ChangedError,
    NotFoundError,
    StorageError,
    UsageError,
)
from implant_model.storage import s3
from implant_model.storage.s3_reader import PART_BYTES
from implant_model.storage.store import (
    delta_options,
    exists,
    list_objects,
    open_object,
    probe,
    put_if_absent,
    read_bytes,
    stat,
)
from implant_model.storage.uri import ObjectInfo, relative
from tests.support.object_store import ObjectStore, free_port, running_object_store
from tests.support.paths import ROOT

# Bad-input 110: keys that a URL, a path or a form would change.
_KEYS = [
    *("a b.tar", "ü/ñ.tar", "e\u0301", "a+b", "x%2Fy", "x%252Fy", "p//q", "/lead", "a/../b", "./d"),
    *("q?x=1#f", "~a'()*!;:@&=$,[]", "back\\slash", "full/", "full//", "日本/片.tar", "\U0001f9b4"),
]


def _names(root: str) -> list[str]:
    return [relative(info.uri, root) for info in list_objects(root)]


@pytest.mark.parametrize("key", _KEYS)
def test_a_key_of_any_characters_survives(bucket: str, key: str, object_store: ObjectStore) -> None:
    uri, data = f"s3://{bucket}/in/{key}", key.encode()
    assert exists(uri) is None
    assert put_if_absent(uri, data)
    assert not put_if_absent(uri, b"other")
    (stored,) = object_store.client().list_objects_v2(Bucket=bucket)["Contents"]
    assert stored["Key"] == f"in/{key}"
    (found,) = list_objects(f"s3://{bucket}/in")
    assert (found.uri, relative(found.uri, f"s3://{bucket}/in")) == (uri, key)
    assert found == stat(uri)
    with open_object(found) as reader:
        assert b"".join(reader.stream()) == reader.read_at(0, 99) == data == read_bytes(uri)


def test_list_has_all_keys_of_all_pages_in_order(bucket: str, object_store: ObjectStore) -> None:
    names = sorted(f"{number % 7}/{number}.tar" for number in range(120))  # pages of 50
    client = object_store.client()
    for name in [f"in/{name}" for name in names] + ["in-other/x", "in.tar", "i"]:
        client.put_object(Bucket=bucket, Key=name, Body=b"x")
    assert _names(f"s3://{bucket}/in") == names
    assert _names(f"s3://{bucket}/in/3") == [name[2:] for name in names if name[0] == "3"]
    assert len(_names(f"s3://{bucket}")) == 123


def test_list_has_an_object_and_what_is_below_its_name(
    bucket: str, object_store: ObjectStore
) -> None:
    client = object_store.client()
    for key in ("a.tar", "a.tar/b.tar", "a.tar.old", "c.tar", "marker/", "marker/sub/", "full/"):
        body = b"" if key.startswith("marker") else b"123"
        client.put_object(Bucket=bucket, Key=key, Body=body)
    root = f"s3://{bucket}"
    listed = [info.uri for info in list_objects(f"{root}/a.tar")]
    assert listed == [f"{root}/a.tar", f"{root}/a.tar/b.tar"]
    assert _names(f"{root}/c.tar") == ["c.tar"]
    assert _names(root) == ["a.tar", "a.tar.old", "a.tar/b.tar", "c.tar", "full/"]
    assert list(list_objects(f"{root}/marker")) == []


def test_list_of_nothing(bucket: str) -> None:
    assert list(list_objects(f"s3://{bucket}")) == []
    assert list(list_objects(f"s3://{bucket}/absent/")) == []
    with pytest.raises(NotFoundError, match="There is no object .*absent', nor any below it"):
        list(list_objects(f"s3://{bucket}/absent"))
    with pytest.raises(NotFoundError, match="Cannot list .* answered 404 NoSuchBucket; check the"):
        list(list_objects("s3://no-such-bucket/in"))


def test_what_is_absent_is_not_found(bucket: str) -> None:
    with pytest.raises(NotFoundError, match="Cannot read .*absent.* answered 404; check"):
        stat(f"s3://{bucket}/absent")
    with pytest.raises(NotFoundError, match="is a bucket; an object in it is expected"):
        stat(f"s3://{bucket}")
    with pytest.raises(NotFoundError, match="NoSuchKey"):
        open_object(ObjectInfo(f"s3://{bucket}/absent", 4, "0" * 32)).read_at(0, 4)
    with pytest.raises(NotFoundError, match="Cannot write .*NoSuchBucket"):
        put_if_absent("s3://no-such-bucket/unit", b"data")


@pytest.fixture
def large(bucket: str) -> tuple[str, bytes]:
    """An object of 3 parts and a bit."""
    data = random.Random(5).randbytes(3 * PART_BYTES + 17)
    uri = f"s3://{bucket}/large.tar"
    put_if_absent(uri, data)
    return uri, data


def test_reader_reads_ranges_and_streams(large: tuple[str, bytes]) -> None:
    uri, data = large
    with open_object(stat(uri)) as reader:
        assert reader.size == len(data)
        assert [len(chunk) for chunk in reader.stream()] == [*[PART_BYTES] * 3, 17]
        assert b"".join(reader.stream()) == data
        for start in (1, PART_BYTES, len(data) - 1, len(data)):
            assert b"".join(reader.stream(start)) == data[start:]
        spans = [(0, 1), (PART_BYTES - 2, 5), (3, 2 * PART_BYTES), (len(data) - 2, 9)]
        for offset, size in spans:
            assert reader.read_at(offset, size) == data[offset : offset + size]
        assert reader.read_at(len(data), 5) == reader.read_at(7, 0) == b""
        with pytest.raises(ValueError, match="0 or more"):
            reader.read_at(-1, 1)


def test_an_object_that_is_fetched_whole_reads_alike(large: tuple[str, bytes]) -> None:
    uri, data = large
    with open_object(stat(uri), whole=True) as reader:
        assert b"".join(reader.stream()) == data
        assert b"".join(reader.stream(PART_BYTES - 3)) == data[PART_BYTES - 3 :]
        assert reader.read_at(5, 2 * PART_BYTES) == data[5 : 5 + 2 * PART_BYTES]
        assert reader.read_at(len(data), 5) == b""


def test_an_empty_object_is_an_object_without_bytes(bucket: str) -> None:
    uri = f"s3://{bucket}/empty.tar"
    put_if_absent(uri, b"")
    info = stat(uri)
    assert info.size == exists(uri) == 0
    with open_object(info) as reader:
        assert list(reader.stream()) == []
        assert reader.read_at(0, 5) == b""
    with open_object(ObjectInfo(uri, 0, "another")) as reader, pytest.raises(ChangedError):
        list(reader.stream())


def test_an_object_replaced_while_it_is_read_gives_no_byte_of_the_new_one(
    large: tuple[str, bytes], bucket: str, object_store: ObjectStore
) -> None:
    uri, data = large
    read: list[bytes] = []
    with open_object(stat(uri)) as reader:
        chunks = reader.stream()
        read.append(next(chunks))
        object_store.client().put_object(Bucket=bucket, Key="large.tar", Body=bytes(len(data)))
        with pytest.raises(ChangedError, match=r"answered 412 .* no longer the version"):
            read.extend(chunks)
        with pytest.raises(ChangedError):
            reader.read_at(0, 1)
    assert data.startswith(b"".join(read))
    assert len(read) < 4


def test_an_object_deleted_while_it_is_read_is_not_found(
    large: tuple[str, bytes], bucket: str, object_store: ObjectStore
) -> None:
    with open_object(stat(large[0])) as reader:
        object_store.client().delete_object(Bucket=bucket, Key="large.tar")
        with pytest.raises(NotFoundError):
            list(reader.stream())


def test_a_version_is_the_etag_of_one_upload_or_of_many(
    bucket: str, object_store: ObjectStore
) -> None:
    client = object_store.client()
    upload = client.create_multipart_upload(Bucket=bucket, Key="parts.tar")["UploadId"]
    where = {"Bucket": bucket, "Key": "parts.tar", "UploadId": upload}
    bodies = [os.urandom(5 << 20), b"end"]
    parts = [
        {"PartNumber": n, "ETag": client.upload_part(**where, PartNumber=n, Body=body)["ETag"]}  # type: ignore[arg-type]
        for n, body in enumerate(bodies, 1)
    ]
    client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})  # type: ignore[arg-type, typeddict-item]
    info = stat(f"s3://{bucket}/parts.tar")
    assert re.fullmatch(r"[0-9a-f]{32}-2", info.version)
    assert read_bytes(info.uri) == b"".join(bodies)


def test_read_bytes_has_a_bound(bucket: str) -> None:
    put_if_absent(f"s3://{bucket}/package.json", b"x" * 11)
    with pytest.raises(StorageError, match="has 11 bytes; 10 at most are accepted"):
        read_bytes(f"s3://{bucket}/package.json", max_bytes=10)


def test_an_archived_object_is_access_denied_and_says_so(
    bucket: str, object_store: ObjectStore
) -> None:
    # Bad-input 111.
    object_store.client().put_object(
        Bucket=bucket, Key="old.tar", Body=b"12345", StorageClass="GLACIER"
    )
    (info,) = list_objects(f"s3://{bucket}/old.tar")
    with pytest.raises(AccessDeniedError, match=r"archived \(Glacier\); restore it first"):
        open_object(info).read_at(0, 5)


def test_probe_accepts_a_bucket_again_and_again(bucket: str) -> None:
    for _ in range(2):
        probe(f"s3://{bucket}/out/")
        probe(f"s3://{bucket}")
    assert _names(f"s3://{bucket}") == ["_probe", "out/_probe"]


def test_probe_refuses_a_bucket_that_is_not_there(object_store: ObjectStore) -> None:
    with pytest.raises(UsageError, match="output 's3://no-such-bucket/out' is not usable.* 404"):
        probe("s3://no-such-bucket/out")


def test_probe_tells_of_a_wrong_endpoint_soon(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    started = time.monotonic()
    with pytest.raises(UsageError, match="no connection to the store .*check AWS_ENDPOINT_URL"):
        probe(f"s3://{bucket}/out")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000", "ValueError"),
        ("AWS_PROFILE", "no-such-profile", "ProfileNotFound"),
    ],
)
def test_settings_that_make_no_client_are_a_usage_error(
    bucket: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str, named: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"AWS settings are not usable .{named}.*check .*{name}"):
        stat(f"s3://{bucket}/a.tar")


def _without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)


def test_absent_credentials_are_access_denied_or_a_usage_error(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_credentials(monkeypatch)
    uri = f"s3://{bucket}/a.tar"
    message = "There are no AWS credentials; set AWS_ACCESS_KEY_ID and"
    for ask in (stat, read_bytes, exists, delta_options, lambda uri: list(list_objects(uri))):
        with pytest.raises(AccessDeniedError, match=message):
            ask(uri)
    with pytest.raises(AccessDeniedError, match=message):
        put_if_absent(uri, b"data")
    with pytest.raises(UsageError, match=message):
        probe(f"s3://{bucket}/out")


def test_half_of_the_credentials_is_access_denied(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AccessDeniedError, match="PartialCredentialsError.*set AWS_ACCESS_KEY_ID"):
        stat(f"s3://{bucket}/a.tar")


def test_credentials_that_come_later_are_used(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        _without_credentials(patch)
        with pytest.raises(AccessDeniedError):
            exists(f"s3://{bucket}/a.tar")
    assert exists(f"s3://{bucket}/a.tar") is None


def test_a_metadata_service_that_never_answers_costs_seconds_and_not_minutes(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_credentials(monkeypatch)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)
        started = time.monotonic()
        with pytest.raises(AccessDeniedError, match="There are no AWS credentials"):
            stat(f"s3://{bucket}/a.tar")
        assert time.monotonic() - started < 10


@pytest.fixture(scope="module")
def strict_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A store that checks credentials and signatures."""
    log = tmp_path_factory.mktemp("strict-store") / "moto.log"
    with running_object_store(log, INITIAL_NO_AUTH_ACTION_COUNT="0") as store:
        yield store


def test_wrong_credentials_are_access_denied_and_are_not_repeated(
    object_store: ObjectStore, strict_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    del object_store
    monkeypatch.setenv("AWS_ENDPOINT_URL", strict_store.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONGWRONGWRONG0")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(AccessDeniedError, match="403 InvalidAccessKeyId; check the AWS") as caught:
        list(list_objects("s3://some-bucket/in"))
    assert "WRONG" not in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(AccessDeniedError, match="answered 403"):
        exists("s3://some-bucket/a.tar")
    with pytest.raises(AccessDeniedError, match="InvalidAccessKeyId"):
        put_if_absent("s3://some-bucket/a.tar", b"data")
    with pytest.raises(UsageError, match="output 's3://some-bucket/out' is not usable.*403"):
        probe("s3://some-bucket/out")


def test_threads_share_a_client_that_is_made_when_first_needed(bucket: str) -> None:
    s3._connect.cache_clear()
    uris = [f"s3://{bucket}/{number}" for number in range(16)]
    barrier = threading.Barrier(8)

    def put(uri: str) -> bool:
        if uri in uris[:8]:
            barrier.wait()
        return put_if_absent(uri, uri.encode())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(put, uris))
        assert list(pool.map(read_bytes, uris)) == [uri.encode() for uri in uris]
    assert s3._connect.cache_info().misses == 1


_FORK = """
import os, sys
from implant_model import storage
from implant_model.storage import s3
uri = sys.argv[1]
mine = s3.client()
assert storage.read_bytes(uri) == b"data"
child = os.fork()
if child == 0:
    same = s3.client() is mine
    os._exit(0 if storage.read_bytes(uri) == b"data" and not same else 1)
assert s3.client() is mine
assert storage.read_bytes(uri) == b"data"
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_makes_its_own_client(bucket: str, object_store: ObjectStore) -> None:
    uri = f"s3://{bucket}/a.tar"
    put_if_absent(uri, b"data")
    done = subprocess.run(
        [sys.executable, "-c", _FORK, uri],
        env={**object_store.environment, "PATH": os.defpath},
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_importing_storage_makes_no_client() -> None:
    code = (
        "import implant_model.storage, implant_model.storage.s3 as s3;"
        "raise SystemExit(s3._connect.cache_info().currsize)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0


def test_delta_options_follow_the_aws_settings(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://store.hospital.example:9000")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    monkeypatch.setenv("AWS_REGION", "eu-central-2")
    assert delta_options(f"s3://{bucket}/out") == {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "AWS_SESSION_TOKEN": "a-token",
        "AWS_REGION": "eu-central-2",
        "AWS_ENDPOINT_URL": "https://store.hospital.example:9000",
        "AWS_CONDITIONAL_PUT": "etag",
    }
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    amazon = delta_options(f"s3://{bucket}/out")["AWS_ENDPOINT_URL"]
    assert amazon == "https://s3.eu-central-2.amazonaws.com"
