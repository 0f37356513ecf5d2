"""An index of made-up vectors whose families are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import rdsearch
from rdsearch.chain import Chain

FOLDS = 120
UNLABELLED = 15


def plant(folder: Path, chain: Chain, recipe: str = "exact", seed: int = 0) -> Path:
    """Make ``index``, ``labels.tsv`` and ``rd.npy`` in a new folder; relatives lie close.

    The vectors are in the order of the rows, those without a label last.
    """
    rng = np.random.default_rng(seed)
    labels, vectors = [], []
    for fold in range(FOLDS):
        place = rng.standard_normal(256)
        for superfamily in range(rng.choice([1, 1, 2])):
            centre = 0.2 * place + rng.standard_normal(256)
            # The first of each kind is close, and looser the later.
            spread = rng.choice([0.4, 0.7, 1.5])
            for number in range(rng.choice([1, 2, 3, 4])):
                labels.append(f"a.{fold}.{superfamily + 1}.{number // 2 + 1}")
                vectors.append(centre + spread * rng.standard_normal(256))
    names = [f"d{i:04}" for i in range(len(labels))]
    vectors += list(rng.standard_normal((UNLABELLED, 256)))
    every = [*names, *(f"u{i}" for i in range(UNLABELLED))]
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    sequences = ["".join(rng.choice(letters, 30)) for _ in every]
    folder.mkdir()
    fasta = "".join(f">{name}\n{one}\n" for name, one in zip(every, sequences, strict=True))
    (folder / "proteins.fasta").write_text(fasta)
    (folder / "rd.ids.txt").write_text("\n".join(every) + "\n")
    np.save(folder / "rd.npy", np.array(vectors, dtype=np.float32))
    table = "".join(f"{name}\t{label}\n" for name, label in zip(names, labels, strict=True))
    (folder / "labels.tsv").write_text("sid\tsccs\n" + table)
    rdsearch.build(
        folder / "proteins.fasta",
        chain,
        folder / "index",
        vectors=folder / "rd.npy",
        recipe=recipe,
        space="centred",
    )
    return folder
