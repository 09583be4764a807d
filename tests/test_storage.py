"""Places in an object store are read and written like places on a disk."""

from __future__ import annotations

import errno
import os
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from naturelm import storage
from naturelm.errors import NaturelmError
from naturelm.storage import StoreError, StorePath, find, is_url, list_files, location, write_whole
from tests.object_store import ObjectStore, failing

NAMES = [
    "a b.parquet",
    "station=S 1%2F%C3%BC/date=2024-05-01/part-0.parquet",
    "q?x=1&y#z.wav",
    "ü 🦉/'\".flac",
]


@pytest.fixture(params=["tmp_path", "bucket", "google_bucket"])
def place(request: pytest.FixtureRequest) -> storage.Location:
    return location(request.getfixturevalue(request.param)) / "out"


def write(place: storage.Location, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, content)


def object_under(path: str) -> bytes:
    bucket, _, key = path.removeprefix("s3://").partition("/")
    return boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()


def test_paths_stay_paths_and_urls_become_places_in_stores() -> None:
    assert location("night/a.wav") == Path("night/a.wav")
    assert location(Path("x")) == Path("x")
    url = location("S3://bucket/a b/%20?#/")
    assert url == StorePath("s3", "bucket/a b/%20?#")
    assert location(url) is url
    assert str(url / "x.wav") == "s3://bucket/a b/%20?#/x.wav"
    assert ((url / "x.wav").name, (url / "x.wav").suffix, (url / "x.wav").parent) == ("x.wav", ".wav", url)
    assert pickle.loads(pickle.dumps(url)) == url
    assert [is_url(text) for text in ("s3://b", url, "s3:/b", Path("a"), "/s3://b")] == [
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "expected"), [("ftp://host/x", "ftp:// is not read here"), ("s3://", "names no bucket")]
)
def test_url_that_cannot_be_used_is_refused(text: str, expected: str) -> None:
    with pytest.raises(NaturelmError, match=expected):
        location(text)


def test_what_is_written_is_listed_and_read_under_its_own_name(place: storage.Location) -> None:
    for number, name in enumerate(NAMES):
        write(place / name, bytes([number]) * (number + 1))
    assert [(file.relative_path, file.size_bytes) for file in list_files(place, recursive=True)] == sorted(
        (name, number + 1) for number, name in enumerate(NAMES)
    )
    assert [file.relative_path for file in list_files(place)] == [name for name in NAMES if "/" not in name]
    for number, name in enumerate(NAMES):
        assert (place / name).read_bytes() == bytes([number]) * (number + 1)
        assert (place / name).is_file()
        assert not (place / name).is_dir()
    assert (place / "ü 🦉").is_dir()
    assert not (place / "ü").exists()
    assert list_files(place / "nowhere", recursive=True) == []


def test_writing_again_replaces_and_deleting_twice_may_be_allowed(place: storage.Location) -> None:
    write(place / "a", b"old")
    write(place / "a", b"new")
    assert (place / "a").read_text(encoding="utf-8") == "new"
    (place / "a").unlink()
    (place / "a").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (place / "a").unlink()
    with pytest.raises(FileNotFoundError):
        (place / "a").read_bytes()


def test_object_appears_by_one_put(bucket: str, object_store: ObjectStore) -> None:
    before = len(object_store.requests())
    write_whole(location(bucket) / "a/part-0.parquet", b"x" * 3_000_000)
    assert [line.split()[0] for line in object_store.requests()[before:]] == ["PUT"]
    assert len(object_under(f"{bucket}/a/part-0.parquet")) == 3_000_000


def test_large_object_appears_when_its_last_part_is_there(bucket: str, object_store: ObjectStore) -> None:
    content = random.Random(1).randbytes(25 << 20)
    before = len(object_store.requests())
    write_whole(location(bucket) / "large", content)
    methods = [line.split()[0] for line in object_store.requests()[before:]]
    assert (methods[0], methods[-1]) == ("POST", "POST")  # what begins an upload and what completes it
    assert object_under(f"{bucket}/large") == content


def test_reading_fetches_ranges(bucket: str, object_store: ObjectStore) -> None:
    content = random.Random(2).randbytes(40 << 20)
    write_whole(location(bucket) / "night.wav", content)
    before = len(object_store.requests())
    with (location(bucket) / "night.wav").open() as file:
        assert file.read(65536) == content[:65536]
        file.seek(-65536, os.SEEK_END)
        assert file.read() == content[-65536:]
        file.seek(44)
        assert file.read(4) == content[44:48]
        assert len(object_store.requests()) - before == 3  # size, head, tail
        file.seek(1_000_001)
        assert file.read() == content[1_000_001:]
        # Reading on in order fetches more at once: 64 KiB, 128 KiB, … 8 MiB.
        assert len(object_store.requests()) - before < 20


@pytest.mark.parametrize("kind", ["bucket", "google_bucket"])
def test_random_reads_equal_the_content(request: pytest.FixtureRequest, kind: str) -> None:
    bucket = request.getfixturevalue(kind)
    dice = random.Random(3)
    content = dice.randbytes(1_000_000)
    write_whole(location(bucket) / "x", content)
    with (location(bucket) / "x").open() as file:
        for _ in range(300):
            start, size = dice.randrange(1_100_000), dice.randrange(200_000)
            file.seek(start)
            assert file.read(size) == content[start : start + size]


def test_listing_goes_on_after_a_thousand_keys(bucket: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: write_whole(location(f"{bucket}/a/{number:04d}.wav"), b""), range(1001)))
    assert [file.relative_path for file in list_files(location(bucket), recursive=True)] == [
        f"a/{number:04d}.wav" for number in range(1001)
    ]


def test_time_of_an_object_is_known(bucket: str) -> None:
    write_whole(location(bucket) / "a", b"1")
    (listed,) = list_files(location(bucket))
    assert listed == find(listed.location)
    assert listed.modified_ns > 1_700_000_000_000_000_000
    assert find(location(bucket) / "b") is None


def test_bucket_that_is_not_there_is_told(bucket: str) -> None:
    with pytest.raises(StoreError) as raised:
        write_whole(location(f"{bucket}-other/x"), b"")
    assert raised.value.strerror == "no such bucket: The specified bucket does not exist"
    assert raised.value.filename == f"{bucket}-other/x"


def test_refused_access_is_told(bucket: str, object_store: ObjectStore, point_at) -> None:
    with failing(object_store, 403) as endpoint:
        point_at(endpoint)
        with pytest.raises(StoreError) as raised:
            (location(bucket) / "x").read_bytes()
    assert (raised.value.errno, raised.value.strerror) == (errno.EACCES, "access denied")
