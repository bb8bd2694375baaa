"""Learning curves: the losses and the accuracy of each epoch, with the epoch whose weights were kept."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model_export.checkpoint import Run
from model_export.pages import Block, Chart, Column, Details, Section, Table, name_lines
from model_export.pages.style import BLUE, MUTED, VERMILION

HEIGHT = 300
LOGARITHMIC_FROM = 30  # times from the smallest loss to the largest: beyond, a linear axis shows the first epochs only


def learning_section(run: Run) -> Section:
    """Two charts side by side, one sentence, and the numbers."""
    return Section("Learning curves", (_sentence(run), _chart(run), _numbers(run)))


def _sentence(run: Run) -> Block:
    best = run.best
    return (
        f"{len(run.history)} of at most {run.options.epochs} epochs; epoch {best.epoch} was kept: valid accuracy "
        f"{best.valid_accuracy:.4f}, valid loss {best.valid_loss:.4f}, train loss {best.train_loss:.4f}."
    )


def _chart(run: Run) -> Chart:
    first, last, best = run.history[0], run.history[-1], run.best
    return Chart(
        caption="Mean cross-entropy (left) and the share of valid instances in the right class (right). The train loss "
        "is taken while learning, with batch statistics and Dropout, so it may lie above the valid loss.",
        description=f"Learning curves over {len(run.history)} epochs. Valid loss from {first.valid_loss:.4f} to "
        f"{last.valid_loss:.4f}, valid accuracy from {first.valid_accuracy:.4f} to {last.valid_accuracy:.4f}, best "
        f"{best.valid_accuracy:.4f} in epoch {best.epoch}.",
        paint=lambda figure: _paint(figure, run),
        height=HEIGHT,
    )


def _paint(figure: Figure, run: Run) -> None:
    losses, accuracy = figure.subplots(1, 2)
    epochs = np.array([epoch.epoch for epoch in run.history])
    marker = "o" if len(epochs) < 12 else None
    train, valid = (np.array([getattr(epoch, name) for epoch in run.history]) for name in ("train_loss", "valid_loss"))
    losses.plot(epochs, train, color=BLUE, marker=marker, label="train")
    losses.plot(epochs, valid, color=VERMILION, marker=marker, label="valid")
    accuracy.plot(epochs, [epoch.valid_accuracy for epoch in run.history], color=VERMILION, marker=marker)
    losses.set(xlabel="epoch", ylabel="cross-entropy (nats)")
    accuracy.set(xlabel="epoch", ylabel="valid accuracy")
    _scale_losses(losses, np.concatenate([train, valid]))
    for axes in (losses, accuracy):
        _mark_best(axes, run)
    accuracy.plot(run.best.epoch, run.best.valid_accuracy, "o", color=VERMILION, markersize=8, markeredgecolor="white")
    name_lines(losses, height=HEIGHT - 70)


def _scale_losses(axes: Axes, losses: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    finite = losses[np.isfinite(losses)]
    if len(finite) and finite.min() > 0 and finite.max() > LOGARITHMIC_FROM * finite.min():
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def _mark_best(axes: Axes, run: Run) -> None:
    """A thin line at the kept epoch, named above the frame where no data is."""
    best = run.best.epoch
    axes.axvline(best, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=1, label="_best")
    axes.annotate(
        f"best: epoch {best}", (best, 1), (0, 5), ("data", "axes fraction"), "offset points", ha="center", color=MUTED
    )
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    if len(run.history) == 1:
        axes.set_xlim(0.5, 1.5)


def _numbers(run: Run) -> Details:
    columns = (
        Column("epoch", "d"),
        Column("train loss", ".4f"),
        Column("valid loss", ".4f"),
        Column("valid accuracy", ".4f"),
    )
    rows = tuple((e.epoch, e.train_loss, e.valid_loss, e.valid_accuracy) for e in run.history)
    return Details("The numbers of each epoch", (Table(columns=columns, rows=rows),))
