"""The three steps that make an index, as functions of files: fit, embed, build."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rdsearch import builder, family, fasta
from rdsearch.builder import DEFAULT_RECIPE, BuildReport, building_folder, check_destination
from rdsearch.chain import Chain
from rdsearch.embed import Embedder
from rdsearch.errors import StoreMismatchError
from rdsearch.fasta import Record
from rdsearch.fitting import fit_chain
from rdsearch.progress import Progress
from rdsearch.store import Store
from rdsearch.storewriter import write_store

__all__ = ["build", "embed_proteins", "fit"]

_LOGGER = logging.getLogger(__name__)

#: One FASTA file (``"-"``: standard input) or several.
Fasta = str | Path | Sequence[str | Path]


def _records(proteins: Fasta) -> Iterator[Record]:
    paths = [proteins] if isinstance(proteins, str | Path) else proteins
    return (record for path in paths for record in fasta.read(path))


def _chain(chain: Chain | str | Path) -> Chain:
    return chain if isinstance(chain, Chain) else Chain.load(Path(chain))


def fit(
    sample: Fasta,
    family_name: str = "esm2",
    members: Iterable[str] | None = None,
    *,
    progress: Progress | None = None,
    **embedding: Any,
) -> Chain:
    """Fit a chain on a sample of proteins.

    Parameters
    ----------
    sample : path or sequence of paths
        FASTA; about 1,000 diverse proteins.
    family_name : str, optional
        A key of `rdsearch.family.FAMILIES`.
    members : iterable of str, optional
        Any subset of the family; all where it is not given.
    progress : Progress, optional
    **embedding
        `weights`, `device`, `dtype` and the other options of `rdsearch.embed.Embedder`.

    Returns
    -------
    Chain
        `chain.save(path)` writes it.

    Raises
    ------
    ChainError
        Fewer residues than dimensions.
    FastaError, InputError, WeightsError
    """
    embedder = Embedder(family.get(family_name), members, **embedding)
    return fit_chain(_records(sample), embedder, progress)


def embed_proteins(
    proteins: Fasta,
    chain: Chain | str | Path,
    output: str | Path,
    *,
    keep_members: bool = False,
    progress: Progress | None = None,
    **embedding: Any,
) -> Store:
    """Embed proteins into a store; the same call again goes on where it stopped.

    Parameters
    ----------
    proteins : path or sequence of paths
        FASTA.
    chain : Chain or path
        Applied to the pooled vectors.
    output : path
        The store's folder.
    keep_members : bool, optional
        Keep the members' own vectors too, so that another chain can be applied later.
    progress : Progress, optional
    **embedding
        Options of `rdsearch.embed.Embedder`.

    Returns
    -------
    Store

    Raises
    ------
    StoreError
        The folder holds a store of other input or options, or cannot be written.
    FastaError, InputError, WeightsError
    """
    chain = _chain(chain)
    embedder = Embedder(family.get(chain.family), chain.tiers, **embedding)
    return write_store(
        Path(output),
        _records(proteins),
        embedder,
        chain,
        keep_members=keep_members,
        progress=progress,
    )


def build(
    source: Fasta,
    chain: Chain | str | Path,
    output: str | Path,
    *,
    metadata: Sequence[str | Path] = (),
    recipe: str | Path = DEFAULT_RECIPE,
    overwrite: bool = False,
    progress: Progress | None = None,
    **embedding: Any,
) -> BuildReport:
    """Build an index from proteins or from a store of embedded proteins.

    Parameters
    ----------
    source : path or sequence of paths
        FASTA files, or one store folder.
    chain : Chain or path
    output : path
        The index folder.
    metadata : sequence of paths, optional
        TSV, CSV, Parquet or JSON lines, joined by accession.
    recipe : str or path, optional
    overwrite : bool, optional
        Replace an index that is there.
    progress : Progress, optional
    **embedding
        Options of `rdsearch.embed.Embedder`.

    Returns
    -------
    BuildReport

    Raises
    ------
    IndexExistsError
        There is something at `output`.
    ChainMismatchError
        The store's vectors are another chain's.
    FastaError, InputError, MetadataError, StoreError, WeightsError
    """
    chain, output = _chain(chain), Path(output)
    # Everything that can be refused is refused before hours of embedding.
    check_destination(output, overwrite=overwrite)
    options: dict[str, Any] = {
        "metadata": tuple(metadata),
        "recipe": builder.recipes.load(recipe),
        "overwrite": overwrite,
        "progress": progress,
    }
    if isinstance(source, str | Path) and Path(source).is_dir():
        return builder.build(Store.open(Path(source)), chain, output, **options)
    vectors = building_folder(output) / "vectors"

    def embedded() -> Store:
        return embed_proteins(source, chain, vectors, progress=progress, **embedding)

    try:
        made = embedded()
    except StoreMismatchError:
        _LOGGER.info("an unfinished build of other input or options is dropped: %s", vectors)
        shutil.rmtree(vectors)
        made = embedded()
    return builder.build(made, chain, output, **options)
