"""Ask a server: search, embed, and let a long search run by itself.

    python examples/04_client.py [URL]

Without the URL of an `rdsearch serve` it builds a small index and serves it itself.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from serve_sample import served

from rdsearch import fasta, samples
from rdsearch.client import AsyncClient, Client
from rdsearch.errors import InputError

with served(sys.argv[1] if len(sys.argv) > 1 else None) as url:
    with Client(url) as client:  # api_key=…, or RDSEARCH_API_KEY, where the server wants one
        for index in client.indexes():
            print(f"index {index['name']}: {index['rows']} proteins, funnel {index['funnel']}")
        name = client.indexes()[0]["name"]

        # Queries are a FASTA file, FASTA text, records, or a list of sequences.
        answer = client.search(samples.QUERIES, name, k=3, align=True)
        for query, hits in answer:
            print(query["id"])
            for hit in hits:
                print(
                    f"  {hit['rank']} {hit['accession']:>10} {hit['score']:.3f} "
                    f"identity {hit['identity'] or 0:.2f} {hit['protein_name']}"
                )

        # Errors are those of a search on this machine.
        try:
            client.search(samples.QUERIES, name, where="no_such_column > 3")
        except InputError as error:
            print("refused:", str(error).splitlines()[0])

        ids, vectors = client.embed(samples.QUERIES, name)
        print(f"{len(ids)} vectors of {vectors.shape[1]} numbers")

        # A protein of the index is known already: no model runs.
        first = answer.results[0].hits[0]["accession"]
        near = client.neighbours(name, first, k=2).results[0].hits
        print(f"near {first}:", ", ".join(hit["accession"] for hit in near))

        # A job survives this program; its id finds it again.
        job = client.submit(samples.QUERIES, "tsv", name, k=100)
        for told in job.events():
            print(f"job: {told['state']}, {told['sequences']['done']} queries done")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "hits.tsv")
            job.result_to(path)
            print(f"{len(path.read_text().splitlines()) - 1} hits in {path.name}")
        job.cancel()

    async def together() -> None:
        """Requests of many clients are embedded together, which is faster than one by one."""
        async with AsyncClient(url) as client:
            queries = list(fasta.read(samples.QUERIES))
            answers = await asyncio.gather(*(client.search(q, name, k=1) for q in queries))
        best = [answer.results[0].hits[0]["accession"] for answer in answers]
        print("at once:", ", ".join(best))

    asyncio.run(together())
