"""Ranges of keys listed side by side find what one listing finds, however the keys are spread."""

import random

import pytest

from implant_model.errors import NotFoundError, StorageError
from implant_model.storage import s3_listing
from implant_model.storage.s3_listing import list_objects
from tests.support.object_store import ObjectStore


def shapes() -> dict[str, list[str]]:
    rng = random.Random(5)
    days = [f"2026/{m:02}/{d:02}/{n}.dcm" for m in range(1, 7) for d in range(1, 9) for n in (1, 2)]
    nested = [f"p{n}/x" for n in range(90)]
    return {
        "flat": [f"1.2.840.{n:05}" for n in range(150)],
        "by day": days,
        "one folder in another": [f"a/b/c/d/{n:03}.png" for n in range(120)],
        "mixed": [*days[:40], *("z", "2026", "2026/", "2026/03", "ä/x", "ä"), *nested],
        "at random": ["/".join(rng.choices("ab", k=rng.randint(1, 7))) for _ in range(90)],
        "few": ["a.tar", "b.tar"],
    }  # fmt: skip


@pytest.mark.parametrize("shape", shapes())
def test_it_finds_what_one_listing_finds(
    shape: str, object_store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    for key in sorted({*shapes()[shape]}):
        object_store.client().put_object(Bucket=bucket, Key=f"pacs/{key}", Body=b"x")
    monkeypatch.setattr(s3_listing, "PAGE_KEYS", 50)  # of moto's pages, see its support
    monkeypatch.setattr(s3_listing, "PAGES_IN_ORDER", 1)
    expected = list(list_objects(f"s3://{bucket}/pacs"))
    assert len(expected) >= len({*shapes()[shape]}) - 1  # "2026/" may be a folder's marker
    found = list(list_objects(f"s3://{bucket}/pacs", in_order=False))
    assert sorted(found, key=lambda info: info.uri) == expected


def test_error_of_a_thread_reaches_the_caller_and_ends_the_others(
    object_store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    for number in range(120):
        object_store.client().put_object(Bucket=bucket, Key=f"p/{number:03}/x", Body=b"x")
    monkeypatch.setattr(s3_listing, "PAGE_KEYS", 50)
    monkeypatch.setattr(s3_listing, "PAGES_IN_ORDER", 1)
    pages, calls = s3_listing._pages, []

    def fail(*place: object, **options: object) -> object:
        calls.append(place)
        if len(calls) == 4:
            raise StorageError("gone")
        return pages(*place, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(s3_listing, "_pages", fail)
    with pytest.raises(StorageError, match="gone"):
        list(list_objects(f"s3://{bucket}/p", in_order=False))


def test_nothing_is_not_found(
    object_store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(NotFoundError):
        list(list_objects(f"s3://{bucket}/none", in_order=False))
    assert list(list_objects(f"s3://{bucket}", in_order=False)) == []
