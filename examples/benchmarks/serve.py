"""A server under load: throughput and latency, batched against one request at a time.

    python examples/benchmarks/serve.py INDEX PROTEINS.fasta.gz --to-tier 8M
    python examples/benchmarks/serve.py INDEX PROTEINS.fasta.gz --minutes 10 --plot memory.png

Starts two servers on loopback: one as it comes, one that takes one sequence a model call
(``--batch-sequences 1``). Clients are in a process of their own, each with one request in flight,
each request with a sequence that the server has not seen (``--repeat``: always the same, which it
keeps). In every round each side runs once; ratios are of one round, and the median is shown.
``--minutes`` lets 64 clients ask for so long after that, and watches the server's memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import processor
from tabulate import tabulate

_LOAD = Path(__file__).with_name("serve_load.py")
_BATCHED, _SINGLE = "batched", "one sequence a call"
_SOAKING = 64
_START = 600.0
_TARGET = 5


class Server:
    """A server process.

    Parameters
    ----------
    options : argparse.Namespace
    more : sequence of str
        Further options of ``rdsearch serve``.
    log : Path
        Its standard error.
    """

    def __init__(self, options: argparse.Namespace, more: Sequence[str], log: Path) -> None:
        command = [sys.executable, "-m", "rdsearch", "serve", f"bench={options.index}"]
        command += ["--port", "0", *more]
        if options.threads is not None:
            command += ["--threads", str(options.threads)]
        if options.weights is not None:
            command += ["--weights", options.weights]
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stderr=file)
        self.url = self._ready()

    def _ready(self) -> str:
        """Its URL, once its models are loaded."""
        deadline, url = time.monotonic() + _START, None
        while time.monotonic() < deadline and self.process.poll() is None:
            if url is None:
                told = re.search(r" at (http://\S+)", self.log.read_text(errors="replace"))
                url = told and told[1]
            else:
                with (
                    contextlib.suppress(urllib.error.URLError, OSError),
                    urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer,
                ):
                    if answer.status == 200:
                        return url
            time.sleep(0.1)
        self.stop()
        raise SystemExit(f"the server did not start:\n{self.log.read_text(errors='replace')}")

    def resident(self) -> int:
        """Resident bytes of the process and of those that it started; 0 where not known."""
        return sum(map(_resident, _family(self.process.pid)))

    def stop(self) -> None:
        """End it as a service manager does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
        self.process.kill()
        self.process.wait()


def _family(pid: int) -> Iterator[int]:
    yield pid
    children = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(OSError):
        for child in children.read_text().split():
            yield from _family(int(child))


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return 1024 * int(line.split()[1])
    return 0


class Loads:
    """Starts loads one after the other; none asks for a sequence that another has asked for."""

    def __init__(self, options: argparse.Namespace) -> None:
        plan = {"k": options.k} | ({"to_tier": options.to_tier} if options.to_tier else {})
        self.job = {
            "index": "bench",
            "proteins": str(options.proteins),
            "longest": options.longest,
            "repeat": options.repeat,
            "plan": plan,
            "warm": options.warm,
            "skip": 0,
        }

    def start(self, server: Server, clients: int, seconds: float) -> subprocess.Popen[str]:
        """A load that runs."""
        job = {**self.job, "url": server.url, "clients": clients, "seconds": seconds}
        return subprocess.Popen(
            [sys.executable, str(_LOAD), json.dumps(job)], stdout=subprocess.PIPE, text=True
        )

    def result(self, load: subprocess.Popen[str]) -> dict[str, Any]:
        """What it measured."""
        printed, _ = load.communicate()
        if load.returncode:
            raise SystemExit("the load failed; what it printed is above")
        found: dict[str, Any] = json.loads(printed.splitlines()[-1])
        self.job["skip"] += found["used"]
        return found


def measure(
    options: argparse.Namespace, servers: dict[str, Server], loads: Loads
) -> dict[str, list[dict[str, Any]]]:
    """Every side in every round."""
    sides = {f"{_BATCHED}, {n} clients": (_BATCHED, n) for n in options.clients}
    sides |= {f"{_SINGLE}, {n} clients": (_SINGLE, n) for n in (1, max(options.clients))}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for number in range(options.rounds):
        # Every other round from the end: what a machine's temperature does is not one side's.
        for name, (server, clients) in list(sides.items())[:: 1 if number % 2 == 0 else -1]:
            result = loads.result(loads.start(servers[server], clients, options.seconds))
            result["resident_bytes"] = servers[server].resident()
            found[name].append(result)
            print(f"round {number + 1}, {name}: {result['per_second']:.1f}/s", file=sys.stderr)
    return found


