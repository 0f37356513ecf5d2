"""Table, targets and plot of the search benchmark."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

# What the project promises at the recall wanted.
TIMES_EXACT, TIMES_PEER, SHARE_OF_MEMORY = 10, 2, 0.25

EXACT = "FAISS IndexFlatIP"
_OURS = "rdsearch "
# Memory of the process, and pages of mapped files, which the system takes back when it needs them.
_OWN, _ALL = ("anon_bytes",), ("anon_bytes", "file_bytes")
_HEADERS = (
    "side",
    "effort",
    "recall",
    "single q/s",
    "× exact",
    "batched q/s",
    "× exact",
    "build s",
    "open s",
    "disk MB",
    "memory MB",
    "+ mapped MB",
    "touched kB/query",
)


def per_second(side: dict[str, Any], mode: str) -> float:
    """Queries a second: the median of the rounds."""
    return 1 / statistics.median(run["seconds"] for run in side[mode])


def ratio(side: dict[str, Any], other: dict[str, Any], mode: str) -> float:
    """How many times the queries a second of `other`: the median of the rounds."""
    pairs = zip(other[mode], side[mode], strict=True)
    return statistics.median(theirs["seconds"] / own["seconds"] for theirs, own in pairs)


def memory(side: dict[str, Any], *kinds: str) -> float:
    """Resident bytes of these kinds after single queries: the median of the rounds."""
    return statistics.median(sum(run[kind] for kind in kinds) for run in side["single"])


def measured(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The sides of one set of vectors that were timed."""
    return {name: side for name, side in result["sides"].items() if "single" in side}


def table(result: dict[str, Any]) -> str:
    """All figures of one set of vectors."""
    sides = measured(result)
    exact = sides.get(EXACT)
    lines = []
    for name, side in sides.items():
        touched = side["touched_bytes"]
        times = {m: f"{ratio(side, exact, m):.1f}" if exact else "" for m in ("single", "batched")}
        lines.append(
            (
                name,
                effort_text(side["effort"]),
                f"{side['recall']:.3f}" + ("" if side["reached"] else " (short)"),
                f"{per_second(side, 'single'):,.1f}",
                times["single"],
                f"{per_second(side, 'batched'):,.1f}",
                times["batched"],
                f"{side['build_seconds']:,.1f}",
                f"{statistics.median(run['open_seconds'] for run in side['single']):.2f}",
                f"{side['disk_bytes'] / 1e6:,.0f}",
                f"{memory(side, 'anon_bytes') / 1e6:,.0f}",
                f"{memory(side, 'file_bytes') / 1e6:,.0f}",
                "not counted" if touched is None else f"{touched / 1e3:,.0f}",
            )
        )
    text = tabulate(lines, headers=_HEADERS, disable_numparse=True)
    left_out = [
        f"{name}: {side['left_out']}"
        for name, side in result["sides"].items()
        if "left_out" in side
    ]
    return "\n".join([text, *left_out])


def effort_text(effort: dict[str, Any]) -> str:
    """An effort in a few characters."""
    if "tiers" in effort:
        steps = zip(effort["tiers"], effort["shortlists"], strict=False)
        text = " > ".join([*(f"{tier}:{size}" for tier, size in steps), effort["tiers"][-1]])
        return text if effort["probes"] is None else f"{text}, probes {effort['probes']}"
    return ", ".join(f"{key} {value}" for key, value in effort.items())


def targets(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What is promised and what was measured, line by line."""
    for result in results:
        sides = measured(result)
        if EXACT not in sides:
            continue
        others = {
            name: side
            for name, side in sides.items()
            if not name.startswith(_OURS) and name != EXACT
        }
        # Where no peer has the recall wanted, the one that comes nearest is the best.
        most = max((side["recall"] for side in others.values()), default=0)
        peers = {name: side for name, side in others.items() if side["reached"]}
        peers = peers or {n: side for n, side in others.items() if side["recall"] == most}
        for name, side in sides.items():
            if not name.startswith(_OURS):
                continue
            yield f"{result['vectors']}, {name}:" + ("" if side["reached"] else " recall is short")
            for mode in ("single", "batched"):
                times = ratio(side, sides[EXACT], mode)
                yield f"  {mode}: {times:.1f} × the exact scan {_judged(times >= TIMES_EXACT)}"
                if not peers:
                    continue
                best = max(peers, key=lambda peer: per_second(peers[peer], mode))
                times = ratio(side, peers[best], mode)
                whole = memory(peers[best], *_ALL)
                own, share = (memory(side, *kinds) / whole for kinds in (_OWN, _ALL))
                yield (
                    f"  {mode}: {times:.1f} × the best peer ({_named(best, peers[best])}) "
                    f"{_judged(times >= TIMES_PEER)}, with {share:.2f} of its resident memory "
                    f"{_judged(share <= SHARE_OF_MEMORY)}; without mapped files {own:.2f} "
                    f"{_judged(own <= SHARE_OF_MEMORY)}"
                )
    yield from _growth([result for result in results if result["made"]])


def _growth(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Cost per query against the number of rows."""
    names = dict.fromkeys(name for result in results for name in measured(result))
    for name in names:
        known = [result for result in results if name in measured(result)]
        if len(known) < 2:
            continue
        sizes = [result["rows"] for result in known]
        costs = [1e3 / per_second(measured(result)[name], "single") for result in known]
        power = math.log(costs[-1] / costs[0]) / math.log(sizes[-1] / sizes[0])
        steps = ", ".join(f"{c:.2f} ms at {n:,}" for n, c in zip(sizes, costs, strict=True))
        verdict = f" {_judged(power < 1)}" if name.startswith(_OURS) else ""
        yield f"{name}: {steps}: rows to the power {power:.2f}{verdict}"


def _named(name: str, side: dict[str, Any]) -> str:
    return name if side["reached"] else f"{name}, recall {side['recall']:.3f}"


def _judged(met: bool) -> str:
    return "(met)" if met else "(NOT met)"


def plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Recall against queries a second of every effort tried, one panel for each set of vectors."""
    from matplotlib.figure import Figure

    results = [result for result in results if measured(result)]
    figure = Figure(figsize=(5.5 * len(results), 4.5), layout="constrained")
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    names = list(dict.fromkeys(name for result in results for name in measured(result)))
    for panel, result in zip(panels, results, strict=True):
        for name, side in measured(result).items():
            colour = f"C{names.index(name) % 10}"
            marker = "o" if name.startswith(_OURS) else "s^Dv<>pX*"[names.index(name) % 9]
            curve = _front(side["tried"])
            panel.plot(
                [1 / one["seconds"] for one in curve],
                [one["recall"] for one in curve],
                color=colour,
                marker=marker,
                markersize=4,
                linewidth=1.8 if name.startswith(_OURS) else 0.9,
                label=name,
            )
        panel.set(xscale="log", xlabel="queries a second, one at a time", ylabel="recall")
        panel.set_title(result["vectors"])
        panel.axhline(result["target"], color="#777777", linestyle=":", linewidth=0.8)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=7)
    figure.savefig(path, dpi=150)


def _front(tried: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The efforts that none beats in both recall and time, fast to slow."""
    front: list[dict[str, Any]] = []
    for one in sorted(tried, key=lambda one: one["seconds"]):
        if not front or one["recall"] > front[-1]["recall"]:
            front.append(one)
    return front
