"""What `deploy/` holds is valid for the tools that read it, and calls the jobs as they are."""

import ast
import hashlib
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatch
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import jsonschema
import pytest
import yaml
from cronsim import CronSim

from implant_model import storage
from implant_model.errors import AccessDeniedError
from implant_model.pseudonym_key import KEY_VARIABLE, read_key
from jobs.entry.cluster import NODE
from jobs.pipeline.classify_options import parse_classify
from jobs.pipeline.plan import make_plan
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.lease import Lease
from jobs.tables.publish import Tables
from tests.support.object_store import CREDENTIALS, ObjectStore, running_object_store
from tests.support.paths import ROOT

DEPLOY = ROOT / "deploy"
SCHEMA = json.loads((ROOT / "tests" / "operations" / "schemas" / "kuberay-1.7.0.json").read_text())
MANIFESTS = ("rayjob.yaml", "raycronjob.yaml")
POLICIES = sorted(DEPLOY.glob("policy-*.json"))


def test_the_image_has_the_settings_of_a_local_cluster() -> None:
    settings = re.findall(r"(?:MALLOC|RAY)_\w+=\d+", (DEPLOY / "Dockerfile").read_text())
    assert dict(setting.split("=") for setting in settings) == NODE


def manifest(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return loaded


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest_is_what_kuberay_defines(name: str) -> None:
    jsonschema.validate(manifest(name), SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("backofLimit",), 1),
        (("backoffLimit",), "none"),
        (("rayClusterSpec", "authOptions", "mode"), "tokens"),
        (("rayClusterSpec", "headGroupSpec", "template", "spec", "container"), []),
    ],
)
def test_schema_refuses_a_mistake(path: tuple[str, ...], value: object) -> None:
    wrong = manifest("rayjob.yaml")
    place = wrong["spec"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


def test_every_night_is_one_of_the_tried_job() -> None:
    night = manifest("raycronjob.yaml")["spec"]
    assert night["jobTemplate"] == manifest("rayjob.yaml")["spec"]
    assert starts_daily(night["schedule"])


def test_kubernetes_cluster_is_closed_and_its_head_idle() -> None:
    cluster = manifest("rayjob.yaml")["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    network = cluster["networkPolicy"]
    assert network["mode"] == "DenyAll"
    assert network["head"] == network["worker"]
    names, stores = network["head"]["egressRules"]
    assert {rule["port"] for rule in names["ports"]} == {53}
    assert [rule["port"] for rule in stores["ports"]] == [443]
    for peer in stores["to"]:
        reached = ip_network(peer["ipBlock"]["cidr"])
        assert reached.is_private
        assert not reached.overlaps(ip_network("169.254.0.0/16"))  # metadata
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    locked = (ROOT / "requirements.lock").read_text()
    assert f"\nray=={cluster['rayVersion']} " in locked


@pytest.mark.parametrize("name", MANIFESTS)
def test_head_names_the_feature_gates_that_the_manifest_needs(name: str) -> None:
    """Off by default in KubeRay 1.7: without them the operator refuses the kind or the field."""
    told = manifest(name)
    job = told["spec"].get("jobTemplate", told["spec"])
    needed = {"RayCronJob"} if told["kind"] == "RayCronJob" else set()
    needed |= {"RayClusterNetworkPolicy"} if "networkPolicy" in job["rayClusterSpec"] else set()
    head = (DEPLOY / name).read_text().partition("apiVersion:")[0]
    gates = dict(re.findall(r"featureGates\[(\d)\]\.name=(\w+)", head))
    enabled = re.findall(r"featureGates\[(\d)\]\.enabled=true", head)
    assert {gates[number] for number in enabled} == set(gates.values()) == needed


@pytest.mark.parametrize("name", MANIFESTS)
def test_key_is_mounted_on_every_node_where_the_command_expects_it(name: str) -> None:
    spec = manifest(name)["spec"]
    cluster = spec.get("jobTemplate", spec)["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        path = next(item["value"] for item in container["env"] if item["name"] == KEY_VARIABLE)
        (mount,) = container["volumeMounts"]
        (volume,) = (item for item in pod["volumes"] if item["name"] == mount["name"])
        folder, _, file = path.rpartition("/")
        assert (mount["mountPath"], mount["readOnly"]) == (folder, True)
        made = f"kubectl create secret generic {volume['secret']['secretName']} --from-file={file}="
        assert made in (DEPLOY / name).read_text().partition("apiVersion:")[0]
        # The group may read it, and the job's account is of that group.
        assert volume["secret"]["defaultMode"] == 0o440
        assert pod["securityContext"]["fsGroup"]


def test_key_of_the_cluster_is_the_secret_that_every_node_may_read(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its very name, from a Secrets Manager that is not AWS's."""
    for name, value in {"AWS_ENDPOINT_URL": object_store.endpoint, **CREDENTIALS}.items():
        monkeypatch.setenv(name, value)
    (source,) = {
        words[words.index("--key-file") + 1] for name, words in commands() if name == "cluster.yaml"
    }
    assert source in (DEPLOY / "airflow_nightly.py").read_text()
    secret = hashlib.sha256(b"a test's key").hexdigest()
    secrets = client("secretsmanager", object_store.endpoint, region="eu-central-1")
    made = secrets.create_secret(Name="implant-key", SecretString=f"{secret}\n")
    assert made["ARN"].split(":")[5:6] == source.split(":")[6:7]
    assert read_key(f"aws-secretsmanager:{made['ARN']}") == secret.encode()
    readers = {
        (path.stem, statement["Resource"])
        for path in POLICIES
        for statement in json.loads(path.read_text())["Statement"]
        if "secretsmanager" in str(statement["Action"])
    }
    ((policy, resource),) = readers
    assert policy == "policy-data"  # of the head and of the nodes
    assert fnmatch(made["ARN"].split("secret:")[1], resource.split("secret:")[1])


def starts_daily(schedule: str) -> bool:
    """Whether the five fields say one moment of each day."""
    nights = CronSim(schedule, datetime(2026, 1, 31, tzinfo=UTC))
    first, second, third = next(nights), next(nights), next(nights)
    return (second - first).days == (third - second).days == 1


def crontab_lines() -> list[str]:
    lines = (DEPLOY / "crontab").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_crontab_is_one_daily_command_that_bash_can_read() -> None:
    variables = [line for line in crontab_lines() if re.match(r"[A-Z_]+=", line)]
    (entry,) = (line for line in crontab_lines() if line not in variables)
    assert "SHELL=/bin/bash" in variables
    *fields, command = entry.split(maxsplit=5)
    assert starts_daily(" ".join(fields))
    assert "%" not in command  # cron ends the command there
    subprocess.run(["bash", "-n", "-c", command], check=True)


def commands() -> Iterator[tuple[str, list[str]]]:
    """The arguments of each `python -m jobs.classify` below `deploy/` and in cluster.yaml."""
    for path in (*sorted(DEPLOY.iterdir()), ROOT / "cluster.yaml"):
        text = re.sub(r" *\\\n#?\s*|\"\n\s*\"", " ", path.read_text())
        text = re.sub(r"(classify[^\n]*)\n\s+(--)", r"\1 \2", text)
        for found in re.findall(r"python -m jobs\.classify ([^\n\">]*)", text):
            words = shlex.split(found.split("  ")[0])
            yield path.name, words


def test_commands_are_accepted(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(hashlib.sha256(b"a test's key").hexdigest())
    key.chmod(0o600)
    called = list(commands())
    names = {name for name, _ in called}
    assert names == {
        "airflow_nightly.py",
        "cluster.yaml",
        "crontab",
        "rayjob.yaml",
        "raycronjob.yaml",
    }
    for _, arguments in called:
        if "--key-file" in arguments:  # a secret of AWS
            arguments[arguments.index("--key-file") + 1] = str(key)
        options = parse_classify(arguments, None)
        assert options.output == "s3://registry/implants"


def test_airflow_example_is_python_of_one_dag() -> None:
    tree = ast.parse((DEPLOY / "airflow_nightly.py").read_text())
    compile(tree, "airflow_nightly.py", "exec")
    (dag,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    (decorator,) = dag.decorator_list
    assert isinstance(decorator, ast.Call)
    given = {word.arg: ast.unparse(word.value) for word in decorator.keywords}
    assert starts_daily(ast.literal_eval(given["schedule"]))
    assert given["catchup"] == "False"
    assert given["max_active_runs"] == "1"


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_policy_is_one(path: Path, object_store: ObjectStore) -> None:
    iam = client("iam", object_store.endpoint)
    iam.create_policy(PolicyName=f"tried-{path.stem}", PolicyDocument=path.read_text())
    broken = path.read_text().replace('"Allow"', '"Alow"')
    with pytest.raises(iam.exceptions.MalformedPolicyDocumentException):
        iam.create_policy(PolicyName=f"broken-{path.stem}", PolicyDocument=broken)


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_policy_gives_no_right_to_delete_and_none_to_everything(path: Path) -> None:
    for statement in json.loads(path.read_text())["Statement"]:
        if statement["Effect"] == "Deny":
            continue
        actions, resources = statement["Action"], statement["Resource"]
        actions = [actions] if isinstance(actions, str) else actions
        assert not any("Delete" in action or "*" in action for action in actions)
        if resources == "*":
            assert all(re.match(r"ec2:Describe|ecr:GetAuth", action) for action in actions)


def client(
    service: str,
    endpoint: str,
    key: str = "testing",
    secret: str = "testing",
    region: str = CREDENTIALS["AWS_DEFAULT_REGION"],
) -> Any:
    return boto3.Session().client(
        service,  # type: ignore[call-overload]
        endpoint_url=endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name=region,
    )


@pytest.fixture(scope="module")
def strict_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An object store that grants what `policy-data.json` grants, and the user's environment."""
    log = tmp_path_factory.mktemp("strict") / "server.log"
    with running_object_store(log) as store:
        for bucket in ("pacs", "registry"):
            store.client().create_bucket(Bucket=bucket)
        store.client().put_object(Bucket="pacs", Key="2026/a.tar", Body=b"archive")
        store.client().put_object(Bucket="registry", Key="elsewhere/a", Body=b"not ours")
        iam = client("iam", store.endpoint)
        # moto has a right of its own for what S3 grants with s3:ListBucket
        moto = '["s3:ListBucket", "s3:HeadBucket"]'
        policy = json.loads((DEPLOY / "policy-data.json").read_text())
        # moto knows no NotResource; tests/privacy/test_policy.py holds the requests against it
        policy["Statement"] = [each for each in policy["Statement"] if each["Effect"] == "Allow"]
        iam.create_user(UserName="node")
        iam.put_user_policy(
            UserName="node",
            PolicyName="data",
            PolicyDocument=json.dumps(policy).replace('"s3:ListBucket"', moto),
        )
        key = iam.create_access_key(UserName="node")["AccessKey"]
        begin = Request(
            f"{store.endpoint}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}
        )
        urlopen(begin).close()  # from now on it asks for rights
        yield {
            **store.environment,
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }


def test_least_rights_are_enough_for_a_run_and_for_nothing_else(
    strict_store: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in strict_store.items():
        monkeypatch.setenv(name, value)
    output = "s3://registry/implants"
    tables = Tables(output, RunIdentity("small@0123456789ab", "c0", "0.1.0", "run"))
    storage.probe(output)
    with Lease(output, "run"):
        tables.create()
        plan = make_plan(["s3://pacs/2026"], tables.records())
    (archive,) = plan.todo
    assert storage.read_bytes(archive.info.uri) == b"archive"
    assert storage.put_if_absent(f"{output}/predictions/unit", b"rows")
    for uri in ("s3://pacs/2026/new", "s3://registry/elsewhere/new"):
        with pytest.raises(AccessDeniedError):
            storage.put_if_absent(uri, b"")
    with pytest.raises(AccessDeniedError):
        storage.read_bytes("s3://registry/elsewhere/a")
    s3 = client(
        "s3",
        strict_store["AWS_ENDPOINT_URL"],
        strict_store["AWS_ACCESS_KEY_ID"],
        strict_store["AWS_SECRET_ACCESS_KEY"],
    )
    with pytest.raises(s3.exceptions.ClientError, match="AccessDenied|Forbidden"):
        s3.delete_object(Bucket="registry", Key="implants/predictions/unit")
