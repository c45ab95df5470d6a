"""The manifests for Kubernetes: held against its schemas, and against what they name."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
from ruamel.yaml import YAML

from graph.settings import Settings
from tests.processes import CODE
from tests.test_containers import only

MANIFESTS = sorted((CODE / "examples" / "kubernetes").glob("*.yaml"))
PAGE = (CODE / "docs" / "scale.md").read_text(encoding="utf-8")
SHELL = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def manifest(name: str) -> Any:
    """The only object of a file."""
    text = (CODE / "examples" / "kubernetes" / f"{name}.yaml").read_text(encoding="utf-8")
    return YAML(typ="safe").load(text)


DEPLOYMENT, JOB = manifest("deployment"), manifest("migrate")
PODS = {"deployment": DEPLOYMENT["spec"]["template"], "migrate": JOB["spec"]["template"]}


def container(pod: Any) -> Any:
    """The only container of a Pod's template."""
    (found,) = pod["spec"]["containers"]
    return found


def variables(pod: Any) -> dict[str, str]:
    """The environment that a manifest gives to its container."""
    return {each["name"]: each["value"] for each in container(pod).get("env", ())}


# The newest version, and one of the oldest in which everything here exists.
@pytest.mark.parametrize("version", ["1.37", "1.25"])
def test_the_manifests_are_as_the_schemas_of_kubernetes_say(version: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", "-k", version]
    done = subprocess.run([*command, *MANIFESTS], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed ") == len(MANIFESTS) == 4

    # What does not exist is found.
    wrong = tmp_path / "wrong.yaml"
    text = MANIFESTS[0].read_text(encoding="utf-8")
    wrong.write_text(text.replace("readOnlyRootFilesystem", "readOnlyRoot"), encoding="utf-8")
    done = subprocess.run([*command, wrong], capture_output=True, encoding="utf-8")
    assert done.returncode == 1


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_a_pod_may_do_nothing_that_it_does_not_need(pod: Any) -> None:
    user, group = only("USER").split(":")
    of_pod, of_container = pod["spec"]["securityContext"], container(pod)["securityContext"]
    assert of_pod == {
        "runAsNonRoot": True,
        "runAsUser": int(user),
        "runAsGroup": int(group),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert of_container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["spec"]["automountServiceAccountToken"] is False
    # Otherwise Kubernetes sets TROUPE_PORT=tcp://… for the Service, which no server accepts.
    assert pod["spec"]["enableServiceLinks"] is False
    assert manifest("service")["metadata"]["name"] == "troupe"
    assert "memory" in container(pod)["resources"]["limits"]


def test_each_program_has_the_rights_of_its_own_role() -> None:
    secrets = {name: container(pod)["envFrom"] for name, pod in PODS.items()}
    assert secrets == {
        "deployment": [{"secretRef": {"name": "troupe-server"}}],
        "migrate": [{"secretRef": {"name": "troupe-owner"}}],
    }
    assert {name: container(pod)["args"] for name, pod in PODS.items()} == {
        "deployment": ["serve"],
        "migrate": ["migrate"],
    }
    for each in ("troupe-server", "troupe-owner"):
        assert any(f"kubectl create secret generic {each} " in text for text in SHELL)
    # No password is in a manifest.
    assert not any("PASSWORD=" in file.read_text(encoding="utf-8") for file in MANIFESTS)


def test_the_image_is_of_this_version() -> None:
    version = tomllib.loads((CODE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for pod in PODS.values():
        assert container(pod)["image"].rpartition(":")[2] == version["version"]


def test_the_settings_are_settings() -> None:
    given = variables(PODS["deployment"])
    values: dict[str, Any] = {
        name.removeprefix("TROUPE_").lower(): value for name, value in given.items()
    }
    settings = Settings(**values)
    assert values.keys() <= Settings.model_fields.keys()
    # A Pod is killed only after it has ended by itself.
    needed = settings.drain_seconds + settings.grace_seconds
    assert DEPLOYMENT["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > needed
    # A Service has noticed that a Pod ends while this still takes requests.
    probe = container(PODS["deployment"])["readinessProbe"]
    assert settings.drain_seconds >= probe["periodSeconds"] * probe["failureThreshold"]


async def test_the_probes_are_answered(http: httpx.AsyncClient) -> None:
    server = container(PODS["deployment"])
    (port,) = server["ports"]
    assert str(port["containerPort"]) == only("EXPOSE")
    paths = {}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = server[name]["httpGet"]
        assert probe["port"] == port["name"]
        assert (await http.get(probe["path"])).status_code == 200
        paths[name] = probe["path"]
    # A Pod is not restarted because the database is away.
    assert paths == {
        "startupProbe": "/livez",
        "readinessProbe": "/readyz",
        "livenessProbe": "/livez",
    }


def test_what_selects_pods_finds_the_servers_and_not_the_migration() -> None:
    service, budget = manifest("service"), manifest("disruption")
    label = DEPLOYMENT["spec"]["selector"]["matchLabels"]
    assert PODS["deployment"]["metadata"]["labels"] == label
    assert service["spec"]["selector"] == label
    assert budget["spec"]["selector"]["matchLabels"] == label
    assert PODS["migrate"]["metadata"]["labels"] != label
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] == container(PODS["deployment"])["ports"][0]["name"]
    # Otherwise no node could be drained.
    assert DEPLOYMENT["spec"]["replicas"] > budget["spec"]["minAvailable"]


def test_the_page_names_what_there_is() -> None:
    lines = [line for text in SHELL for line in text.replace("\\\n", "").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines if "kubectl" in line]
    named = {word for line in words for word in line if word.endswith(".yaml")}
    assert named == {f"examples/kubernetes/{file.name}" for file in MANIFESTS}
    objects = {word for line in words for word in line if re.match(r"(job|deployment)/", word)}
    assert objects == {
        f"job/{JOB['metadata']['name']}",
        f"deployment/{DEPLOYMENT['metadata']['name']}",
    }
