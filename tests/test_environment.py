"""The ways of setting up agree with one another."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]


def pinned() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    return {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}


def test_every_direct_dependency_is_pinned():
    extras = PROJECT["optional-dependencies"]
    names = [*PROJECT["dependencies"], *(name for extra in extras.values() for name in extra)]
    assert [name for name in names if name.lower().replace("_", "-") not in pinned()] == []


def test_every_folder_of_the_module_is_installed():
    folders = {file.parent.relative_to(ROOT) for file in (ROOT / "dae4rec_core").rglob("*.py")}
    assert {".".join(folder.parts) for folder in folders} == set(SETTINGS["tool"]["setuptools"]["packages"])
    assert [folder for folder in folders if not (ROOT / folder / "__init__.py").is_file()] == []


def test_environment_yml_installs_what_pyproject_names():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python"))
    assert python.split("=")[1] == re.search(r"[\d.]+", PROJECT["requires-python"]).group()
    lines = next(d for d in environment["dependencies"] if isinstance(d, dict))["pip"]
    assert "-c constraints.txt" in lines
    extras = re.search(r"\[(.*)\]", next(line for line in lines if line.startswith("-e"))).group(1)
    assert set(extras.split(",")) == set(PROJECT["optional-dependencies"])


def test_continuous_integration_runs_the_command_of_the_readme():
    commands = (ROOT / ".ci" / "run").read_text().splitlines()
    assert commands.index("make check") < commands.index("make test")
    readme = (ROOT / "README.md").read_text()
    assert "make lab" in readme and "make test" in readme
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    assert {"lab", "check", "test", "run", "artifacts", "notebooks", "town"} <= set(targets)


def test_the_readme_points_at_files_that_exist():
    for target in re.findall(r"\]\(([\w./-]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
