"""Write the golden index of a format version, and what a search in it answers.

    python -m tests.golden.make

An index that a version wrote stays here for good: `tests/test_golden.py` opens each of them with
the version that is tested. Run this once for each format version and commit the two files.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from pathlib import Path

import numpy as np

import rdsearch
from rdsearch import builder, changes
from rdsearch.funnel import Funnel
from rdsearch.manifest import FORMAT_VERSION
from tests import living
from tests.stored import records

FOLDER = Path(__file__).parent
K = 5
#: The last tier alone, and the way through all tiers.
FUNNELS = (Funnel(("c",), ()), Funnel(("a", "b", "c"), (30, 12)))
RECIPE = """
[codecs]
first = "rabitq"
middle = "sq8"
last = "sqfp16"
[shortlists]
first = 40
last = 20
[scan]
codec = "rabitq"
least_dims = 6
shortlist = 30
"""


def write(path: Path, scratch: Path) -> None:
    """Two segments with a double, removed proteins and a joined table."""
    first, second = records(60), records(24, seed=1)
    double = living.record("DOUBLE", first[0].sequence)
    later = [living.record(f"Q{i:02}", one.sequence, 1) for i, one in enumerate(second)]
    table = scratch / "table.tsv"
    table.write_text("accession\tnote\tmass\nP00003\tkept\t12\nP00004\tgone\t7\n")
    recipe = scratch / "own.toml"
    recipe.write_text(RECIPE)
    store = living.store(scratch / "first", first)
    builder.build(store, living.CHAIN, path, metadata=(table,), recipe=recipe)
    changes.add(path, living.store(scratch / "second", [*later, double]))
    changes.remove(path, ["P00000", "P00004", "Q07"])


def answers(path: Path) -> dict[str, object]:
    """What the index says: proteins, and rows and scores of three queries."""
    queries = living.vectors([one.sequence for one in records(3, seed=2)])
    with rdsearch.open(path) as index:
        shown = index.catalog.proteins(range(index.n_rows))
        found = {
            str(funnel): [
                {"rows": one.rows.tolist(), "scores": one.scores[:, -1].tolist()}
                for one in index.rank(queries.astype(np.float32), K, funnel)
            ]
            for funnel in FUNNELS
        }
        return {
            "generation": index.generation,
            "rows": [[one["accession"] for one in shown[row]] for row in range(index.n_rows)],
            "columns": index.columns,
            "kept": index.catalog.rows_where("note = 'kept' AND mass = 12").tolist(),
            "found": found,
        }


def main() -> None:
    """Write the files."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        path = scratch / "index"
        write(path, scratch)
        content = json.dumps(answers(path), indent=1, sort_keys=True)
        (FOLDER / f"format-{FORMAT_VERSION}.json").write_text(content + "\n", encoding="utf-8")
        with tarfile.open(FOLDER / f"format-{FORMAT_VERSION}.tar.xz", "w:xz") as archive:
            archive.add(path, "index")


if __name__ == "__main__":
    main()
