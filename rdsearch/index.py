"""An opened index: search it, ask what it is.

See ``indexes/README.md`` for the folder on disk, `rdsearch.builder` for how it is made and
`rdsearch.verification` for how it is checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdsearch import family, fasta
from rdsearch.catalog import Catalog
from rdsearch.chain import Chain
from rdsearch.errors import InputError, WeightsError
from rdsearch.fasta import Record
from rdsearch.funnel import Funnel, FunnelIndex, plan
from rdsearch.hits import Hit, QueryHits, assemble
from rdsearch.hits import columns as hit_columns
from rdsearch.layout import load_chain, open_catalog, segment_folder, tier_file
from rdsearch.manifest import Manifest
from rdsearch.tiers import Tier
from rdsearch.tiers import read as read_tier

if TYPE_CHECKING:
    from rdsearch.embed import Embedder
    from rdsearch.progress import Progress

__all__ = ["DEFAULT_HITS", "Index", "Queries", "open"]

DEFAULT_HITS = 10

# Queries that are embedded together: each member is loaded once for so many.
_QUERIES_AT_ONCE = 4096

#: What can be searched for: a FASTA path (``"-"`` is standard input), one record, or records.
Queries = str | Path | Record | Iterable[Record]


class Index:
    """An index that was opened for search; made by `rdsearch.open`.

    Attributes
    ----------
    path : Path
        Its folder.
    manifest : Manifest
        As it was when the index was opened; it does not change under a reader.
    chain : Chain
        The chain that its vectors were made with.

    Examples
    --------
    >>> import rdsearch
    >>> index = rdsearch.open("indexes/demo")          # doctest: +SKIP
    >>> for query, hits in index.search("query.fasta", k=10):  # doctest: +SKIP
    ...     print(query.id, hits[0].accession, hits[0].score)
    """

    def __init__(
        self, path: Path, manifest: Manifest, chain: Chain, catalog: Catalog, **embedding: Any
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.chain = chain
        self._catalog = catalog
        self._embedding = embedding
        self._embedders: dict[str, Embedder] = {}
        self._tiers: dict[str, Tier] = {}
        self._funnels: dict[tuple[str, ...], FunnelIndex] = {}

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<rdsearch.Index {self.path}: {self.n_rows} rows, tiers {', '.join(self.tiers)}>"

    def close(self) -> None:
        """Release the files."""
        self._catalog.close()
        self._funnels.clear()
        self._tiers.clear()
        self._embedders.clear()

    @property
    def tiers(self) -> tuple[str, ...]:
        """Tier names, coarse to fine."""
        return tuple(tier.name for tier in self.manifest.tiers)

    @property
    def n_rows(self) -> int:
        """Distinct sequences."""
        return self.manifest.rows

    @property
    def n_accessions(self) -> int:
        """Accessions of all sequences."""
        return sum(segment.accessions for segment in self.manifest.segments)

    @property
    def columns(self) -> dict[str, str]:
        """Catalog columns and their SQL types."""
        return dict(self._catalog.columns)

    def hit_columns(self, funnel: Funnel | None = None) -> list[str]:
        """Column names of this index's hits, as ``Hit.as_dict()`` orders them."""
        return hit_columns((funnel or self.manifest.funnel).tiers, self._catalog.columns)

    def info(self) -> dict[str, Any]:
        """What the index is, for people and programs."""
        manifest = self.manifest
        return {
            "path": str(self.path),
            "created": manifest.created,
            "rdsearch": manifest.rdsearch,
            "family": manifest.family,
            "chain": manifest.chain_hash,
            "chain_residues": self.chain.n_residues,
            "rows": self.n_rows,
            "accessions": self.n_accessions,
            "space": manifest.space,
            "recipe": manifest.recipe,
            "funnel": str(manifest.funnel),
            "tiers": [
                {
                    "name": tier.name,
                    "dims": tier.dims,
                    "codec": tier.codec,
                    "bytes": self._tier_bytes(tier.name),
                }
                for tier in manifest.tiers
            ],
            "columns": self.columns,
            "bytes": sum(file.size for file in manifest.all_files()),
            "embedding": manifest.embedding,
        }

    def _tier_bytes(self, name: str) -> int:
        ending = "/" + tier_file(name)
        return sum(
            file.size
            for segment in self.manifest.segments
            for file in segment.files
            if file.path.endswith(ending)
        )

    def plan(
        self, to_tier: str | None = None, shortlists: dict[str, int] | int | None = None
    ) -> Funnel:
        """The funnel that a search takes.

        Parameters
        ----------
        to_tier : str, optional
            Where to stop; the members after it are neither loaded nor run. The last tier of
            the default funnel where it is not given.
        shortlists : dict of str to int, or int, optional
            Rows that each named tier passes on, in place of the default funnel's: the search
            goes through the named tiers and `to_tier`. One number alone is the shortlist of
            every tier before the last.

        Returns
        -------
        Funnel

        Raises
        ------
        InputError
            Unknown tier, shortlists that grow or name the last tier.
        """
        return plan(self.manifest.funnel, self.tiers, to_tier, shortlists)

    def search(
        self,
        queries: Queries,
        k: int = DEFAULT_HITS,
        *,
        to_tier: str | None = None,
        shortlists: dict[str, int] | int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[QueryHits]:
        """Find homologs of proteins.

        Parameters
        ----------
        queries : str, Path, Record or iterable of Record
            A FASTA file (``"-"``: standard input) or records.
        k : int
            Hits for each query at most.
        to_tier, shortlists
            See `plan`.
        progress : Progress, optional
            Told of every batch that is embedded.

        Yields
        ------
        QueryHits
            ``(query, hits)`` in the order of the queries; hits by falling score, then by row.

        Raises
        ------
        FastaError, InputError
            Bad queries or options; options are checked before the first query is read.
        WeightsError
            A member's weights are not there.
        """
        if k < 1:
            raise InputError(f"k must be at least 1; found {k}")
        funnel = self.plan(to_tier, shortlists)
        if isinstance(queries, Record):
            queries = [queries]
        records = fasta.read(queries, unique=False) if isinstance(queries, str | Path) else queries
        return self._search(iter(records), k, funnel, progress)

    def _search(
        self, records: Iterator[Record], k: int, funnel: Funnel, progress: Progress | None
    ) -> Iterator[QueryHits]:
        while batch := list(islice(records, _QUERIES_AT_ONCE)):
            vectors = self.embed([record.sequence for record in batch], funnel.tiers[-1], progress)
            yield from self.search_vectors(batch, vectors, k, funnel)

    def embed(
        self, sequences: Sequence[str], tier: str, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """rd embeddings of sequences, as the index's own were made.

        Parameters
        ----------
        sequences : sequence of str
        tier : str
            Only its members are loaded and run.
        progress : Progress, optional

        Returns
        -------
        ndarray, shape (n, dims of the tier), float32
        """
        chain = self.chain.upto(tier)
        embedder = self._embedder(chain)

        def pooled() -> Iterator[NDArray[np.float32]]:
            for member in chain.members:
                report = None if progress is None else progress.stage(member.name, len(sequences))
                yield embedder.pool(member, sequences, progress=report)

        return np.concatenate(list(chain.parts(pooled())), axis=1)

    def _embedder(self, chain: Chain) -> Embedder:
        from rdsearch.embed import Embedder

        tier = chain.tiers[-1]
        if tier not in self._embedders:
            made = self.manifest.embedding
            embedder = Embedder(
                family.get(chain.family),
                chain.tiers,
                window=made["window"],
                overlap=made["overlap"],
                **self._embedding,
            )
            for name, value in embedder.signature.items():
                if name.startswith("weights ") and made.get(name, value) != value:
                    raise WeightsError(
                        f"index {self.path} was built with other {name}: expected fingerprint "
                        f"{made[name]}, found {value}. Give the folder of the weights it was "
                        "built with (--weights)",
                        expected=made[name],
                        found=value,
                    )
            self._embedders[tier] = embedder
        return self._embedders[tier]

    def search_vectors(
        self,
        queries: Sequence[Record],
        vectors: NDArray[np.float32],
        k: int = DEFAULT_HITS,
        funnel: Funnel | None = None,
    ) -> list[QueryHits]:
        """Find homologs of rd embeddings that are at hand already.

        Parameters
        ----------
        queries : sequence of Record
            One for each vector; only named in the hits.
        vectors : ndarray, shape (n, dims of the funnel's last tier), float32
        k : int
        funnel : Funnel, optional
            The index's default where not given.

        Returns
        -------
        list of QueryHits
        """
        funnel = funnel or self.manifest.funnel
        if len(queries) != len(vectors):
            raise InputError(f"{len(queries)} queries need as many vectors; found {len(vectors)}")
        rankings = self._funnel(funnel.tiers).search(vectors, k, funnel.shortlists)
        proteins = self._catalog.proteins(
            sorted({int(row) for ranking in rankings for row in ranking.rows})
        )
        results = []
        for query, ranking in zip(queries, rankings, strict=True):
            scores = (
                {tier: float(score) for tier, score in zip(funnel.tiers, line, strict=True)}
                for line in ranking.scores
            )
            hits: list[Hit] = list(assemble(query, ranking.rows.tolist(), scores, proteins))
            results.append(QueryHits(query, hits))
        return results

    def _funnel(self, names: tuple[str, ...]) -> FunnelIndex:
        if names not in self._funnels:
            self._funnels[names] = FunnelIndex([self._tier(name) for name in names])
        return self._funnels[names]

    def _tier(self, name: str) -> Tier:
        if name not in self._tiers:
            (segment,) = self.manifest.segments
            entry = next(tier for tier in self.manifest.tiers if tier.name == name)
            file = segment_folder(self.path, segment) / tier_file(name)
            self._tiers[name] = read_tier(file, name, entry.dims, segment.rows)
        return self._tiers[name]


def open(
    path: str | Path,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    **embedding: Any,
) -> Index:
    """Open an index for search.

    The manifest, the size and both ends of every file, the chain's hash and the row checksum
    are checked; `rdsearch.verify` reads everything.

    Parameters
    ----------
    path : str or Path
        The index folder.
    weights : str or Path, optional
        Folder with the family's checkpoints; else torch hub's cache, then a download.
    device, dtype : str
        How queries are embedded; see `rdsearch.embed.Embedder`.
    **embedding
        `tokens_per_batch` and `stream_layers`, as the embedder takes them.

    Returns
    -------
    Index

    Raises
    ------
    IndexMissingError
        There is no index.
    IndexDamagedError
        A file is missing, has another size, or does not belong to this index.
    ChainMismatchError
        The chain file is another chain.
    """
    path = Path(path)
    manifest = Manifest.read(path)
    chain = load_chain(path, manifest)
    for file in manifest.all_files():
        file.check(path)
    (segment,) = manifest.segments
    catalog = open_catalog(path, segment)
    return Index(
        path,
        manifest,
        chain,
        catalog,
        weights=None if weights is None else Path(weights),
        device=device,
        dtype=dtype,
        **embedding,
    )
