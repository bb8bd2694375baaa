"""How γ, β, μ and σ are distributed over the channels of each BatchNorm: histograms a layer, or bands by depth.

A handful of layers is shown as histograms at once. Where there are more, one chart shows their quantiles from the first
layer to the last, and the histograms wait behind each layer's name.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model_export.pages import Block, Chart, Column, Details, Section, Table
from model_export.report.bands import paint_band
from model_export.report.histograms import COLOURS, MEANINGS, height_of, paint_histograms
from model_export.report.layers import Layer
from model_export.wording import some

MOST_ROWS = 10  # layers whose histograms stand in one chart
MOST_HISTOGRAMS = 200  # layers that have histograms at all, each its own chart of 15 kB
READING = "How many channels have which value, from the least to the greatest; the grey line is 0."
QUANTILES = {"least": 0.0, "5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "greatest": 1.0}


def distributions_section(layers: tuple[Layer, ...], unreached: tuple[str, ...]) -> Section:
    """What the letters mean, the charts, and the quantiles of each layer."""
    blocks = _few(layers) if len(layers) <= MOST_ROWS else _many(layers)
    return Section("What the BatchNorms hold", (*_words(layers, unreached), *blocks))


def _words(layers: tuple[Layer, ...], unreached: tuple[str, ...]) -> tuple[Block, ...]:
    num_channels = sum(len(layer.mean) for layer in layers)
    counted = "One BatchNorm" if len(layers) == 1 else f"{len(layers)} BatchNorms"
    meaning = (
        f"{counted} with {num_channels:,} channels in all, in the order in which they are applied. Each maps a channel "
        "x to γ·(x − μ)/√(σ² + ε) + β: γ and β were learned, μ and σ are the exact statistics of the training set."
    )
    without = [repr(layer.name) for layer in layers if layer.weight is None and layer.bias is None]
    return (
        meaning,
        *((f"Without γ and β (affine=False): {some(without)}.",) if without else ()),
        *((f"Never applied, so left out: {some(map(repr, unreached))}.",) if unreached else ()),
    )


def _few(layers: tuple[Layer, ...]) -> tuple[Block, ...]:
    tables = tuple(_table(layer, caption=layer.name) for layer in layers)
    return _chart(layers, caption=READING), Details("Quantiles of each layer, as tables", tables)


def _many(layers: tuple[Layer, ...]) -> tuple[Block, ...]:
    drawn = len(layers) <= MOST_HISTOGRAMS
    return (
        _bands(layers),
        Details(
            f"Each of the {len(layers)} BatchNorms",
            (
                READING,
                *(
                    Details(
                        f"{number}. {layer.name} ({len(layer.mean):,} channels)",
                        (*((_chart((layer,), caption=""),) if drawn else ()), _table(layer, caption="")),
                    )
                    for number, layer in enumerate(layers, start=1)
                ),
            ),
        ),
    )


def _table(layer: Layer, *, caption: str) -> Table:
    columns = (Column("quantiles of"), *(Column(name, ".4g") for name in QUANTILES))
    rows = tuple(
        (MEANINGS[letter], *np.quantile(values, list(QUANTILES.values())).tolist())
        for letter, values in layer.quantities.items()
        if values is not None
    )
    return Table(columns=columns, rows=rows, caption=caption)


def _chart(layers: tuple[Layer, ...], *, caption: str) -> Chart:
    names = some(layer.name for layer in layers)
    return Chart(
        caption=caption,
        description=f"Histograms of γ, β, μ and σ over the channels of {names}. Their quantiles stand in a table.",
        paint=lambda figure: paint_histograms(figure, layers),
        height=height_of(len(layers)),
    )


def _bands(layers: tuple[Layer, ...]) -> Chart:
    return Chart(
        caption="Over the channels of each BatchNorm, from the first to the last: the median (line), the middle half "
        "(dark) and the middle nine tenths (light). σ has a logarithmic scale where its values allow it.",
        description=f"Quantiles of γ, β, μ and σ over the channels of {len(layers)} BatchNorms, by depth. The numbers "
        "of each layer stand in tables below.",
        paint=lambda figure: _paint_bands(figure, layers),
        height=600,
    )


def _paint_bands(figure: Figure, layers: tuple[Layer, ...]) -> None:
    panels = figure.subplots(len(COLOURS), 1, sharex=True)
    for axes, (letter, colour) in zip(panels, COLOURS.items(), strict=True):
        values = [layer.quantities[letter] for layer in layers]
        paint_band(axes, values, colour)
        axes.set_ylabel(MEANINGS[letter])
        if letter == "σ" and all(held is not None and held.min() > 0 for held in values):
            axes.set_yscale("log")
    panels[-1].set_xlabel("BatchNorm, in the order in which they are applied")
    panels[-1].xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    panels[-1].set_xlim(1, len(layers))
    figure.align_ylabels()
