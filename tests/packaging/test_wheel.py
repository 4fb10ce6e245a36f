"""What a user gets who installs the built wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("src", "adapters")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy so that a build leaves nothing in the tree."""
    copy = tmp_path_factory.mktemp("wheel") / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in (*SOURCES, "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import hatchling.build as b; print(b.build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(copy / "dist" / done.stdout.split()[-1])


def metadata(wheel: zipfile.ZipFile, name: str) -> str:
    (found,) = [entry for entry in wheel.namelist() if entry.endswith(f".dist-info/{name}")]
    return wheel.read(found).decode()


def test_the_wheel_holds_every_module_of_both_source_roots(wheel: zipfile.ZipFile) -> None:
    modules = {str(path.relative_to(ROOT / source)) for source in SOURCES for path in (ROOT / source).rglob("*.py")}

    assert modules <= set(wheel.namelist())


def test_the_wheel_says_of_each_package_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    packages = {path.name for source in SOURCES for path in (ROOT / source).iterdir() if (path / "__init__.py").exists()}

    assert {f"{package}/py.typed" for package in packages} <= set(wheel.namelist())


def test_the_wheel_holds_nothing_but_the_packages(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    packages = {path.name for source in SOURCES for path in (ROOT / source).iterdir() if path.is_dir() and path.name != "__pycache__"}

    assert {top for top in tops if not top.endswith(".dist-info")} == packages
    assert [name for name in wheel.namelist() if name.endswith(".md")] == []


def test_a_source_root_of_adapters_holds_packages_of_ours_and_a_page() -> None:
    names = {path.name for path in (ROOT / "adapters").iterdir()} - {"__pycache__", "README.md"}

    assert all(name.startswith("agentkit_") for name in names)


def test_the_wheel_carries_its_licence_and_its_name(wheel: zipfile.ZipFile) -> None:
    fields = Parser().parsestr(metadata(wheel, "METADATA"))

    assert fields["Name"] == "agentkit-async"
    assert fields["License-Expression"] == "Apache-2.0"
    assert fields["Requires-Python"] == ">=3.11"
    assert "Apache License" in metadata(wheel, "licenses/LICENSE")


def test_what_the_core_needs_is_six_distributions(wheel: zipfile.ZipFile) -> None:
    fields = Parser().parsestr(metadata(wheel, "METADATA"))
    needed = [line for line in fields.get_all("Requires-Dist", []) if "extra ==" not in line]

    names = {line.split("<")[0].split(">")[0] for line in needed}
    assert names == {"anyio", "opentelemetry-api", "pydantic", "sqlalchemy", "tenacity", "typing-extensions"}
