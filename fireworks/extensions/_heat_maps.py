"""Pictures of attributions: one heat map per row and output, beside the input."""

from __future__ import annotations

import io
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fireworks.core.message import Message
from fireworks.utils.exceptions import MissingExtraError
from fireworks.utils.utils import RowIndex

__all__ = ["draw_attributions"]

_MOST_ROWS = 4
_MOST_OUTPUTS = 6


def draw_attributions(
    message: Message,
    input_column: str,
    attribution_column: str = "attributions",
    rows: RowIndex | None = None,
    outputs: Sequence[int] | None = None,
    path: str | PathLike[str] | None = None,
) -> Any:
    """Draw the attributions of a few rows as heat maps: red adds to the output, blue takes from it.

    One line per row: its input, then one map per output, all on the same scale. Rows of one dimension are drawn as
    strips; of more than two, such as images with channels, the first ones are added up.

    Args:
        message: What an Explainer gave.
        input_column: The column that was attributed to.
        attribution_column: The column of attributions.
        rows: Which rows; by default the first 4.
        outputs: Which outputs, by their number in the flattened output; by default the 6 with the largest attributions.
        path: Where to write the picture too; the suffix chooses the format (.png, .pdf, .svg).

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ColumnError: There is no such column.
        ValueError: The shapes of the two columns do not belong together, or there is no row to draw.

    Example:
        >>> rows = Message({"x": torch.ones(2, 3), "attributions": torch.ones(2, 5, 3)})
        >>> len(draw_attributions(rows, "x", outputs=[0, 4]).axes)
        8
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError.of("draw_attributions", "matplotlib", "plots") from error

    numbers = range(len(message))[:_MOST_ROWS] if rows is None else rows
    shown = Message({"number": range(len(message))}).merge(message[[input_column, attribution_column]])[numbers]
    columns = shown.tensors([input_column, attribution_column])
    inputs, attributions = columns[input_column].detach().cpu(), columns[attribution_column].detach().cpu()
    output_shape = _output_shape(inputs, attributions, input_column, attribution_column)
    maps = attributions.reshape(len(inputs), output_shape.numel(), *inputs.shape[1:]).float()
    chosen = _largest(maps) if outputs is None else [range(maps.shape[1])[output] for output in outputs]
    if not len(inputs) or not chosen:
        raise ValueError(f"no attributions to draw: {len(inputs)} rows and {len(chosen)} outputs were chosen")

    height = 1.0 if inputs.ndim < 3 else 1.9
    figure = Figure(figsize=(2.2 * (len(chosen) + 1) + 0.8, height * len(inputs) + 0.3), layout="constrained")
    panels = figure.subplots(len(inputs), len(chosen) + 1, squeeze=False)
    for line, number in enumerate(shown["number"]):
        _draw_picture(panels[line, 0], _as_picture(inputs[line]), f"row {number}: {input_column}", cmap="gray")
        flat = [_flat_map(maps[line, output]) for output in chosen]
        largest = max(picture.abs().max().item() for picture in flat) or 1.0
        for panel, picture, output in zip(panels[line, 1:], flat, chosen, strict=True):
            title = _title(output, output_shape, attribution_column)
            image = _draw_picture(panel, picture, title, cmap="RdBu_r", vmin=-largest, vmax=largest)
        figure.colorbar(image, ax=panels[line, 1:].tolist()).ax.tick_params(labelsize="x-small")
    if path is not None:
        _save(figure, Path(path))
    return figure


def _output_shape(inputs: Tensor, attributions: Tensor, input_column: str, attribution_column: str) -> torch.Size:
    dimensions = attributions.ndim - inputs.ndim
    if dimensions < 0 or attributions.shape[dimensions + 1 :] != inputs.shape[1:]:
        raise ValueError(
            f"{attribution_column!r} of shape {tuple(attributions.shape)} is no attribution to {input_column!r} of "
            f"shape {tuple(inputs.shape)}: expected (N, *output, *input)"
        )
    return attributions.shape[1 : dimensions + 1]


def _largest(maps: Tensor) -> list[int]:
    """The numbers of the outputs with the largest attributions, in their order."""
    size = maps.abs().flatten(2).sum(2) if maps.ndim > 2 else maps.abs()
    return sorted(size.sum(0).topk(min(_MOST_OUTPUTS, maps.shape[1])).indices.tolist())


def _title(output: int, shape: torch.Size, attribution_column: str) -> str:
    if not shape:
        return attribution_column
    index = [int(number) for number in torch.unravel_index(torch.tensor(output), shape)]
    return f"output {', '.join(map(str, index))}"


def _flat_map(values: Tensor) -> Tensor:
    """Two dimensions: a strip, or the sum over all but the last two."""
    if values.ndim < 2:
        return values.reshape(1, -1)
    return values.flatten(0, -3).sum(0) if values.ndim > 2 else values


def _as_picture(values: Tensor) -> Tensor:
    """What `imshow` takes: two dimensions, or colours in the third."""
    values = values.float()
    if values.ndim != 3 or len(values) != 3:
        return _flat_map(values)
    low, high = values.min(), values.max()
    return ((values - low) / (high - low).clamp(min=1e-12)).movedim(0, -1)


def _draw_picture(panel: Any, picture: Tensor, title: str, **options: Any) -> Any:
    panel.set_title(title, fontsize="small")
    panel.tick_params(labelsize="x-small")
    panel.locator_params(axis="x", integer=True)
    # Strips fill their panel; pictures keep their proportions.
    image = panel.imshow(picture.numpy(), aspect="auto" if len(picture) == 1 else "equal", **options)
    panel.set_yticks([])
    return image


def _save(figure: Any, path: Path) -> None:
    """Draw first, write then: a failure leaves no half a picture."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix.removeprefix(".") or "png", dpi=120)
    path.write_bytes(drawn.getvalue())
