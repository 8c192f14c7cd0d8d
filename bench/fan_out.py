#!/usr/bin/env python3
"""One model to many hosts: a star (all ask the first), the chosen spread and a chain, on links limited by tc.

Hosts are network namespaces on one bridge, as in ship.py; each may send and receive --rate at the same time. What runs
in them is the code of model_share and model_fetch: chunks into the files they belong to, every chunk and every file
verified, published at the end. Printed are the bytes that leave the first host (counted by its interface), as copies
of the model, the time until the last host has it, and that time as a share of the star's.

Needs root, and the programs ip and tc (Debian: iproute2).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import conftest  # noqa: F401 - makes the checkout importable
from ansible.module_utils.llmfleet import image_share
from ansible.module_utils.llmfleet.hub import model_chunks, store, swarm
from ansible.module_utils.llmfleet.hub.manifest import GGUF, Manifest, RepoFile, manifest_from
from ansible.module_utils.llmfleet.hub.place import Place
from ansible.module_utils.llmfleet.image_peers import spread
from model_share import share_of
from ship import FAN_OUTS, MIB, PREFIX, network, read, sent

REPO, COMMIT, NAME = "bench/model", "0" * 40, "model-Q4_K_M.gguf"


def host(address: str, dest: str, description: str) -> None:
    """Be a host: share, tell the urls, and with the peers that come back receive, publish and tell how it went."""
    data = json.loads(Path(description).read_text())
    manifest = manifest_from(data["manifest"])
    place = Place(dest, REPO)
    model_chunks.save(place, model_chunks.record_from(data["archive"], manifest))
    share = share_of(place, manifest)
    print(json.dumps(image_share.urls(share.start("", 0, 600), [address])), flush=True)
    for line in sys.stdin:
        stats = swarm.receive(manifest, data["archive"], json.loads(line), place)
        store.publish(place, manifest)
        print(json.dumps(stats.peers), flush=True)
    share.stop()


def sample(folder: Path, mib: int, chunk_mib: int) -> str:
    """Write a model on the first host and what describes it; return the path of that."""
    place = Place(str(folder / "0"), REPO)
    path = Path(place.snapshot(COMMIT)) / NAME
    path.parent.mkdir(parents=True)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(mib):
            part = os.urandom(MIB)
            digest.update(part)
            file.write(part)
    manifest = Manifest(REPO, COMMIT, GGUF, (RepoFile(NAME, mib * MIB, sha256=digest.hexdigest()),), entry=NAME)
    record = model_chunks.make(manifest, place.snapshot(COMMIT), chunk_mib * MIB)
    description = folder / "model.json"
    description.write_text(json.dumps({"manifest": manifest.as_data(), "archive": record.as_data()}))
    return str(description)


def fan_out(folder: Path, addresses: t.Sequence[str], description: str, width: int) -> tuple[float, int]:
    """Bring the model to all hosts; return the seconds of the last one, and the bytes that the first one sent."""
    processes: list[subprocess.Popen[str]] = []
    try:
        for number, address in enumerate(addresses):
            argv = [sys.executable, __file__, "--host", address, str(folder / str(number)), description]
            enter = ["ip", "netns", "exec", f"{PREFIX}{number}"]
            processes.append(subprocess.Popen([*enter, *argv], stdin=-1, stdout=-1, text=True))
        urls = [json.loads(read(process)) for process in processes]
        names = [str(number) for number in range(len(addresses))]
        peers = spread("0", names[1:], width or len(names))
        before, begun, ends = sent(0), time.monotonic(), []
        for number, process in enumerate(processes[1:], start=1):
            assert process.stdin
            process.stdin.write(json.dumps([urls[int(name)] for name in peers[str(number)]]) + "\n")
            process.stdin.flush()

        def wait(process: subprocess.Popen[str]) -> None:
            json.loads(read(process))
            ends.append(time.monotonic() - begun)

        waiting = [threading.Thread(target=wait, args=(process,)) for process in processes[1:]]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join()
        assert len(ends) == len(processes) - 1, "a host did not receive the model"
        return max(ends), sent(0) - before
    finally:
        for process in processes:
            with suppress(OSError):
                process.stdin and process.stdin.close()
            process.wait()
            process.stdout and process.stdout.close()


def compare(hosts: int, rate: str, mib: int, chunk_mib: int, runs: int) -> None:
    """Print a row for each way."""
    print(f"{mib} MiB in chunks of {chunk_mib} MiB to {hosts} hosts, each link {rate} in each direction")
    print("way     copies sent by the first host   last host has it   of the star's time")
    with tempfile.TemporaryDirectory() as name, network(hosts + 1, rate) as addresses:
        description = sample(Path(name), mib, chunk_mib)
        star = 0.0
        for way, width in FAN_OUTS.items():
            rows = []
            for _ in range(runs):
                rows.append(fan_out(Path(name), addresses, description, width))
                for number in range(1, len(addresses)):
                    shutil.rmtree(Path(name) / str(number))
            seconds, count = (statistics.median(column) for column in zip(*rows))
            star = star or seconds
            print(f"{way:7} {count / (mib * MIB):29.2f} {seconds:16.1f} s {100 * seconds / star:18.0f} %", flush=True)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--rate", default="200mbit")
    parser.add_argument("--mib", type=int, default=512, help="size of the model")
    parser.add_argument("--chunk-mib", type=int, default=model_chunks.SMALLEST // MIB)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--host", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.host:
        host(*options.host)
        return
    lacking = [program for program in ("ip", "tc") if not shutil.which(program)]
    if lacking or os.geteuid() != 0:
        sys.exit(f"bench: needs root and {' and '.join(lacking) or 'nothing more'} (package iproute2)")
    compare(options.hosts, options.rate, options.mib, options.chunk_mib, options.runs)


if __name__ == "__main__":
    main()
