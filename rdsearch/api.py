"""The three steps that make an index, as functions of files: fit, embed, build."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rdsearch import builder, family
from rdsearch.builder import DEFAULT_RECIPE, BuildReport, building_folder, check_destination
from rdsearch.chain import Chain
from rdsearch.embed import Embedder
from rdsearch.errors import InputError, StoreMismatchError
from rdsearch.exchange import read_vectors
from rdsearch.fitting import fit_chain
from rdsearch.imported import store_from_vectors
from rdsearch.progress import Progress
from rdsearch.proteins import Fasta, read_proteins
from rdsearch.residuefile import write_residues
from rdsearch.spacefit import AUTO
from rdsearch.store import Store
from rdsearch.storewriter import BLOCK_ROWS, write_store

__all__ = ["build", "embed_proteins", "embed_residues", "fit"]

_LOGGER = logging.getLogger(__name__)


def _chain(chain: Chain | str | Path) -> Chain:
    return chain if isinstance(chain, Chain) else Chain.load(Path(chain))


def fit(
    sample: Fasta,
    family_name: str = "esm2",
    members: Iterable[str] | None = None,
    *,
    proteins: int | None = None,
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
    proteins : int, optional
        Use only the first so many.
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
    return fit_chain(islice(read_proteins(sample), proteins), embedder, progress)


def embed_proteins(
    proteins: Fasta,
    chain: Chain | str | Path | None,
    output: str | Path,
    *,
    family_name: str = "esm2",
    members: Iterable[str] | None = None,
    keep_members: bool = False,
    block_rows: int = BLOCK_ROWS,
    progress: Progress | None = None,
    **embedding: Any,
) -> Store:
    """Embed proteins into a store; the same call again goes on where it stopped.

    Parameters
    ----------
    proteins : path or sequence of paths
        FASTA.
    chain : Chain, path or None
        Applied to the pooled vectors. With None the store keeps the members' own vectors, of
        `members` of the family `family_name`.
    output : path
        The store's folder.
    family_name, members : optional
        Only without a chain, which has its own.
    keep_members : bool, optional
        Keep the members' own vectors too, so that another chain can be applied later.
    block_rows : int, optional
        Sequences that are made durable together: what a kill costs at most.
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
    if chain is None:
        embedder = Embedder(family.get(family_name), members, **embedding)
    else:
        chain = _chain(chain)
        embedder = Embedder(family.get(chain.family), chain.tiers, **embedding)
    store = write_store(
        Path(output),
        read_proteins(proteins),
        embedder,
        chain,
        keep_members=keep_members,
        block_rows=block_rows,
        progress=progress,
    )
    _note_padding(embedder)
    return store


def embed_residues(
    proteins: Fasta,
    chain: Chain | str | Path,
    output: str | Path,
    *,
    tier: str | None = None,
    precision: str = "float16",
    progress: Progress | None = None,
    **embedding: Any,
) -> int:
    """Embed every residue of proteins into an HDF5 file; see `residuefile.write_residues`.

    Returns
    -------
    int
        Proteins written.
    """
    chain = _chain(chain) if tier is None else _chain(chain).upto(tier)
    embedder = Embedder(family.get(chain.family), chain.tiers, **embedding)
    count = write_residues(
        Path(output),
        read_proteins(proteins),
        embedder,
        chain,
        precision=precision,
        progress=progress,
    )
    _note_padding(embedder)
    return count


def _note_padding(embedder: Embedder) -> None:
    done = embedder.statistics
    if done.tokens:
        _LOGGER.info(
            "%.1f %% of %s tokens were padding", 100 * done.padded_share, f"{done.tokens:,}"
        )


def build(
    source: Fasta,
    chain: Chain | str | Path,
    output: str | Path,
    *,
    metadata: Sequence[str | Path] = (),
    vectors: str | Path | Mapping[str, str | Path] | None = None,
    ids: str | Path | None = None,
    recipe: str | Path = DEFAULT_RECIPE,
    space: str = AUTO,
    space_from: str | Path = "indexed",
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
    vectors : path, or mapping of member to path, optional
        Vectors of the proteins that somebody computed already: rd embeddings, or each member's
        own, to which the chain is applied. See `rdsearch.exchange.read_vectors`.
    ids : path, optional
        Names for the rows of `vectors`, one a line.
    recipe : str or path, optional
    space, space_from : optional
        Kind and source of the scoring space; see `rdsearch.spacefit.choose_space`.
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
        "space": space,
        "space_from": space_from,
        "overwrite": overwrite,
        "progress": progress,
    }
    if isinstance(source, str | Path) and Path(source).is_dir():
        if vectors is not None:
            raise InputError("a store has its own vectors: give FASTA together with vectors")
        return builder.build(Store.open(Path(source)).applied(chain), chain, output, **options)
    folder = building_folder(output) / "vectors"

    def made() -> Store:
        if vectors is not None:
            return _imported(folder, source, vectors, ids, chain)
        return embed_proteins(source, chain, folder, progress=progress, **embedding)

    try:
        store = made()
    except StoreMismatchError:
        _LOGGER.info("an unfinished build of other input or options is dropped: %s", folder)
        shutil.rmtree(folder)
        store = made()
    return builder.build(store, chain, output, **options)


def _imported(
    folder: Path,
    source: Fasta,
    vectors: str | Path | Mapping[str, str | Path],
    ids: str | Path | None,
    chain: Chain,
) -> Store:
    """A store of vectors that are at hand."""
    if not isinstance(vectors, Mapping):
        names, array = read_vectors(vectors, ids)
        return store_from_vectors(folder, read_proteins(source), names, array, chain)
    found = {member: read_vectors(path, ids) for member, path in vectors.items()}
    names = next(iter(found.values()))[0]
    if any(others != names for others, _ in found.values()):
        raise InputError(
            f"the vectors of {', '.join(vectors)} must have the same ids in the same order"
        )
    arrays = {member: array for member, (_, array) in found.items()}
    return store_from_vectors(folder, read_proteins(source), names, arrays, chain)
