"""The files of `deploy/` agree with the package: its version, Pythons, commands, options and settings."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kodo.cli.commands import load
from kodo.client.config import load_settings
from kodo.settings.home import ENVIRONMENT

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
KUBERAY = list(yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text()))


def instructions(name: str) -> list[str]:
    return [line.partition(" ")[2] for line in DOCKERFILE.splitlines() if line.startswith(f"{name} ")]


def unit(path: Path) -> list[tuple[str, str]]:
    lines = [line.partition("=") for line in path.read_text().splitlines() if "=" in line and line[0] not in "#["]
    return [(key, value) for key, _, value in lines]


def kuberay_pods() -> Iterator[dict[str, Any]]:
    cluster = next(each for each in KUBERAY if each["kind"] == "RayCluster")["spec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each command line of `koco` in these files, by where it stands."""
    yield "Dockerfile", yaml.safe_load(instructions("CMD")[0])
    for name, service in COMPOSE["services"].items():
        yield f"compose {name}", service["command"]
    for path in UNITS:
        yield path.name, shlex.split(dict(unit(path))["ExecStart"])[1:]
    for pod in kuberay_pods():
        for container in pod["containers"]:
            if "command" in container:
                assert container["command"][0] == "koco"
                yield f"kuberay {container['name']}", container["command"][1:]
    for where in (DEPLOY / "README.md", DEPLOY / "compose.yaml"):
        for line in re.findall(r"\bkoco ([a-z]+[^`\n]*)`", where.read_text()):
            yield where.name, shlex.split(line)


def variables() -> Iterator[tuple[str, str, str]]:
    """Each variable of kodo that these files set."""
    for line in instructions("ENV"):
        for word in shlex.split(line):
            yield "Dockerfile", *word.split("=", 1)  # type: ignore[misc]
    for name, service in COMPOSE["services"].items():
        for variable, value in service.get("environment", {}).items():
            yield name, variable, value
    for path in UNITS:
        for key, value in unit(path):
            if key == "Environment":
                yield path.name, *value.split("=", 1)  # type: ignore[misc]
    for pod in kuberay_pods():
        for container in pod["containers"]:
            for each in container.get("env", ()):
                yield container["name"], each["name"], each.get("value", "x")


@pytest.mark.parametrize(("where", "words"), [pytest.param(*each, id=each[0]) for each in commands()])
def test_each_command_takes_its_words(where: str, words: list[str]) -> None:
    command = load(words[0])
    command.make_context(words[0], words[1:]).close()


def test_each_variable_is_a_setting_and_its_value_is_taken() -> None:
    known = {*ENVIRONMENT.values(), "KODO_HOME"}
    found = [(name, value) for _, name, value in variables() if name.startswith("KODO_")]
    assert len(found) > 5
    assert {name for name, _ in found} <= known
    for name, value in found:
        load_settings("/nonexistent", environment={name: value})


def test_images_and_ray_are_of_this_version() -> None:
    images = {COMPOSE["services"][name]["image"] for name in COMPOSE["services"]}
    images |= {container["image"] for pod in kuberay_pods() for container in pod["containers"]}
    images |= set(re.findall(r"-t (kodo:\S+)", DOCKERFILE + (DEPLOY / "README.md").read_text()))
    assert images == {f"kodo:{PROJECT['version']}"}
    cluster = next(each for each in KUBERAY if each["kind"] == "RayCluster")["spec"]
    assert f"ray=={cluster['rayVersion']}" in PROJECT["optional-dependencies"]["node"]


def test_the_image_has_a_python_that_kodo_is_tested_on() -> None:
    pythons = set(re.findall(r"FROM python:(\d+\.\d+)-slim", DOCKERFILE))
    classifiers = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line}
    assert len(pythons) == 1
    assert pythons <= classifiers


def test_what_the_image_copies_is_there_and_what_it_runs_exists() -> None:
    copied = [line.split()[-2] for line in instructions("COPY") if "--from" not in line]
    assert copied == [".", "scripts/locks/run.txt"]
    assert all((ROOT / each).exists() for each in copied)
    assert instructions("ENTRYPOINT") == ['["koco"]']
    assert "koco" in PROJECT["scripts"]


