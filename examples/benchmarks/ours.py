"""The sides of the search benchmark that are rdsearch: one for each recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from side import Effort, Floats, Rows, Side
from vectors import Vectors

from rdsearch import recipe, tiers
from rdsearch.funnel import FunnelIndex
from rdsearch.space import Space, unit
from rdsearch.tiers import Tier

_SHORTLISTS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_PROBES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
# Of the rows that the first tier passes on, the share that reaches the last.
_PASSED_ON = (0.25, 0.1)


class RecipeSide(Side):
    """Every tier of a recipe in its file; all but the first are mapped when they are opened."""

    package = "rdsearch"
    library = "faiss"
    raw = True
    recipe: ClassVar[str]

    def build(self, vectors: Vectors) -> float:
        plan = recipe.load(self.recipe)
        space = Space("centred", vectors.mean)
        codecs = plan.codecs(len(vectors.tiers), vectors.n_rows)
        for (name, dims), codec in zip(vectors.tiers.items(), codecs, strict=True):
            training = vectors.sample(codec.training_rows(vectors.n_rows), dims)
            blocks = vectors.blocks(dims)
            tiers.write(self.folder / f"{name}.faiss", space.prefix(dims), codec, training, blocks)
        space.save(self.folder / "space.safetensors")
        about = {"tiers": vectors.tiers, "rows": vectors.n_rows}
        (self.folder / "about.json").write_text(json.dumps(about), encoding="utf-8")
        return 0.0

    @classmethod
    def expected_bytes(cls, vectors: Vectors) -> float:
        plan = recipe.load(cls.recipe)
        codecs = plan.codecs(len(vectors.tiers), vectors.n_rows)
        bits = sum(
            tiers.CODECS[codec.name] * dims
            for codec, dims in zip(codecs, vectors.tiers.values(), strict=True)
        )
        return bits / 8 * vectors.n_rows

    def open(self) -> None:
        about = json.loads((self.folder / "about.json").read_text(encoding="utf-8"))
        self._space = Space.load(self.folder / "space.safetensors")
        self._dims: dict[str, int] = about["tiers"]
        self._n_rows: int = about["rows"]
        self._opened: dict[str, Tier] = {}
        self._funnels: dict[tuple[str, ...], FunnelIndex] = {}

    def _tier(self, name: str) -> Tier:
        if name not in self._opened:
            self._opened[name] = tiers.read(
                self.folder / f"{name}.faiss",
                name,
                self._dims[name],
                self._n_rows,
                mapped=name != next(iter(self._dims)),
            )
        return self._opened[name]

    def ladders(self) -> Sequence[Sequence[Effort]]:
        plan = recipe.load(self.recipe)
        names = tuple(self._dims)
        default = plan.funnel(names, tuple(self._dims.values()), self._n_rows)
        cells = self._tier(names[0]).cells
        probes = [None] if cells is None else [n for n in _PROBES if n < cells] + [cells]
        return [
            [{"tiers": tiers, "shortlists": sizes, "probes": p} for sizes in ladder]
            for tiers in dict.fromkeys([(names[0], names[-1]), default.tiers])
            for ladder in dict.fromkeys(_shortlists(len(tiers), share) for share in _PASSED_ON)
            for p in probes
        ]

    def _funnel(self, effort: Effort) -> FunnelIndex:
        names = tuple(effort["tiers"])
        if names not in self._funnels:
            self._funnels[names] = FunnelIndex([self._tier(name) for name in names])
        return self._funnels[names]

    def search(self, queries: Floats, k: int, effort: Effort) -> Rows:
        mapped = self._space.transform(queries)
        found = self._funnel(effort).search(mapped, k, effort["shortlists"], effort["probes"])
        rows = np.full((len(queries), k), -1, np.int64)
        for line, one in zip(rows, found, strict=True):
            line[: len(one.rows)] = one.rows
        return rows

    def touched(self, queries: Floats, k: int, effort: Effort) -> float | None:
        first, *later = (self._tier(name) for name in effort["tiers"])
        scanned, centres = float(self._n_rows), 0
        if first.cells is not None:
            heads = unit(self._space.transform(queries)[:, : first.dims])
            near = first.codec.quantizer.search(heads, effort["probes"])[1]
            sizes = np.array([first.codec.invlists.list_size(i) for i in range(first.cells)])
            scanned, centres = sizes[near].sum() / len(queries), 4 * first.dims * first.cells
        passed = zip(later, effort["shortlists"], strict=True)
        return (
            centres
            + scanned * first.row_bytes
            + sum(min(size, scanned) * tier.row_bytes for tier, size in passed)
        )


def _shortlists(n_tiers: int, share: float) -> tuple[tuple[int, ...], ...]:
    """Shortlists from short to long: the last is this share of the first, geometric between."""
    steps = n_tiers - 1
    powers = [i / max(1, steps - 1) for i in range(steps)]
    return tuple(
        tuple(max(_SHORTLISTS[0], round(first * share**power)) for power in powers)
        for first in _SHORTLISTS
    )


def _side(name: str) -> type[RecipeSide]:
    return type(f"Recipe_{name}", (RecipeSide,), {"recipe": name, "name": f"rdsearch {name}"})


RECIPES = tuple(_side(name) for name in ("exact", "balanced", "compact"))
