"""Commands around the main path: weights, chain import, export of vectors."""

from __future__ import annotations

from pathlib import Path

import click
from tabulate import tabulate

from rdsearch import family
from rdsearch.cli_options import EXISTING, OUTPUT, family_option, say

__all__ = ["chain", "export", "weights"]

_WEIGHTS = click.option("--weights", "folder", type=EXISTING, help="Folder to look in first.")


@click.group()
def weights() -> None:
    """List, find and fetch the checkpoints of a family's members."""


@weights.command("list")
@family_option()
@_WEIGHTS
def weights_list(family_name: str, folder: Path | None) -> None:
    """Say which members are on this machine, where, and how large.

    \b
    Example:
      rdsearch weights list --weights /data/esm2
    """
    from rdsearch.weights import describe

    found = [(member, describe(member, folder)) for member in family.get(family_name).members]
    lines = [
        (
            member.name,
            member.checkpoint,
            "" if there.size is None else f"{there.size / 1e6:,.1f} MB",
            there.fingerprint or "",
            there.path or "not on this machine",
        )
        for member, there in found
    ]
    headers = ("member", "checkpoint", "size", "fingerprint", "path")
    click.echo(tabulate(lines, headers=headers, disable_numparse=True))
    say("looked in " + ", ".join(map(str, found[0][1].looked_in)))


@weights.command("path")
@click.argument("member", nargs=-1, required=True)
@family_option()
@_WEIGHTS
def weights_path(member: tuple[str, ...], family_name: str, folder: Path | None) -> None:
    """Print the path of each MEMBER's checkpoint; an error when one is not there.

    \b
    Example:
      rdsearch weights path 8M 35M
    """
    from rdsearch.errors import WeightsError
    from rdsearch.weights import folders, locate

    for name in member:
        chosen = family.get(family_name).member(name)
        path = locate(chosen, folder)
        if path is None:
            looked = ", ".join(map(str, folders(folder)))
            raise WeightsError(
                f"the checkpoint of member {name} ({chosen.checkpoint}) is in none of {looked}. "
                f"Get it with: rdsearch weights fetch {name}"
            )
        click.echo(path)


@weights.command("fetch")
@click.argument("member", nargs=-1, required=True)
@family_option()
@_WEIGHTS
def weights_fetch(member: tuple[str, ...], family_name: str, folder: Path | None) -> None:
    """Download the checkpoint of each MEMBER that is not there, check it, print its path.

    \b
    Example:
      rdsearch weights fetch 8M 35M 150M
    """
    from rdsearch.weights import Checkpoint

    for name in member:
        checkpoint = Checkpoint.open(family.get(family_name).member(name), folder)
        click.echo(f"{checkpoint.path}\tfingerprint {checkpoint.fingerprint}")


@click.group()
def chain() -> None:
    """Make chain files from other sources."""


@chain.command("import")
@click.argument("scalers", type=EXISTING, nargs=-1, required=True)
@click.option("-o", "--output", type=OUTPUT, required=True, help="Chain file to write.")
def chain_import(scalers: tuple[Path, ...], output: Path) -> None:
    """Make a chain file from the authors' published SCALERS (.npz), one for each step.

    The chain gives the numbers of the authors' code. They fitted each step on the embeddings of
    the member before and apply it to the accumulated rd embedding; Algorithm 3 of the paper, and
    rdsearch fit, use the accumulated embedding for both. From the second step on the two differ.

    \b
    Example:
      rdsearch chain import rd-scaler-8M-35M-pcr-incremental-1k.npz -o chain.safetensors
    """
    from rdsearch.scalers import import_scalers

    made = import_scalers(scalers)
    output.parent.mkdir(parents=True, exist_ok=True)
    made.save(output)
    say(f"{output}: chain {made.hash[:12]} of {', '.join(made.tiers)}")


@click.command()
@click.argument("store", type=EXISTING)
@click.option("-o", "--output", type=OUTPUT, required=True, help=".npy, .h5 or .parquet")
@click.option("--tier", help="Cut the prefix here. [default: the last]")
def export(store: Path, output: Path, tier: str | None) -> None:
    """Write the vectors of a STORE as .npy with ids, HDF5 (UniProt's layout) or Parquet.

    \b
    Example:
      rdsearch export vectors/ --tier 650M -o vectors.parquet
    """
    from rdsearch.exchange import export_store
    from rdsearch.store import Store

    opened = Store.open(store)
    export_store(opened, output, tier=tier)
    say(f"{output}: vectors of {opened.n_accessions:,} proteins")
