"""What is written once and read at one version stays so when the network and the store fail."""

import random
import time
from collections.abc import Callable

import pytest

from implant_model.errors import (
    AccessDeniedError,
    ChangedError,
    StorageError,
    UsageError,
)
from implant_model.storage import s3, s3_reader
from implant_model.storage.s3_reader import IN_FLIGHT
from implant_model.storage.store import (
    exists,
    list_objects,
    open_object,
    probe,
    put_if_absent,
    read_bytes,
    stat,
)
from tests.support.fault_proxy import (
    Action,
    Answer,
    Cut,
    Delay,
    Fault,
    FaultProxy,
    First,
    Flip,
    Ignore,
    Lose,
    Replace,
    Shorten,
)
from tests.support.object_store import ObjectStore

pytestmark = pytest.mark.usefixtures("no_waiting", "small_parts")

_PART_BYTES = 1 << 16
_DATA = random.Random(7).randbytes(5 * _PART_BYTES // 2)
_KMS = "KMS.DisabledException"


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other at once."""
    monkeypatch.setattr(time, "sleep", lambda _: None)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of 64 KiB, so that objects of several need not be large."""
    monkeypatch.setattr(s3_reader, "PART_BYTES", _PART_BYTES)


@pytest.fixture
def large(bucket: str, object_store: ObjectStore) -> str:
    """The URI of an object of 2 ranges and a half that holds `_DATA`."""
    object_store.client().put_object(Bucket=bucket, Key="a.tar", Body=_DATA)
    return f"s3://{bucket}/a.tar"


@pytest.mark.parametrize(
    ("action", "created"),
    [
        (Lose(after=False), True),
        (Lose(after=True), False),
        (Answer(500, "InternalError"), True),
        (Answer(500, "InternalError", after=True), False),
        (Answer(503, "SlowDown"), True),
        (Answer(503, "SlowDown", after=True), False),
        (Answer(409, "ConditionalRequestConflict"), True),
        (Answer(409, "OperationAborted", after=True), False),
        (Answer(400, "BadDigest"), True),
    ],
)
def test_a_put_that_fails_once_is_there_once_and_whole(
    bucket: str,
    object_store: ObjectStore,
    fault_proxy: FaultProxy,
    action: Action,
    created: bool,
) -> None:
    uri = f"s3://{bucket}/unit.parquet"
    fault_proxy.add(Fault("PUT", "unit.parquet", action))
    assert put_if_absent(uri, b"content") is created
    assert fault_proxy.unused() == []
    puts = fault_proxy.sent("PUT", "unit.parquet")
    assert [put.headers["if-none-match"] for put in puts] == ["*", "*"]
    assert [put.body for put in puts] == [b"content"] * 2
    reply = object_store.client().get_object(Bucket=bucket, Key="unit.parquet")
    assert reply["Body"].read() == b"content"


def test_a_retried_put_never_overwrites_what_another_one_wrote_in_between(
    bucket: str, object_store: ObjectStore, fault_proxy: FaultProxy
) -> None:
    def other() -> None:
        object_store.client().put_object(Bucket=bucket, Key="unit", Body=b"other")

    fault_proxy.add(
        Fault("PUT", "unit", Answer(503, "SlowDown")), Fault("PUT", "unit", First(other))
    )
    assert not put_if_absent(f"s3://{bucket}/unit", b"mine")
    assert read_bytes(f"s3://{bucket}/unit") == b"other"


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (Lose(after=False), "no connection to the store .ConnectionClosedError"),
        (Answer(500, "InternalError"), "the store answered 500 InternalError."),
        (Answer(409, "ConditionalRequestConflict"), "8 attempts met a conflict; try again"),
    ],
)
def test_a_put_that_always_fails_is_an_error_after_8_attempts(
    bucket: str, fault_proxy: FaultProxy, action: Action, message: str
) -> None:
    fault_proxy.add(Fault("PUT", "unit", action, times=100))
    with pytest.raises(StorageError, match=message):
        put_if_absent(f"s3://{bucket}/unit", b"content")
    assert len(fault_proxy.sent("PUT", "unit")) == s3.ATTEMPTS
    assert exists(f"s3://{bucket}/unit") is None


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AccessDenied"),
        (403, "SignatureDoesNotMatch"),
        (400, "ExpiredToken"),
        (400, "InvalidRequest"),  # SSE-C: the object needs a key of the customer's
        (400, _KMS),
        (401, "Unauthorized"),
    ],
)
def test_a_refusal_is_access_denied_and_is_not_repeated(
    large: str, fault_proxy: FaultProxy, status: int, code: str
) -> None:
    info = stat(large)
    refusals: dict[str, Callable[[], object]] = {
        "GET": lambda: open_object(info).read_at(0, 5),
        "HEAD": lambda: exists(large),
        "PUT": lambda: put_if_absent(large + "2", b"x"),
    }
    for method, ask in refusals.items():
        fault_proxy.add(Fault(method, "a.tar", Answer(status, code), times=100))
        before = len(fault_proxy.sent(method))
        with pytest.raises(AccessDeniedError, match=f"{large}.*answered {status}.*credentials"):
            ask()
        # After a HEAD's 400, which has no body, botocore also asks for the bucket's region.
        assert len(fault_proxy.sent(method)) - before <= (3 if method == "HEAD" else 1)