def soak(options: argparse.Namespace, server: Server, loads: Loads) -> dict[str, Any]:
    """Memory of a server under load; slopes by least squares."""
    load = loads.start(server, _SOAKING, 60 * options.minutes)
    began, samples = time.monotonic(), []
    while load.poll() is None:
        samples.append((time.monotonic() - began, server.resident()))
        with contextlib.suppress(subprocess.TimeoutExpired):
            load.wait(options.every)
    result = loads.result(load)
    half = samples[len(samples) // 2 :]
    return {
        "minutes": options.minutes,
        "load": result,
        "resident": samples,
        "mb_per_minute": slope(samples),
        "mb_per_minute_second_half": slope(half),
    }


def slope(samples: Sequence[tuple[float, float]]) -> float | None:
    """MB a minute; None of fewer than two samples."""
    if len(samples) < 2:
        return None
    minutes, megabytes = np.array(samples).T / [[60], [1e6]]
    return float(np.polyfit(minutes, megabytes, 1)[0])


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """All sides; medians of the rounds."""

    def middle(runs: list[dict[str, Any]], key: str) -> float:
        return statistics.median(run[key] for run in runs)

    lines = [
        (
            name,
            f"{middle(runs, 'per_second'):,.1f}",
            f"{min(r['per_second'] for r in runs):,.1f} to "
            f"{max(r['per_second'] for r in runs):,.1f}",
            f"{middle(runs, 'p50_ms'):,.1f}",
            f"{middle(runs, 'p99_ms'):,.1f}",
            f"{max(r['longest_ms'] for r in runs):,.1f}",
            f"{sum(r['requests'] for r in runs):,}",
            sum(sum(r["errors"].values()) for r in runs),
            f"{middle(runs, 'client_cpu'):.2f}",
            f"{runs[-1]['resident_bytes'] / 1e6:,.0f}",
        )
        for name, runs in found.items()
    ]
    headers = ("side", "requests/s", "rounds", "p50 ms", "p99 ms", "longest ms", "requests")
    headers += ("errors", "client's cores", "server's MB")
    return tabulate(lines, headers=headers, disable_numparse=True)


def ratios(found: dict[str, list[dict[str, Any]]], most: int) -> dict[str, float]:
    """Times the throughput of what is one at a time: the median of the rounds'."""
    best = found[f"{_BATCHED}, {most} clients"]
    return {
        name: statistics.median(
            ours["per_second"] / theirs["per_second"] if theirs["per_second"] else float("inf")
            for ours, theirs in zip(best, found[name], strict=True)
        )
        for name in found
        if name.startswith(_SINGLE)
    }


def plot(soaked: dict[str, Any], path: Path) -> None:
    """Resident memory against time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    panel = figure.subplots()
    minutes, megabytes = np.array(soaked["resident"]).T / [[60], [1e6]]
    panel.plot(minutes, megabytes, color="#0072B2", marker="o", markersize=3)
    panel.set_ylim(bottom=0)
    panel.set(xlabel="minutes of load", ylabel="resident memory of the server, MB")
    panel.set_title(
        f"{_SOAKING} clients, {soaked['load']['requests']:,} requests, "
        f"{soaked['mb_per_minute_second_half']:+.2f} MB a minute in the second half",
        fontsize=9,
    )
    figure.savefig(path, dpi=150)


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("proteins", type=Path, help="FASTA file that sequences are taken from")
    parser.add_argument("--to-tier", help="of the searches. [default: the last]")
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--longest", type=int, default=400, help="residues of a request")
    parser.add_argument("--clients", default="1,8,64", type=_numbers)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement")
    parser.add_argument("--warm", type=float, default=2, help="seconds before each")
    parser.add_argument("--repeat", action="store_true", help="ask for one sequence always")
    parser.add_argument("--minutes", type=float, help="then watch memory under load for so long")
    parser.add_argument("--every", type=float, default=10, help="seconds between looks at memory")
    parser.add_argument("--threads", type=int, help="of each server")
    parser.add_argument("--weights", help="folder of the family's checkpoints")
    parser.add_argument("--json", type=Path, dest="output", help="write everything here")
    parser.add_argument("--plot", type=Path, help="with --minutes: a PNG of memory")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Start the servers, measure, print."""
    options = arguments()
    about: dict[str, Any] = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "options": {name: str(value) for name, value in vars(options).items()},
    }
    print(f"{about['processor']}, {about['cores']} cores shared by server and clients")
    servers: dict[str, Server] = {}
    with tempfile.TemporaryDirectory(prefix="rdsearch-serve-") as scratch:
        logs, loads = Path(scratch), Loads(options)
        try:
            for name, more in ((_BATCHED, ()), (_SINGLE, ("--batch-sequences", "1"))):
                servers[name] = Server(options, more, logs / f"{len(servers)}.log")
            if options.rounds:
                about["sides"] = measure(options, servers, loads)
                about["ratios"] = ratios(about["sides"], max(options.clients))
                print(table(about["sides"]))
                for name, times in about["ratios"].items():
                    print(f"{max(options.clients)} clients, batched: {times:.1f} × {name}")
                times = about["ratios"][f"{_SINGLE}, 1 clients"]
                verdict = "met" if times >= _TARGET else "NOT met"
                print(f"at least {_TARGET} × one request at a time: {verdict}")
            servers.pop(_SINGLE).stop()
            if options.minutes:
                soaked = about["soak"] = soak(options, servers[_BATCHED], loads)
                load = soaked["load"]
                print(
                    f"{options.minutes:g} minutes of {_SOAKING} clients: {load['requests']:,} "
                    f"requests, {sum(load['errors'].values())} errors, p99 "
                    f"{load['p99_ms']:,.0f} ms, longest {load['longest_ms']:,.0f} ms"
                )
                sizes = [size / 1e6 for _, size in soaked["resident"]]
                grown = soaked["mb_per_minute"], soaked["mb_per_minute_second_half"]
                told = ["unknown" if one is None else f"{one:+.2f}" for one in grown]
                print(
                    f"memory {sizes[0]:,.0f} MB at first, {sizes[-1]:,.0f} MB at last; "
                    f"{told[0]} MB a minute, in the second half {told[1]}"
                )
                if options.plot is not None and grown[1] is not None:
                    plot(soaked, options.plot)
        finally:
            for server in servers.values():
                server.stop()
    if options.output is not None:
        options.output.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
