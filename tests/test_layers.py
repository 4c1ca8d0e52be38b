"""What a fresh process has loaded: importing fireworks, or its core, costs no library that only some programs need."""

import json
import subprocess
import sys

import pytest

# pandas imports pyarrow and torch imports tqdm wherever they are installed, so these two cannot be told apart here;
# the import-linter contracts in pyproject.toml look at our own import statements.
HEAVY = [
    "Bio",
    "ignite",
    "matplotlib",
    "plotly",
    "polars",
    "safetensors",
    "sklearn",
    "sqlalchemy",
    "tensordict",
    "visdom",
]


def modules_after(statement: str) -> set[str]:
    """Names of all modules that a fresh Python has loaded after the statement."""
    script = f"import json, sys\n{statement}\nprint(json.dumps(list(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(finished.stdout))


@pytest.mark.parametrize(
    "statement",
    ["import fireworks", "import fireworks.core", "import fireworks.toolbox", "import fireworks.utils"],
)
def test_importing_loads_no_heavy_library(statement):
    assert modules_after(statement).intersection(HEAVY) == set()


def test_importing_fireworks_loads_core_and_toolbox_but_no_extension():
    loaded = modules_after("import fireworks")

    assert {"fireworks.core.message", "fireworks.toolbox.pipes", "fireworks.toolbox.junctions"} <= loaded
    assert not any(name.startswith("fireworks.extensions") for name in loaded)


def test_an_extension_is_loaded_when_its_name_is_first_used():
    loaded = modules_after("import fireworks; fireworks.IgniteJunction")

    assert {"fireworks.extensions.training", "ignite"} <= loaded


def test_an_extension_can_be_imported_by_path():
    assert "fireworks.extensions.training" in modules_after("from fireworks.extensions import training")