@pytest.mark.parametrize(
    "action",
    [
        Lose(after=False),
        Answer(500, "InternalError"),
        Answer(503, "SlowDown"),
        Cut(0),
        Cut(1000),
        Cut(30_000),
        Shorten(0),
        Shorten(999),
        Ignore("range"),
    ],
)
@pytest.mark.parametrize("part", [0, 2])
def test_a_range_that_fails_is_read_again_and_no_byte_is_wrong(
    large: str, fault_proxy: FaultProxy, action: Action, part: int
) -> None:
    with open_object(stat(large)) as reader:
        fault_proxy.add(Fault("GET", "a.tar", action, skip=part, times=2))
        assert b"".join(reader.stream()) == _DATA
    assert fault_proxy.unused() == []
    gets = fault_proxy.sent("GET", "a.tar")
    assert len(gets) == 3 + 2
    assert {get.headers["if-match"] for get in gets} == {f'"{reader.version}"'}


@pytest.mark.parametrize("action", [Cut(10), Shorten(10), Lose(after=True)])
def test_a_small_read_that_fails_is_read_again(
    large: str, fault_proxy: FaultProxy, action: Action
) -> None:
    with open_object(stat(large)) as reader:
        fault_proxy.add(Fault("GET", "a.tar", action, times=3))
        assert reader.read_at(77, 5000) == _DATA[77:5077]
    assert fault_proxy.unused() == []


def test_as_many_bytes_from_elsewhere_are_not_taken(large: str, fault_proxy: FaultProxy) -> None:
    fault_proxy.add(Fault("GET", "a.tar", Replace("range", "bytes=105-149"), times=2))
    with open_object(stat(large)) as reader:
        assert reader.read_at(5, 45) == _DATA[5:50]
    assert fault_proxy.unused() == []


@pytest.mark.parametrize("action", [Cut(10), Shorten(10), Ignore("range")])
def test_a_range_that_always_fails_is_an_error_and_never_bytes(
    large: str, fault_proxy: FaultProxy, action: Action
) -> None:
    fault_proxy.add(Fault("GET", "a.tar", action, times=100))
    with open_object(stat(large)) as reader:
        with pytest.raises(StorageError, match=r"a\.tar': bytes 0 to 65536 came back broken"):
            next(iter(reader.stream()))
        with pytest.raises(StorageError, match="bytes 5 to 50 came back broken, short .* 5 times"):
            reader.read_at(5, 45)


def test_a_lost_connection_is_an_error_after_the_retries(
    large: str, fault_proxy: FaultProxy
) -> None:
    info = stat(large)
    fault_proxy.add(Fault("GET", "a.tar", Lose(after=False), times=100))
    with pytest.raises(StorageError, match="Cannot read .* no connection"):
        open_object(info).read_at(0, 5)
    assert len(fault_proxy.sent("GET", "a.tar")) == s3.ATTEMPTS


def test_a_store_that_ignores_if_match_cannot_mix_versions(
    large: str, bucket: str, object_store: ObjectStore, fault_proxy: FaultProxy
) -> None:
    # Bad-input 108, by a store that does not know the header.
    def replace() -> None:
        object_store.client().put_object(Bucket=bucket, Key="a.tar", Body=bytes(len(_DATA)))

    info = stat(large)
    fault_proxy.add(Fault("GET", "a.tar", Ignore("if-match"), times=100))
    with open_object(info) as reader:
        assert next(iter(reader.stream())) == _DATA[:_PART_BYTES]
        replace()
        with pytest.raises(ChangedError, match="changed: it was version .* run again"):
            reader.read_at(0, 5)
        with pytest.raises(ChangedError):
            list(reader.stream(_PART_BYTES))


def test_an_object_replaced_between_the_attempts_of_one_range_is_changed(
    large: str, bucket: str, object_store: ObjectStore, fault_proxy: FaultProxy
) -> None:
    def replace() -> None:
        object_store.client().put_object(Bucket=bucket, Key="a.tar", Body=bytes(len(_DATA)))

    info = stat(large)
    fault_proxy.add(Fault("GET", "a.tar", Cut(500)), Fault("GET", "a.tar", First(replace)))
    with pytest.raises(ChangedError):
        open_object(info).read_at(0, 1000)
    assert fault_proxy.unused() == []


def test_an_object_that_became_shorter_is_changed(
    large: str, bucket: str, object_store: ObjectStore, fault_proxy: FaultProxy
) -> None:
    info = stat(large)
    object_store.client().put_object(Bucket=bucket, Key="a.tar", Body=b"short")
    fault_proxy.add(Fault("GET", "a.tar", Ignore("if-match")))
    with pytest.raises(ChangedError, match="416"):
        open_object(info).read_at(1000, 1000)


