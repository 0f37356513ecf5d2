"""Plot the hits of a query: scores by tier, e-values, and where they lie.

    python examples/05_plot_hits.py [URL] [-o hits.png]

Cells begin with ``# %%``: editors run them one by one, as a notebook. Needs pandas and matplotlib
(``pip install 'rdsearch[plots,server]' pandas``). Without the URL of an `rdsearch serve` it
builds a small index and serves it itself.
"""

# %% The server
from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from serve_sample import served

from rdsearch import fasta, samples
from rdsearch.client import Client

parser = argparse.ArgumentParser(description="Plot the hits of a query.")
parser.add_argument("url", nargs="?")
parser.add_argument("-o", "--output", type=Path, default=Path("hits.png"))
options, _ = parser.parse_known_args()  # a notebook has arguments of its own
ended = contextlib.ExitStack()
client = ended.enter_context(Client(ended.enter_context(served(options.url))))

# %% Search: every tier scores every hit (trace), and the server draws a map (map)
query = next(iter(fasta.read(samples.QUERIES)))
answer = client.search(query, k=30, trace=True, map=True)
result = answer.results[0]
hits = pd.DataFrame(result.hits)
tiers = [name.removeprefix("score_") for name in hits if name.startswith("score_")]
print(f"{query.id} in {answer.index}, {answer.funnel}")
shown = ["rank", "accession", "score", "evalue", "organism", "protein_name"]
print(hits.reindex(columns=shown).head(10))  # an index may have no e-values

# %% Three panels
colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
figure = Figure(figsize=(13, 4), layout="constrained")
by_tier, by_evalue, on_map = figure.subplots(1, 3)

for tier, colour in zip(tiers, colours, strict=False):
    by_tier.plot(hits["rank"], hits[f"score_{tier}"], "o-", markersize=3, color=colour, label=tier)
by_tier.set(xlabel="rank", ylabel="score (cosine)", title="score at each tier")
by_tier.legend(title="tier", frameon=False)

evalues = hits.reindex(columns=["evalue"])["evalue"].dropna()
if len(evalues):
    by_evalue.semilogy(hits["rank"][evalues.index], evalues, "o", markersize=4, color=colours[0])
    by_evalue.axhline(1e-3, color="#555555", linestyle="--", linewidth=1, label="0.001")
    by_evalue.legend(frameon=False)
else:
    by_evalue.text(0.5, 0.5, "this index has no e-values", ha="center")
by_evalue.set(xlabel="rank", ylabel="e-value", title="unrelated proteins expected by chance")

# %% The map: two dimensions that tell the hits apart best
if result.map is not None:
    for name, colour, size in (("others", "#cccccc", 6), ("hits", colours[0], 16)):
        points = pd.DataFrame(result.map[name], columns=["x", "y"])
        on_map.scatter(points["x"], points["y"], s=size, color=colour, label=name)
    on_map.scatter(*result.map["query"], s=90, marker="*", color=colours[1], label="query")
    on_map.set(title=f"{result.map['explained']:.0%} of the variance", xticks=[], yticks=[])
    on_map.legend(loc="upper left", frameon=False)

# %% Write it
figure.suptitle(f"{query.id} {query.protein_name or ''}")
figure.savefig(options.output, dpi=150)
print(f"plotted {len(hits)} hits: {options.output}")
ended.close()
