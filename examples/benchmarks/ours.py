"""The sides of the search benchmark that are rdsearch: one for each recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from side import Effort, Floats, Rows, Side
from vectors import Vectors

from rdsearch import recipe, tiers
from rdsearch.codecs import CODECS, learn
from rdsearch.funnelindex import FunnelIndex
from rdsearch.layout import tier_file
from rdsearch.manifest import SCAN
from rdsearch.space import Space, unit
from rdsearch.tiers import Tier

# As `rdsearch tune` tries them: each √2 times as long as the one before.
_SHORTLISTS = tuple(round(32 * 2 ** (i / 2)) for i in range(15))
_PROBES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
# Of the rows that the first tier passes on, the share that reaches the last.
_PASSED_ON = (0.25, 0.1)


class RecipeSide(Side):
    """Every tier of a recipe in its file, and its scan file.

    All but what a funnel scans first are mapped when they are opened.
    """

    package = "rdsearch"
    library = "faiss"
    raw = True
    recipe: ClassVar[str]

    def build(self, vectors: Vectors) -> float:
        plan = recipe.load(self.recipe)
        space = Space("centred", vectors.mean)
        codecs = plan.codecs(len(vectors.tiers), vectors.n_rows)
        scans = plan.scans(list(vectors.tiers.values()), vectors.n_rows)
        files = dict(zip(map(tier_file, vectors.tiers), codecs, strict=True))
        files |= {tier_file(n + SCAN): s for n, s in zip(vectors.tiers, scans, strict=True) if s}
        for name, dims in vectors.tiers.items():
            for file in (tier_file(name), tier_file(name + SCAN)):
                if file in files:
                    codec, blocks = files[file], vectors.blocks(dims)
                    training = vectors.sample(codec.training_rows(vectors.n_rows), dims)
                    part = space.prefix(dims)
                    tiers.write(self.folder / file, part, learn(codec, part, training), blocks)
        space.save(self.folder / "space.safetensors")
        about = {"tiers": vectors.tiers, "rows": vectors.n_rows}
        (self.folder / "about.json").write_text(json.dumps(about), encoding="utf-8")
        return 0.0

    @classmethod
    def expected_bytes(cls, vectors: Vectors) -> float:
        plan = recipe.load(cls.recipe)
        widths = list(vectors.tiers.values())
        codecs = plan.codecs(len(widths), vectors.n_rows)
        scans = plan.scans(widths, vectors.n_rows)
        bits = sum(
            CODECS[codec.name] * dims
            for codec, dims in zip([*codecs, *scans], [*widths, *widths], strict=True)
            if codec is not None
        )
        return bits / 8 * vectors.n_rows

    def open(self) -> None:
        about = json.loads((self.folder / "about.json").read_text(encoding="utf-8"))
        self._space = Space.load(self.folder / "space.safetensors")
        self._dims: dict[str, int] = about["tiers"]
        self._n_rows: int = about["rows"]
        self._opened: dict[str, Tier] = {}
        self._funnels: dict[tuple[str, ...], FunnelIndex] = {}

    def _tier(self, name: str, *, first: bool = False) -> Tier:
        """A tier; its scan file, if it has one, where it is the first of a funnel."""
        file = tier_file(name + SCAN if first else name)
        if not (self.folder / file).exists():
            file = tier_file(name)
        if file not in self._opened:
            self._opened[file] = tiers.read(
                self.folder / file, name, self._dims[name], self._n_rows, mapped=not first
            )
        return self._opened[file]

    def ladders(self) -> Sequence[Sequence[Effort]]:
        plan = recipe.load(self.recipe)
        names = tuple(self._dims)
        default = plan.funnel(names, tuple(self._dims.values()), self._n_rows)
        return [
            [{"tiers": tiers, "shortlists": sizes, "probes": p} for sizes in ladder]
            for tiers in dict.fromkeys([(names[0], names[-1]), default.tiers])
            for ladder in dict.fromkeys(_shortlists(len(tiers), share) for share in _PASSED_ON)
            for p in self._probes(tiers[0])
        ]

    def _probes(self, name: str) -> list[int | None]:
        """Numbers of cells to scan in a funnel that begins with this tier."""
        cells = self._tier(name, first=True).cells
        return [None] if cells is None else [*(n for n in _PROBES if n < cells), cells]

    def _funnel(self, effort: Effort) -> FunnelIndex:
        names = tuple(effort["tiers"])
        if names not in self._funnels:
            first = self._tier(names[0], first=len(names) > 1)
            self._funnels[names] = FunnelIndex([first, *map(self._tier, names[1:])])
        return self._funnels[names]

    def search(self, queries: Floats, k: int, effort: Effort) -> Rows:
        mapped = self._space.transform(queries)
        found = self._funnel(effort).search(mapped, k, effort["shortlists"], effort["probes"])
        rows = np.full((len(queries), k), -1, np.int64)
        for line, one in zip(rows, found, strict=True):
            line[: len(one.rows)] = one.rows
        return rows

    def touched(self, queries: Floats, k: int, effort: Effort) -> float | None:
        names = effort["tiers"]
        first, later = self._tier(names[0], first=len(names) > 1), map(self._tier, names[1:])
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
