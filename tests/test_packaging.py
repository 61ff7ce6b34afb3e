"""The built package is complete: every config, the digits and the types; and the command runs in any folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

from lrkit.config.conf_folder import SHARED

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy of the tree with the installed packages."""
    copy, built = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("lrkit", "conf"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    code = f"import setuptools.build_meta as backend; print(backend.build_wheel({str(built)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True, text=True)
    (path,) = built.iterdir()
    return path


def files(folder: str, *endings: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.suffix in endings}


def test_the_wheel_holds_every_config_and_nothing_that_is_not_ours(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"lrkit/{name}" for name in files("conf", ".yaml", ".py")}
    assert len(configs) > 40
    expected = (
        configs
        | files("lrkit", ".py", ".gz", ".txt", ".typed", ".html", ".bash", ".zsh", ".fish")
        | {"lrkit/py.typed", "lrkit/data/digits.csv.gz"}
    )
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("digits.LICENSE.txt") and ".dist-info/" in name for name in names)


def test_the_wheel_brings_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "lrkit = lrkit.cli.main:entry" in archive.read(entry).decode()


def test_malicious_uploads_are_excluded() -> None:
    (lightning,) = [d for d in PROJECT["project"]["dependencies"] if d.startswith("pytorch-lightning")]
    assert "!=2.6.2" in lightning and "!=2.6.3" in lightning


def test_every_dependency_has_a_lower_bound_and_an_extra_that_the_code_names_exists() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    for requirement in [*PROJECT["project"]["dependencies"], *(each for extra in extras.values() for each in extra)]:
        assert ">=" in requirement or requirement.startswith("lrkit["), requirement
    named = {
        extra for path in (ROOT / "lrkit").rglob("*.py") for extra in re.findall(r"lrkit\[(\w+)\]", path.read_text())
    }
    assert named and named <= set(extras)


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    """License by SPDX and no classifier of it (PEP 639), the Python versions it accepts, the project's addresses."""
    with zipfile.ZipFile(wheel) as archive:
        (file,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_string(archive.read(file).decode())
    classifiers = metadata.get_all("Classifier", [])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert not [each for each in classifiers if each.startswith("License ::")]
    named = {each.rpartition(" :: ")[2] for each in classifiers if re.search(r":: 3\.\d+$", each)}
    lower, upper = (int(minor) for minor in re.findall(r"3\.(\d+)", PROJECT["project"]["requires-python"]))
    assert named == {f"3.{minor}" for minor in range(lower, upper)}
    assert "Typing :: Typed" in classifiers
    urls = dict(each.split(", ") for each in metadata.get_all("Project-URL", []))
    assert urls == PROJECT["project"]["urls"] and set(urls) == {"Homepage", "Repository", "Documentation", "Changelog"}
    for url in urls.values():
        assert url.startswith(urls["Repository"])
        assert (ROOT / re.sub(r"^/?((blob|tree)/main/)?", "", url.removeprefix(urls["Repository"]))).exists(), url
    assert metadata["Description-Content-Type"] == "text/markdown"


@pytest.mark.slow
def test_the_wheel_works_from_an_unrelated_folder(wheel: Path, tmp_path: Path) -> None:
    """Unpacked, with the checkout out of sight: every option of every group is found, shown, and trained with."""
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}

    def python(*argv: str) -> str:
        done = subprocess.run([sys.executable, *argv], cwd=here, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert Path(python("-c", "import lrkit; print(lrkit.__file__)").strip()).is_relative_to(site)
    assert (
        Path(python("-c", "import lrkit.config.compose; print(lrkit.config.compose.CONF_DIR)").strip())
        == site / "lrkit" / "conf"
    )
    assert python("-m", "lrkit", "show", "schedule=cosine").startswith("lr 0.1")
    assert "lrkit.schedules.Step" in python("-m", "lrkit", "train", "--cfg", "job", "schedule=step")
    options = sorted((path.parent.name, path.stem) for path in (ROOT / "conf").glob("*/*.yaml"))
    # A launcher needs a package: test_launcher_plugins.py. A file of SHARED is a part of other options.
    options = [each for each in options if each[0] not in ("launcher", SHARED)]
    added = {"experiment", "sweep"}
    script = f"""
from lrkit.config.compose import compose
for group, option in {options!r}:
    own = [f"{{group}}._target_=my.Own"] if option == "custom" else []
    own += ["data.train._target_=my.Own"] if option == "datasets" else []
    compose([("+" if group in {added!r} else "") + f"{{group}}={{option}}", *own])
    print(group, option)
"""
    assert python("-c", script).split("\n")[:-1] == [f"{group} {option}" for group, option in options]
    page = python("-m", "lrkit", "train", "trainer.max_epochs=1", "trainer.limit_train_batches=2")
    assert "val/loss" in page
    (run,) = (here / "outputs" / "runs").iterdir()
    assert (run / "metrics.json").is_file()
    pkg = "from hydra import compose, initialize_config_module as at\nwith at('lrkit.conf', version_base='1.3'): "
    assert "Rex" in python("-c", pkg + "print(compose('train', overrides=['schedule=rex']).schedule)")
