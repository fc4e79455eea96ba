"""Where radiographs and credentials may go: by TLS or on this machine, never to metadata."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from implant_model import storage
from implant_model.errors import StorageError, UsageError
from implant_model.storage.endpoint import ALLOW_HTTP, check_endpoint
from implant_model.storage.secrets import read_secret
from jobs.tables.delta import open_table
from tests.support.object_store import CREDENTIALS
from tests.support.ray_cluster import without_cluster

METADATA = [
    "169.254.169.254",
    "169.254.170.2",  # ECS
    "169.254.170.23",  # EKS
    "2852039166",
    "0xA9FEA9FE",
    "0251.0376.0251.0376",
    "169.254.43518",
    "[fd00:ec2::254]",
    "[fe80::a9fe:a9fe]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
    "[fd20:ce::254]",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "metadata.google.internal",
    "METADATA.google.internal.",
    "metadata",
    "instance-data",
    "instance-data.ec2.internal",
]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", METADATA)
def test_metadata_service_is_refused_however_it_is_written(
    host: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALLOW_HTTP, "1")
    with pytest.raises(UsageError, match="metadata service"):
        check_endpoint(f"{scheme}://{host}/latest")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9000",
        "http://127.8.9.1",
        "http://localhost:9000",
        "http://[::1]:9000",
        "http://[::ffff:127.0.0.1]:9000",
        "https://s3.eu-central-1.amazonaws.com",
        "https://192.0.2.7:9000",
        "https://minio.invalid",
    ],
)
def test_tls_and_this_machine_are_accepted(url: str) -> None:
    check_endpoint(url)


@pytest.mark.parametrize(
    "url", ["http://192.0.2.7:9000", "http://minio.invalid:9000", "http://[2001:db8::1]"]
)
def test_plain_http_to_another_machine_wants_a_word(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="is not encrypted.*--allow-http"):
        check_endpoint(url)
    monkeypatch.setenv(ALLOW_HTTP, "1")
    check_endpoint(url)


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_every_way_to_a_store_looks_at_its_endpoint(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv(variable, "http://192.0.2.7:9000")
    for use in (storage.stat, storage.read_bytes, open_table, lambda uri: storage.probe(uri)):
        with pytest.raises(UsageError, match="is not encrypted"):
            use("s3://bucket/key")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://169.254.169.254")
    with pytest.raises(UsageError, match="metadata service"):
        read_secret("implant-key")


def test_a_job_says_it_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": "http://192.0.2.7:9000"}.items():
        monkeypatch.setenv(name, value)
    done = without_cluster("jobs.verify", "s3://bucket/out")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith(
        "verify: The endpoint http://192.0.2.7 is not encrypted"
    )


class _Asked(list[str]):
    """What a server was asked for, and with which credentials."""


@contextmanager
def _server(location: str | None) -> Iterator[tuple[str, _Asked]]:
    """A store that answers all with a redirect, or one that keeps what it is asked."""
    asked = _Asked()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(f"{self.command} {self.path} {self.headers.get('Authorization')}")
            self.send_response(307 if location else 404)
            if location:
                self.send_header("Location", location + self.path)
                self.send_header("x-amz-bucket-region", location.removeprefix("http://"))
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_PUT = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.usefixtures("credentials")
def test_a_redirect_to_another_host_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store, or who answers in its place, gets nobody's credentials for another host.

    deltalake's own client follows, which no option of it forbids (1.6.6), and leaves them out.
    """
    with _server(None) as (other, other_asked), _server(other) as (store, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL", store)
        for use in (
            lambda: storage.stat("s3://bucket/key"),
            lambda: list(storage.list_objects("s3://bucket/prefix/")),
            lambda: storage.put_if_absent("s3://bucket/key", b"data"),
        ):
            with pytest.raises(StorageError):
                use()
        assert len(asked) >= 3
        assert other_asked == []
        with contextlib.suppress(StorageError):
            open_table("s3://bucket/table")
    assert all(request.endswith(" None") for request in other_asked)