def test_what_is_served_is_what_is_opened_and_looked_at() -> None:
    assert instructions("EXPOSE") == ["4711/udp 8360/tcp"]
    metrics = {name: value for _, name, value in variables() if name == "KODO_METRICS"}
    assert metrics["KODO_METRICS"]
    assert "http://127.0.0.1:9464/healthz" in DOCKERFILE
    assert "KODO_METRICS=127.0.0.1:9464" in DOCKERFILE
    for name, service in COMPOSE["services"].items():
        words, [port] = service["command"], service["ports"]
        inside = words[words.index("--port") + 1] if "--port" in words else "8360"
        assert port.partition("/")[0].rpartition(":")[2] == inside, name
    for pod in kuberay_pods():
        for container in pod["containers"]:
            mounts = {each["name"] for each in container.get("volumeMounts", ())}
            assert mounts <= {each["name"] for each in pod.get("volumes", ())}


SERVICE_KEYS = {
    *("image", "build", "restart", "stop_grace_period", "read_only", "tmpfs", "cap_drop", "security_opt", "shm_size"),
    *("depends_on", "command", "ports", "volumes", "environment"),
}
"""Of the Compose specification, those that are used here: a typing error is none of them."""


def test_the_services_of_compose_find_each_other_and_write_only_into_their_volumes() -> None:
    services, volumes = COMPOSE["services"], COMPOSE["volumes"]
    [home] = {value for _, name, value in variables() if name == "KODO_HOME" and value == "/var/lib/kodo"}
    mounted, published = [], []
    for name, service in services.items():
        assert set(service) <= SERVICE_KEYS, name
        build = DEPLOY / service["build"]["context"]
        assert (build / service["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
        for other, how in service.get("depends_on", {}).items():
            assert other in services
            assert how == {"condition": "service_healthy"}
            assert "HEALTHCHECK" in DOCKERFILE
        assert (service["read_only"], service["tmpfs"]) == (True, ["/tmp"]), name
        [volume] = [each.split(":") for each in service["volumes"]]
        assert volume[1] == home
        mounted.append(volume[0])
        published += [port.partition("/")[0].rpartition(":")[0].rpartition(":")[2] for port in service["ports"]]
        registry = service.get("environment", {}).get("KODO_REGISTRY")
        if registry is not None:
            host, _, port = registry.removeprefix("http://").partition(":")
            assert host in service["depends_on"]
            assert [each.rpartition(":")[2] for each in services[host]["ports"]] == [port]
    assert sorted(mounted) == sorted(volumes)
    assert len(set(published)) == len(published) == len(services)


def test_the_image_is_built_as_careful_people_do() -> None:
    runs = [line for line in instructions("RUN") if line]
    for line in runs:
        assert ("apt-get install" not in line) or all(
            each in line for each in ("apt-get update", "--no-install-recommends", "rm -rf /var/lib/apt/lists/*")
        )
        assert "pip install" not in line or (
            "--no-cache-dir" in line and ("--require-hashes" in line or "--no-deps" in line)
        )
    order = [line.split()[0] for line in DOCKERFILE.splitlines() if line[:1].isupper()]
    assert order.index("USER") < order.index("ENTRYPOINT")
    assert instructions("USER") == ["kodo"]
    assert "RUN" not in order[order.index("USER") :]  # nothing is done as another one behind it
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv*", ".env*", "*.key"} <= set(ignored)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_takes_the_unit_and_finds_it_hardened(path: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    copy = tmp_path / path.name
    copy.write_text(path.read_text().replace("/opt/kodo/.venv/bin/koco", sys.executable))
    verified = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    told = [line for line in verified.stderr.splitlines() if path.name in line]
    assert (verified.returncode, told) == (0, [])
    looked = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", copy],
        capture_output=True,
        text=True,
        check=False,
    )
    assert looked.returncode == 0, looked.stdout[-400:]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_writes_only_where_its_home_is(path: Path) -> None:
    said = dict(unit(path))
    assert said["ProtectSystem"] == "strict"
    homes = [value for key, value in unit(path) if value.startswith("KODO_HOME=")]
    assert homes == [f"KODO_HOME=/var/lib/{said['StateDirectory']}"]
