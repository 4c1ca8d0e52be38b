"""Install metadata of fireworks-ml; the build system and the tools are configured in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """The version written in `fireworks/__init__.py`, read as text because torch may be missing here."""
    text = (ROOT / "fireworks" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    if match is None:
        raise RuntimeError('expected a line __version__ = "X.Y.Z" in fireworks/__init__.py, found none')
    return match.group(1)


# The lower bounds are the releases that the tests run with.
BASE = [
    "biopython>=1.88",
    "numpy>=2.4",
    "pandas>=3.1",
    "pyarrow>=26.0",
    "pytorch-ignite>=0.5.5",
    "safetensors>=0.8",
    "sqlalchemy>=2.1",
    "torch>=2.13",
    "tqdm>=4.70",
]

# What users may add. `all` is every one of these but visdom, which a current setuptools cannot build (see README.md).
FEATURES = {
    "adbc": ["adbc-driver-postgresql>=1.13", "adbc-driver-sqlite>=1.13"],
    "dask": ["distributed>=2026.8"],
    "examples": ["matplotlib>=3.11", "scikit-learn>=1.9"],
    "excel": ["openpyxl>=3.1"],
    "html": ["lxml>=6.1"],
    "mysql": ["pymysql>=1.2"],
    "optuna": ["cmaes>=0.13", "optuna>=5.0", "scipy>=1.17"],
    "plots": ["kaleido>=1.5", "matplotlib>=3.11", "plotly>=7.1"],
    "polars": ["polars>=2.1"],
    "postgresql": ["psycopg[binary]>=3.3"],
    "tensorboard": ["tensorboard>=2.21"],
    "tensordict": ["tensordict>=0.15"],
    "visdom": ["visdom>=0.2.4"],
}
EVERYTHING = f"fireworks-ml[{','.join(sorted(FEATURES.keys() - {'visdom'}))}]"

# What working on fireworks itself needs.
DEVELOPMENT = {
    "docs": ["myst-parser>=5.2", "sphinx>=9.0"],
    "test": [
        EVERYTHING,
        "captum>=0.9",
        "hypothesis>=6.170",
        "import-linter>=2.16",
        "ipykernel>=7.4",
        "mypy>=2.4",
        "nbclient>=0.11",
        "nbformat>=5.11",
        "pandas-stubs>=3.1",
        "pytest>=9.2",
        "ruff>=0.17",
        "setuptools>=77",
        "types-pymysql>=1.1",
        "types-tqdm>=4.70",
    ],
}

setup(
    name="fireworks-ml",
    version=read_version(),
    description="Data pipelines for PyTorch: tables that hold tensors, stages that stack, exact resume",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the fireworks authors",
    license_expression="MIT",
    license_files=["LICENSE"],
    keywords=["pytorch", "machine learning", "data pipeline", "pandas"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    package_dir={"": "."},  # an editable install is then one plain line that type checkers can follow, and no warning
    packages=find_packages(include=["fireworks", "fireworks.*"]),
    package_data={"fireworks": ["py.typed"]},
    entry_points={
        "console_scripts": [
            "hyperspace = fireworks.extensions.hyperspace.cli:main",
            "hyperspace-worker = fireworks.extensions.hyperspace.worker:main",
        ]
    },
    python_requires=">=3.11",
    install_requires=BASE,
    extras_require={**FEATURES, "all": [EVERYTHING], **DEVELOPMENT},
)
