"""`cluster.yaml` by Ray's own schema, its nodes by AWS's own description of the call."""

import copy
from typing import Any

import boto3
import jsonschema
import pytest
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.support.paths import ROOT

CLUSTER: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
NODES = CLUSTER["available_node_types"]


def validated(config: dict[str, Any]) -> dict[str, Any]:
    """What `ray up` does with a file before it calls the cloud."""
    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_accepts_it_as_it_is_written() -> None:
    prepared = validated(CLUSTER)  # nothing of Ray's defaults is merged in:
    for role in ("head", "worker"):
        setup = CLUSTER["setup_commands"] + CLUSTER[f"{role}_setup_commands"]
        assert prepared[f"{role}_setup_commands"] == setup
    for name in ("initialization", "head_start_ray", "worker_start_ray"):
        assert prepared[f"{name}_commands"] == CLUSTER[f"{name}_commands"]


@pytest.mark.parametrize(
    ("node", "key", "value"),
    [("gpu_spot", "max_worker", 2), ("cpu", "resources", {"CPU": "16"}), ("head", "labels", [])],
)
def test_ray_refuses_a_mistake(node: str, key: str, value: object) -> None:
    wrong = copy.deepcopy(CLUSTER)
    wrong["available_node_types"][node][key] = value
    with pytest.raises(jsonschema.ValidationError):
        validated(wrong)


@pytest.mark.parametrize("name", NODES)
def test_aws_knows_what_is_asked_of_a_node(name: str) -> None:
    call = copy.deepcopy(NODES[name]["node_config"])
    assert call.pop("SubnetIds")  # Ray's own word: it tries them one after the other
    shape = boto3.Session().client("ec2", region_name="eu-central-1").meta.service_model
    request = shape.operation_model("RunInstances").input_shape
    report = ParamValidator().validate({**call, "MinCount": 1, "MaxCount": 1}, request)
    assert not report.has_errors(), report.generate_report()


@pytest.mark.parametrize("name", NODES)
def test_node_is_closed_and_has_the_rights_that_are_named(name: str) -> None:
    node = NODES[name]["node_config"]
    assert node["SecurityGroupIds"]  # else Ray opens port 22 to the world
    assert "AssociatePublicIpAddress" not in str(node)
    role = node["IamInstanceProfile"]["Arn"].rsplit("/", 1)[1]
    assert role == ("implant-head" if name == "head" else "implant-data")
    assert node["MetadataOptions"]["HttpTokens"] == "required"
    assert all(disk["Ebs"]["Encrypted"] for disk in node["BlockDeviceMappings"])


def test_head_does_no_work_and_the_groups_come_and_go() -> None:
    assert NODES["head"]["resources"] == {"CPU": 0}
    groups = {name: node for name, node in NODES.items() if name != CLUSTER["head_node_type"]}
    assert all(group["min_workers"] == 0 for group in groups.values())
    assert sum(group["max_workers"] for group in groups.values()) == CLUSTER["max_workers"]
    assert groups["gpu_spot"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert CLUSTER["provider"]["use_internal_ips"]


def test_nobody_enters_without_the_token() -> None:
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = CLUSTER[commands][-1]
        assert "RAY_AUTH_MODE=token" in start
        assert f"RAY_AUTH_TOKEN_PATH={next(iter(CLUSTER['file_mounts']))}" in start
    assert "--dashboard-host=127.0.0.1" in CLUSTER["head_start_ray_commands"][-1]


def test_numbers_have_their_reasons() -> None:
    text = (ROOT / "cluster.yaml").read_text()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("max_workers", "upscaling_speed", "idle_timeout_minutes"):
            assert "#" in value, line
