"""Every request that the jobs send, held against the rights of `deploy/policy-data.json`."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from deltalake import DeltaTable

from tests.privacy.conftest import Tell
from tests.support.archive_samples import tar_of
from tests.support.fault_proxy import FaultProxy, Request, running_fault_proxy
from tests.support.object_store import ObjectStore, running_object_store
from tests.support.paths import ROOT
from tests.support.pictures import noise_png

POLICY = json.loads((ROOT / "deploy" / "policy-data.json").read_text())["Statement"]
KMS_KEY = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
OUTPUT = "s3://registry/implants"
# Ray hands the store's requests on and adds none.
DIRECT = ["-c", "import sys; from tests.torture.attacks import direct; "
          "direct.run(sys.argv[1:], lease=True)"]  # fmt: skip


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def holds(condition: dict[str, dict[str, Any]], context: dict[str, str]) -> bool:
    """Whether a statement's condition is met, for the operators that the policy uses."""
    for operator, tests in condition.items():
        for key, wanted in tests.items():
            if operator == "StringLike":
                met = any(fnmatchcase(context.get(key, "\0"), each) for each in listed(wanted))
            else:
                assert operator == "Null"
                met = (key not in context) == (wanted == "true")
            if not met:
                return False
    return True


def concerns(statement: dict[str, Any], action: str, resource: str) -> bool:
    if action not in listed(statement["Action"]):
        return False
    if "NotResource" in statement:
        return not any(fnmatchcase(resource, each) for each in listed(statement["NotResource"]))
    return any(fnmatchcase(resource, each) for each in listed(statement["Resource"]))


def is_granted(action: str, resource: str, context: dict[str, str]) -> bool:
    effects = {
        statement["Effect"]
        for statement in POLICY
        if concerns(statement, action, resource) and holds(statement.get("Condition", {}), context)
    }
    return effects == {"Allow"}


def rights_of(request: Request) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The rights that S3 wants for a request: action, resource, and the keys of conditions."""
    parts = urlsplit(request.target)
    bucket, _, key = unquote(parts.path).removeprefix("/").partition("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    arn = f"arn:aws:s3:::{bucket}"
    if not key:
        assert request.method == "GET", request.target
        yield "s3:ListBucket", arn, {"s3:prefix": query["prefix"][0]}
    elif request.method in ("GET", "HEAD"):
        yield "s3:GetObject", f"{arn}/{key}", {}
        # Without it, S3 answers 403 in place of 404 for what is not there.
        yield "s3:ListBucket", arn, {"s3:prefix": key}
    else:
        assert request.method == "PUT", f"{request.method} {request.target}"
        conditional = "if-none-match" in request.headers
        yield "s3:PutObject", f"{arn}/{key}", {"s3:if-none-match": "*"} if conditional else {}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FaultProxy, ObjectStore]]:
    """All requests of a first night, of one with a replaced archive, and of their check."""
    log = tmp_path_factory.mktemp("policy") / "moto.log"
    with running_object_store(log) as store, running_fault_proxy(store.port) as proxy:
        s3 = store.client()
        for bucket in ("pacs", "registry"):
            s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket="pacs", Key="2026/a.tar", Body=tar_of({"1.png": noise_png(1)}))
        s3.put_object(Bucket="pacs", Key="2026/b/1.png", Body=noise_png(2))
        variables = {**store.environment, "AWS_ENDPOINT_URL": proxy.endpoint}
        classify = ["s3://pacs/2026/", "--output", OUTPUT]
        classify += ["--model", str(ROOT / "models/phantom"), "--sse-kms-key-id", KMS_KEY]
        run(DIRECT, classify, variables)
        s3.put_object(Bucket="pacs", Key="2026/a.tar", Body=tar_of({"1.png": noise_png(3)}))
        for table in ("predictions", "archives"):
            often = {"delta.checkpointInterval": "1"}
            options = {**store.environment, "AWS_ALLOW_HTTP": "true"}
            DeltaTable(f"{OUTPUT}/{table}", storage_options=options).alter.set_table_properties(
                often
            )
        run(DIRECT, classify, variables)
        run(["-m", "jobs.verify"], [OUTPUT], variables)
        yield proxy, store


def run(program: list[str], call: list[str], variables: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, *program, *call],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_no_request_needs_a_right_that_the_policy_does_not_give(
    recorded: tuple[FaultProxy, ObjectStore], tell: Tell
) -> None:
    wanted = [right for request in recorded[0].requests for right in rights_of(request)]
    assert len(wanted) > 100
    kinds = {(action, resource.split(":::")[1].split("/")[0]) for action, resource, _ in wanted}
    assert len(kinds) == 5  # nothing is put into the input
    outside = [right for right in wanted if not is_granted(*right)]
    tell("rights asked of the store, and those outside the policy", len(wanted), len(outside))
    assert outside == []


def test_what_may_be_overwritten_is_what_is_put_without_a_condition(
    recorded: tuple[FaultProxy, ObjectStore],
) -> None:
    """No exception of the policy is idle, and none is missing."""
    (exceptions,) = (each["NotResource"] for each in POLICY if each["Effect"] == "Deny")
    free = {
        next(each for each in exceptions if fnmatchcase(resource, each))
        for request in recorded[0].requests
        for action, resource, context in rights_of(request)
        if action == "s3:PutObject" and not context
    }
    assert free == set(exceptions)
    for key in (
        "predictions/model=m/u.parquet",
        "predictions/_delta_log/00000000000000000001.json",
    ):
        resource = f"arn:aws:s3:::registry/implants/{key}"
        assert is_granted("s3:PutObject", resource, {"s3:if-none-match": "*"})
        assert not is_granted("s3:PutObject", resource, {})
    assert not is_granted("s3:ListBucket", "arn:aws:s3:::registry", {"s3:prefix": ""})
    assert not is_granted("s3:ListBucket", "arn:aws:s3:::registry", {})
    assert not is_granted("s3:DeleteObject", "arn:aws:s3:::registry/implants/a", {})


def test_all_that_is_written_is_under_the_key_asked_for(
    recorded: tuple[FaultProxy, ObjectStore],
) -> None:
    s3 = recorded[1].client()
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="registry")
    keys = [entry["Key"] for page in pages for entry in page["Contents"]]
    # Set by the test itself, past the job.
    keys = [key for key in keys if not re.search(r"_delta_log/0*(3|4)\.(json|check.*)$", key)]
    assert len(keys) > 15
    assert {s3.head_object(Bucket="registry", Key=key).get("SSEKMSKeyId") for key in keys} == {
        KMS_KEY
    }
