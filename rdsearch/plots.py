"""Plots of an evaluation, as PNG or SVG; matplotlib is loaded when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdsearch.errors import DependencyError, InputError
from rdsearch.labels import LEVELS

if TYPE_CHECKING:
    from rdsearch.evaluation import FunnelRecall
    from rdsearch.homologs import Measured
    from rdsearch.reliability import Reliability

__all__ = ["check", "false_positives_by_evalue", "recall_against_time", "sensitivity_by_tier"]

_ENDINGS = (".png", ".svg")
# Okabe and Ito's palette: told apart with any colour vision. Marker shapes say the same again.
_STYLES = {
    "tier": {"color": "#0072B2", "marker": "o", "label": "tier alone, exhaustive"},
    "funnel": {"color": "#D55E00", "marker": "^", "label": "index's funnel up to the tier"},
    "given": {"color": "#009E73", "marker": "s", "label": "funnel given"},
}
# Colour and marker of each tier.
_TIER_STYLES = (
    ("#0072B2", "o"),
    ("#D55E00", "^"),
    ("#009E73", "s"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
)
_FLOOR = {"color": "#555555", "linestyle": "--", "label": "amino-acid composition"}
_LOOK = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "svg.fonttype": "none",
    # The same figures give the same SVG file.
    "svg.hashsalt": "rdsearch",
}


def check(path: Path) -> None:
    """Find out before the work whether a plot can be drawn.

    Raises
    ------
    InputError
        The name does not end in ``.png`` or ``.svg``.
    DependencyError
        matplotlib is not installed.
    """
    if path.suffix.lower() not in _ENDINGS:
        raise InputError(
            f"{path}: a plot is a file that ends in {' or '.join(_ENDINGS)}; found "
            f"{path.suffix or 'no ending'}",
            path=path,
        )
    _matplotlib()


def _matplotlib() -> Any:
    try:
        import matplotlib
        import matplotlib.figure
        import matplotlib.ticker
    except ImportError as error:
        raise DependencyError(
            "a plot needs matplotlib, which is not installed: pip install 'rdsearch[plots]', or "
            "leave --plot out"
        ) from error
    return matplotlib


def sensitivity_by_tier(measured: Sequence[Measured], path: Path) -> None:
    """Sensitivity of each tier at family, superfamily and fold level.

    One panel a level, because the levels differ by more than an axis can show.

    Parameters
    ----------
    measured : sequence of Measured
        From `rdsearch.homologs`; the composition is a dashed line.
    path : Path
        ``.png`` or ``.svg``.
    """
    matplotlib = _matplotlib()
    tiers = [result.tier for result in measured if result.kind == "tier"]
    with matplotlib.rc_context(_LOOK):
        figure = matplotlib.figure.Figure(figsize=(9, 3.4), layout="constrained")
        for axes, level in zip(figure.subplots(1, len(LEVELS)), LEVELS, strict=True):
            for kind, style in _STYLES.items():
                points = [
                    (tiers.index(result.tier), getattr(result.scores, level).sensitivity)
                    for result in measured
                    if result.kind == kind
                ]
                if points:
                    x, y = zip(*sorted(points, key=lambda point: point[0]), strict=True)
                    line = "-" if kind == "tier" else "none"
                    hollow = {} if kind == "tier" else {"markerfacecolor": "none"}
                    axes.plot(x, [_number(v) for v in y], linestyle=line, **hollow, **style)
            for result in measured:
                if result.kind == "composition":
                    height = getattr(result.scores, level).sensitivity
                    if height is not None:
                        axes.axhline(height, linewidth=1.2, **_FLOOR)
            axes.set_title(level)
            axes.set_xticks(range(len(tiers)), tiers)
            axes.set_xmargin(0.12)
            axes.set_ymargin(0.1)
            axes.set_ylim(bottom=0)
            axes.set_xlabel("last tier")
        figure.axes[0].set_ylabel("share of true positives\nbefore the first false positive")
        _legend(figure)
        _save(figure, path)


def recall_against_time(measured: Sequence[FunnelRecall], path: Path, k: int) -> None:
    """Recall of each funnel against the time of a query, single and in batches.

    Parameters
    ----------
    measured : sequence of FunnelRecall
        From `rdsearch.evaluation.measure`.
    path : Path
        ``.png`` or ``.svg``.
    k : int
        The k of recall@k, for the axis.
    """
    matplotlib = _matplotlib()
    with matplotlib.rc_context(_LOOK):
        figure = matplotlib.figure.Figure(figsize=(9, 3.8), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (title, field) in zip(
            panels,
            (("queries one by one", "single_seconds"), ("queries in batches", "batch_seconds")),
            strict=True,
        ):
            for kind, style in _STYLES.items():
                points = [result for result in measured if result.kind == kind]
                x = [getattr(result, field) * 1e3 for result in points]
                y = [result.recall for result in points]
                if points:
                    axes.plot(x, y, linestyle="none", **style)
                for result, left, bottom in zip(points, x, y, strict=True):
                    # Each kind on a side of its own: often two end at one tier.
                    side = {
                        "tier": {"xytext": (6, 0), "ha": "left", "va": "center"},
                        "funnel": {"xytext": (0, 6), "ha": "center", "va": "bottom"},
                        "given": {"xytext": (0, -7), "ha": "center", "va": "top"},
                    }[kind]
                    axes.annotate(
                        _short(result),
                        (left, bottom),
                        textcoords="offset points",
                        fontsize=8,
                        color=style["color"],
                        **side,
                    )
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
            axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
            axes.set_xmargin(0.15)
            axes.set_title(title)
            axes.set_xlabel("milliseconds a query")
            axes.grid(axis="y", linewidth=0.4, color="#dddddd")
            axes.set_axisbelow(True)
        lowest = min(result.recall for result in measured)
        panels[0].set_ylim(max(-0.06, lowest - 0.12), 1.08)
        panels[0].set_ylabel(f"recall@{k} of the exhaustive last tier")
        _legend(figure)
        _save(figure, path)


def false_positives_by_evalue(measured: Sequence[Reliability], path: Path) -> None:
    """Observed false positives a query against the e-value, one panel for each kind of queries.

    Parameters
    ----------
    measured : sequence of Reliability
        From `rdsearch.reliability.measure`.
    path : Path
        ``.png`` or ``.svg``.
    """
    matplotlib = _matplotlib()
    kinds = list(dict.fromkeys(result.kind for result in measured))
    tiers = list(dict.fromkeys(result.tier for result in measured))
    with matplotlib.rc_context(_LOOK):
        width = 3.1 * len(kinds) + 0.8
        figure = matplotlib.figure.Figure(figsize=(width, 3.9), layout="constrained")
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=True):
            ends = [measured[0].curve[0][0], measured[0].curve[-1][0]]
            axes.plot(ends, ends, color="#555555", linewidth=1, linestyle="--", label="expected")
            axes.fill_between(
                ends,
                [end / 2 for end in ends],
                [end * 2 for end in ends],
                color="#eeeeee",
                label="within a factor of 2",
            )
            for result in measured:
                if result.kind == kind:
                    x, y = zip(*result.curve, strict=True)
                    place = tiers.index(result.tier)
                    color, marker = _TIER_STYLES[place % len(_TIER_STYLES)]
                    axes.plot(
                        x,
                        [value or float("nan") for value in y],
                        color=color,
                        marker=marker,
                        markevery=6,
                        markersize=4,
                        linewidth=1.2,
                        label=result.tier,
                    )
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_aspect("equal")
            axes.set_title(f"{kind} queries")
            axes.set_xlabel("e-value")
        panels[0].set_ylabel("false positives a query, observed")
        _legend(figure)
        _save(figure, path)


def _short(result: FunnelRecall) -> str:
    """The last tier; of a funnel that was given its shortlists, which tell it from others."""
    shortlists = result.name.split(" (")[0].split(" > ")[:-1]
    return ", ".join(shortlists) if result.kind == "given" and shortlists else result.tier


def _number(value: float | None) -> float:
    """A gap in the line where there is nothing to average over."""
    return float("nan") if value is None else value


def _legend(figure: Any) -> None:
    """One legend for all panels, each entry once."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(
        entries.values(), entries, loc="outside lower center", ncols=len(entries), frameon=False
    )


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A date in the file would make every run's SVG a different one.
    dated = {"metadata": {"Date": None}} if path.suffix.lower() == ".svg" else {}
    figure.savefig(path, dpi=160, **dated)