def test_a_stream_keeps_a_fixed_number_of_ranges_ahead_of_use(
    bucket: str, object_store: ObjectStore, fault_proxy: FaultProxy
) -> None:
    body = bytes(6 * _PART_BYTES)
    object_store.client().put_object(Bucket=bucket, Key="b.tar", Body=body)
    info = stat(f"s3://{bucket}/b.tar")
    fault_proxy.add(Fault("GET", "b.tar", Delay(0.3), times=IN_FLIGHT))
    with open_object(info) as reader:
        chunks = iter(reader.stream())
        next(chunks)
        assert len(fault_proxy.sent("GET", "b.tar")) == IN_FLIGHT
        assert b"".join(chunks) == body[_PART_BYTES:]
    assert fault_proxy.most_at_once == IN_FLIGHT
    assert len(fault_proxy.sent("GET", "b.tar")) == 6


def test_a_stream_left_early_asks_for_no_more(large: str, fault_proxy: FaultProxy) -> None:
    with open_object(stat(large)) as reader:
        for _ in reader.stream():
            break
    assert len(fault_proxy.sent("GET", "a.tar")) <= IN_FLIGHT


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA256", "SHA1"])
def test_a_bit_that_flips_on_the_way_is_found_by_the_checksum(
    bucket: str, object_store: ObjectStore, fault_proxy: FaultProxy, algorithm: str
) -> None:
    # Bad-input 112. A range has no checksum of its own: the whole is found to be wrong at its end.
    for key, data in (("large", _DATA), ("small", _DATA[:5000])):
        object_store.client().put_object(
            Bucket=bucket,
            Key=key,
            Body=data,
            ChecksumAlgorithm=algorithm,  # type: ignore[arg-type]
        )
    with open_object(stat(f"s3://{bucket}/large")) as reader:
        assert b"".join(reader.stream()) == _DATA
        fault_proxy.add(Fault("GET", "large", Flip(4711), skip=1))
        with pytest.raises(StorageError, match="large' does not have the checksum"):
            list(reader.stream())
    with open_object(stat(f"s3://{bucket}/small")) as reader:
        fault_proxy.add(Fault("GET", "small", Flip(99)))
        assert b"".join(reader.stream()) == _DATA[:5000]
        fault_proxy.add(Fault("GET", "small", Flip(99), times=100))
        with pytest.raises(StorageError, match="came back broken"):
            list(reader.stream())


@pytest.mark.parametrize(
    "action", [Lose(after=True), Cut(100), Answer(500, "InternalError"), Answer(503, "SlowDown")]
)
def test_a_listing_that_fails_is_asked_again_and_misses_nothing(
    bucket: str, object_store: ObjectStore, fault_proxy: FaultProxy, action: Action
) -> None:
    for number in range(60):  # pages of 50
        object_store.client().put_object(Bucket=bucket, Key=f"in/{number:02}", Body=b"x")
    fault_proxy.add(Fault("GET", "list-type=2", action, skip=2))
    listed = [info.uri for info in list_objects(f"s3://{bucket}/in")]
    assert listed == [f"s3://{bucket}/in/{number:02}" for number in range(60)]
    assert fault_proxy.unused() == []


def test_a_listing_that_breaks_off_is_an_error_and_never_short(
    bucket: str, object_store: ObjectStore, fault_proxy: FaultProxy
) -> None:
    object_store.client().put_object(Bucket=bucket, Key="in/a", Body=b"x")
    for action in (Shorten(300), Cut(300), Answer(403, "AccessDenied")):
        fault_proxy.add(Fault("GET", "list-type=2", action, times=8))
        with pytest.raises(StorageError, match="Cannot list"):
            list(list_objects(f"s3://{bucket}/in"))
        for fault in fault_proxy.unused():
            fault.times = 0


def test_probe_refuses_a_store_that_overwrites(bucket: str, fault_proxy: FaultProxy) -> None:
    fault_proxy.add(Fault("PUT", "_probe", Ignore("if-none-match"), times=2))
    with pytest.raises(
        UsageError, match="overwrites objects .*ignores 'If-None-Match: .'.; choose"
    ):
        probe(f"s3://{bucket}/out")


def test_probe_refuses_an_output_that_may_not_be_written(
    bucket: str, fault_proxy: FaultProxy
) -> None:
    fault_proxy.add(Fault("PUT", "_probe", Answer(403, "AccessDenied")))
    with pytest.raises(UsageError, match="is not usable. Cannot write .* 403 AccessDenied; check"):
        probe(f"s3://{bucket}/out")


def test_probe_is_not_misled_by_a_lost_reply(bucket: str, fault_proxy: FaultProxy) -> None:
    fault_proxy.add(Fault("PUT", "_probe", Lose(after=True), times=2))
    probe(f"s3://{bucket}/out")
    assert fault_proxy.unused() == []
