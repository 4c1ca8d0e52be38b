"""The public names: listed once, sorted, importable, and installed together with the types."""

import importlib
import pkgutil
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import fireworks

ROOT = Path(__file__).parents[1]
MODULES = ["fireworks", *(module.name for module in pkgutil.walk_packages(fireworks.__path__, "fireworks."))]


def in_fresh_process(script: str) -> str:
    """What a fresh Python prints."""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", MODULES)
def test_a_module_lists_its_names_once_and_sorted(name):
    names = getattr(importlib.import_module(name), "__all__", [])

    assert names == sorted(set(names))


@pytest.mark.parametrize("name", MODULES)
def test_every_listed_name_can_be_imported(name):
    module = importlib.import_module(name)

    assert [listed for listed in getattr(module, "__all__", []) if not hasattr(module, listed)] == []


def test_the_names_that_programs_import_from_fireworks_are_listed():
    names = "Message TensorMessage cat merge Pipe HookedPassThroughPipe recursive Junction Model PyTorch_Model Scaffold"
    names += " model_from_module message pipe junction model cache IgniteJunction training Experiment experiment"
    names += " database"

    assert set(names.split()) <= set(fireworks.__all__)


def test_every_lazy_name_is_listed():
    assert fireworks._LAZY.keys() <= set(fireworks.__all__)


def test_dir_shows_lazy_names_without_importing_them():
    printed = in_fresh_process(
        "import sys, fireworks\n"
        "print('IgniteJunction' in dir(fireworks), 'fireworks.extensions.training' in sys.modules)"
    )

    assert printed.split() == ["True", "False"]


def test_a_lazy_name_is_the_object_of_its_module():
    from fireworks.extensions import training

    assert fireworks.IgniteJunction is training.IgniteJunction
    assert fireworks.training is training


@pytest.mark.parametrize("name", ["cache", "junction", "message", "model", "pipe"])
def test_core_modules_are_modules_of_fireworks(name):
    assert getattr(fireworks, name) is importlib.import_module(f"fireworks.core.{name}")


def test_utils_gives_its_helpers_and_a_submodule_of_the_same_name():
    from fireworks.utils import utils

    assert fireworks.utils.utils is utils
    assert fireworks.utils.as_positions is utils.as_positions


def test_toolbox_gives_every_pipe_and_junction():
    from fireworks.toolbox import junctions, pipes

    names = {*pipes.__all__, *junctions.__all__}

    assert names <= set(fireworks.toolbox.__all__)
    assert all(
        getattr(fireworks.toolbox, name) in (getattr(pipes, name, None), getattr(junctions, name, None))
        for name in names
    )


def test_an_unknown_name_is_an_attribute_error_that_proposes_the_nearest():
    with pytest.raises(AttributeError, match="module 'fireworks' has no attribute 'Mesage'; did you mean 'Message'\\?"):
        fireworks.Mesage  # noqa: B018


def test_an_extension_whose_library_is_missing_says_what_to_install():
    printed = in_fresh_process(
        "import sys, fireworks\n"
        "sys.modules['ignite'] = None\n"
        "try:\n"
        "    fireworks.IgniteJunction\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )

    assert printed.startswith("fireworks.IgniteJunction needs ignite")
    assert "pip install --upgrade fireworks-ml" in printed


def test_the_installed_version_is_the_one_of_the_code():
    assert metadata.version("fireworks-ml") == fireworks.__version__


def test_the_extra_all_is_every_feature_but_visdom():
    requirements = metadata.requires("fireworks-ml") or []
    extras = set(metadata.metadata("fireworks-ml").get_all("Provides-Extra") or [])
    (everything,) = [line for line in requirements if line.endswith('extra == "all"')]

    listed = everything.partition("[")[2].partition("]")[0]

    assert set(listed.split(",")) == extras - {"all", "docs", "test", "visdom"}


def test_the_wheel_holds_every_module_and_the_type_marker(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(ROOT / "fireworks", source / "fireworks", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ["setup.py", "pyproject.toml", "README.md", "LICENSE"]:
        shutil.copy(ROOT / name, source)

    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, check=True)

    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("fireworks/")}
    assert packed == {str(path.relative_to(ROOT)) for path in (ROOT / "fireworks").rglob("*.py")} | {
        "fireworks/py.typed"
    }
