"""Figures, kept as data: Plotly's own JSON, which can be restyled later; of matplotlib what was drawn, and an SVG."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fireworks.core.state import read_state, write_state
from fireworks.utils.exceptions import MissingExtraError

__all__ = ["is_matplotlib", "is_plotly", "read_matplotlib", "read_plotly", "write_matplotlib", "write_plotly"]

_PLOTLY = "figure.plotly.json"
_DATA = "figure.data.json"


def _is_instance(obj: Any, module: str, name: str) -> bool:
    """Of a class of a library that nobody may have imported."""
    cls = getattr(sys.modules.get(module), name, None)
    return cls is not None and isinstance(obj, cls)


def is_plotly(obj: Any) -> bool:
    """Whether it is a figure of Plotly."""
    return _is_instance(obj, "plotly.basedatatypes", "BaseFigure")


def write_plotly(figure: Any, folder: Path) -> None:
    """The figure as JSON, and a picture of it, which needs kaleido and a browser: without them it is only missing."""
    (folder / _PLOTLY).write_text(figure.to_json(), encoding="utf-8")
    try:
        picture = figure.to_image(format="png", scale=2)
    except OSError as error:
        if error.errno is not None:
            raise
        _warn_without_picture(error)
    except Exception as error:  # whatever a browser, its installation or its start can come up with
        _warn_without_picture(error)
    else:
        (folder / "figure.png").write_bytes(picture)


def _warn_without_picture(error: Exception) -> None:
    reason = " ".join(str(error).split()) or type(error).__name__
    warnings.warn(
        "the figure is saved as data, but without a PNG, which needs kaleido (install fireworks-ml[plots]) and Chrome "
        f"or Chromium: {reason:.300}",
        stacklevel=5,
    )


def read_plotly(folder: Path) -> Any:
    """The figure, ready to be restyled."""
    try:
        from plotly import io
    except ImportError as error:
        raise MissingExtraError.of("Loading a Plotly figure", "plotly", "plots") from error
    return io.from_json((folder / _PLOTLY).read_text(encoding="utf-8"))


def is_matplotlib(obj: Any) -> bool:
    """Whether it is a figure of matplotlib."""
    return _is_instance(obj, "matplotlib.figure", "Figure")


def write_matplotlib(figure: Any, folder: Path) -> None:
    """Two pictures, one of them of lines and text (SVG), and the numbers that were drawn."""
    write_state({"axes": [_axes_data(axes) for axes in figure.axes]}, folder / _DATA)
    figure.savefig(folder / "figure.svg")
    figure.savefig(folder / "figure.png", dpi=150)


def read_matplotlib(folder: Path) -> Any:
    """The numbers that were drawn; the figure itself only a pickle could give back."""
    return read_state(folder / _DATA)


def _axes_data(axes: Any) -> dict[str, Any]:
    return {
        "title": axes.get_title(),
        "xlabel": axes.get_xlabel(),
        "ylabel": axes.get_ylabel(),
        "xscale": axes.get_xscale(),
        "yscale": axes.get_yscale(),
        "xlim": [float(bound) for bound in axes.get_xlim()],
        "ylim": [float(bound) for bound in axes.get_ylim()],
        "lines": [{"label": str(line.get_label()), **_points(line.get_xydata())} for line in axes.lines],
        "points": [{"label": str(each.get_label()), **_points(each.get_offsets())} for each in axes.collections],
        "bars": [_bar(patch) for patch in axes.patches if hasattr(patch, "get_height")],
        "images": [_filled(image.get_array()) for image in axes.images],
        "texts": [{"text": text.get_text(), "at": [float(at) for at in text.get_position()]} for text in axes.texts],
    }


def _points(pairs: Any) -> dict[str, Any]:
    array = _filled(pairs).reshape(-1, 2)
    return {"x": array[:, 0], "y": array[:, 1]}


def _filled(values: Any) -> np.ndarray:
    """As floats, masked values as NaN; images of integers stay integers."""
    array = np.ma.asarray(values)
    if array.dtype.kind in "biu" and not np.ma.is_masked(array):
        return np.asarray(array)
    return np.ma.filled(array.astype(np.float64), np.nan)


def _bar(patch: Any) -> dict[str, Any]:
    x, y = patch.get_xy() if not hasattr(patch, "get_x") else (patch.get_x(), patch.get_y())
    return {"x": float(x), "y": float(y), "width": float(patch.get_width()), "height": float(patch.get_height())}
