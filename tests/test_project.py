"""The project's shell: the compose file, CI and what the pages say."""

import importlib.resources
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from stream.config import load
from stream.replay.run import Run

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return document


def test_every_dependency_is_pinned(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    names = [*project["project"]["dependencies"], *(name for extra in extras.values() for name in extra)]
    assert [name for name in names if "==" not in name] == ["sameas[demo,files,quality]"]
    assert names[0].startswith("torch==")


def test_the_compose_file_is_valid(compose: dict[str, Any]) -> None:
    vendored = (
        importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    )
    jsonschema.Draft7Validator(json.loads(vendored.read_bytes())).validate(compose)


def test_the_worker_waits_for_topics_and_is_an_ordinary_user(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["kafka"]["image"] == "${KAFKA_IMAGE:-apache/kafka:4.1.1}"
    assert services["topics"]["depends_on"]["kafka"]["condition"] == "service_healthy"
    worker = services["worker"]
    assert worker["depends_on"]["topics"]["condition"] == "service_completed_successfully"
    assert worker["user"].partition(":")[0] not in ("0", "root", "")
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "/livez" in worker["healthcheck"]["test"][-1] and "/livez" in image and "/readyz" not in image


def test_containers_are_confined(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"] and service["mem_limit"], name
        if name != "kafka":
            assert service["read_only"] and service["user"] == "10001:10001", name


def locked(*files: str) -> dict[str, str]:
    """Names and versions of files in locks/, each with a hash at least."""
    text = "".join((ROOT / "locks" / file).read_text(encoding="utf-8") for file in files)
    blocks = re.findall(
        r"^([a-z][\w.-]*)==([\w.+]+)[^\n]*\\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.M
    )
    assert len(blocks) == len(re.findall(r"^\w", text, flags=re.M))
    return {name: version for name, version, _ in blocks}


def test_what_is_installed_is_locked(project: dict[str, Any]) -> None:
    """`make lock` brings locks/ up to date."""
    extras = project["project"]["optional-dependencies"]
    needed = project["project"]["dependencies"] + extras["files"]
    torch, worker = locked("torch.txt"), locked("worker.txt")
    assert {name: f"{version}+cpu" for name, version in torch.items()} == locked("torch-cpu.txt")
    assert (torch | worker).items() >= {versions(name) for name in needed}
    wanted = {versions(name) for extra in extras.values() for name in extra if not name.startswith("sameas[")}
    assert (worker | locked("develop.txt")).items() >= wanted
    assert "setuptools" in worker  # builds are not isolated: what they need would not be checked
    assert not re.search(r"nvidia|triton", " ".join(worker))


def versions(requirement: str) -> tuple[str, str]:
    name, version = requirement.lower().split("==")
    return re.sub(r"[-_.]+", "-", name), version


def test_the_image_installs_only_what_is_locked() -> None:
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    installs = re.findall(r"pip install [^&\n]*", image)
    assert len(installs) == 3
    assert all("--no-deps" in words for words in installs)
    assert all("--require-hashes" in words or words.split()[-1] == "." for words in installs)


def test_the_settings_that_the_image_sets_exist(compose: dict[str, Any]) -> None:
    in_image = re.findall(r"(SAMEAS_\w+)=(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    environment = dict(in_image) | compose["services"]["worker"]["environment"]
    assert len(environment) == 5
    settings = load(environ=environment).settings
    assert settings.kafka.servers == ["kafka:19092"]
    assert settings.metrics.port == 9464


def test_the_workers_metrics_are_published_on_loopback_alone(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    assert load(environ=worker["environment"]).settings.metrics.host == "0.0.0.0"
    assert worker["ports"] == ["127.0.0.1:9464:9464"]


def test_what_is_written_in_a_container_is_in_the_volume(compose: dict[str, Any]) -> None:
    """A replay is kept beside the worker's state, and nothing else than the volume can be written."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    settings = load(environ=dict(re.findall(r"(SAMEAS_\w+)=(\S+)", dockerfile))).settings
    worker = compose["services"]["worker"]
    assert worker["read_only"] and "state:/state" in worker["volumes"]
    assert re.search(r"^VOLUME /state$", dockerfile, flags=re.M)
    assert Path("/state") in settings.state.dir.parents
    assert Path("/state") in Run(settings, "x").home.parents


def test_ci_runs_what_the_readme_tells_strangers_to_run() -> None:
    """Letter by letter, but for the demo's size."""
    script, readme = ROOT / ".ci" / "run", (ROOT / "README.md").read_text(encoding="utf-8")
    assert os.access(script, os.X_OK)
    lines = script.read_text(encoding="utf-8").splitlines()
    [commands] = re.findall(r"^## Two commands.*?```console\n(.*?)```", readme, flags=re.S | re.M)
    assert commands.splitlines() == ["make demo", "make test"]
    assert {"make demo SMALL=1", "make test", "make check"} <= set(lines)


@pytest.mark.parametrize("target", ["quality", "sentences", "peers"])
def test_make_asks_for_the_data_before_it_sets_up_anything(target: str, tmp_path: Path) -> None:
    project = tmp_path / "project"  # without pyproject.toml make can set up nothing here
    project.mkdir()
    shutil.copy(ROOT / "Makefile", project)

    def said(*words: str) -> str:
        result = subprocess.run(["make", target, *words], cwd=project, capture_output=True, text=True)
        assert result.returncode == 2 and not result.stdout
        return result.stderr

    advice = f"name the directory with the data sets: make {target} DATA=DIRECTORY"
    assert advice in said() and advice in said("DATA=")
    assert "pyproject.toml" in said("DATA=.")
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert "pyproject.toml" in said()


def test_tests_do_not_depend_on_how_they_are_started(tmp_path: Path) -> None:
    """Those that start `make` do so inside `make test`, too."""
    make = {"MAKEFLAGS": "w -- DATA=nowhere", "MAKELEVEL": "1", "DATA": "nowhere"}
    others = {"HOME": str(tmp_path / "none"), "LC_ALL": "C", "COLUMNS": "20", "SAMEAS_KAFKA__GROUP_ID": ""}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    started = subprocess.run(
        [*command, "-k", "make_asks or surroundings"],
        cwd=ROOT,
        env=os.environ | make | others,
        capture_output=True,
        text=True,
    )
    assert started.returncode == 0, started.stdout
    assert "4 passed" in started.stdout


def test_the_surroundings_of_tests_are_always_the_same() -> None:
    assert Path.home().is_dir() and time.timezone == -14 * 3600
    assert not [name for name in os.environ if name.startswith(("DATA", "MAKE", "LC_", "COLUMNS", "SAMEAS_"))]


def test_the_changelog_knows_the_version(project: dict[str, Any]) -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## Unreleased" in text or f"## {project['project']['version']}" in text


def test_commands_in_the_readme_exist() -> None:
    from stream.cli import main

    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("no README.md yet")
    blocks = re.findall(r"```.*?\n(.*?)```", readme.read_text(encoding="utf-8"), flags=re.S)
    named = {
        name for block in blocks for name in re.findall(r"^\$? ?sameas ([a-z][a-z-]+)", block, flags=re.M)
    }
    assert named <= set(main.commands)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    made = {name for block in blocks for name in re.findall(r"^\$? ?make ([a-z]+)", block, flags=re.M)}
    assert made <= targets
