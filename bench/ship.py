#!/usr/bin/env python3
"""One image to many hosts: a star (all ask the builder), the chosen spread and a chain, on links limited by tc.

Hosts are network namespaces on one bridge; each may send and receive --rate at the same time. What runs in them is
the code of image_share and image_receive with a stand-in for the engine. Printed are the bytes that leave the builder
(counted by its interface), as copies of the archive, and the time until the last host has all (the critical path).

Then what goes over the wire for a new commit's image, its libraries' layer being there already: with a registry
(counted in front of it), between hosts, and as an archive without that layer. Those images are the engine's.

Needs root, and the programs ip and tc (Debian: iproute2).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "integration")]
import conftest  # noqa: E402, F401 - makes the checkout importable
import small_images  # noqa: E402
from ansible.module_utils.llmfleet import image_chunks, image_share  # noqa: E402
from ansible.module_utils.llmfleet.chunk_fetch import Fetcher  # noqa: E402
from ansible.module_utils.llmfleet.chunk_peer import parse_peers  # noqa: E402
from ansible.module_utils.llmfleet.image_identity import Image  # noqa: E402
from ansible.module_utils.llmfleet.image_peers import spread  # noqa: E402
from ansible.module_utils.llmfleet.image_receive import Reception  # noqa: E402
from ansible.module_utils.llmfleet.image_share import Share  # noqa: E402
from helpers import docker, run_module  # noqa: E402
from registry import registry  # noqa: E402

PREFIX, BRIDGE = "lfb", "lfbench0"
DIGEST = f"sha256:{'0' * 64}"
MIB = 1 << 20
FAN_OUTS = {"star": 0, "chain": 1, "spread": 2}


class NoEngine:
    """Stands for an engine that has no image, and takes the archive as fast as it comes."""

    def missing(self, images: t.Sequence[Image]) -> list[Image]:
        return list(images)

    containerd_store = False

    def kept_layers(self, _images: t.Sequence[Image]) -> set[str]:
        return set()

    def room_for_load(self, unpacked: int) -> tuple[str, int, str]:
        return "/", unpacked, "nothing"

    def take(self, _images: t.Sequence[Image], blocks: t.Iterable[bytes]) -> None:
        for _ in blocks:
            pass


def host(directory: str, record: str, share_file: str) -> None:
    """Be a host: share, tell the urls, and with the peers that come back receive and tell how it went."""
    archive = image_chunks.from_data(json.loads(Path(record).read_text())["archive"])
    part = Share.of_file(share_file)
    if not share_file:
        part = Share.of_folder(image_share.prepare_folder(directory, archive))
    noted = part.start("", 0, 600)
    print(json.dumps(image_share.urls(noted, [directory.rpartition("/")[2]])), flush=True)
    for line in sys.stdin:
        reception = Reception(archive, directory, t.cast("t.Any", NoEngine()))
        outcome = reception.receive(Fetcher(parse_peers(json.loads(line)), reception.prepare(), 15, 2))
        print(json.dumps(outcome.peers), flush=True)
    part.stop()


@contextmanager
def network(count: int, rate: str) -> t.Iterator[list[str]]:
    """Make a bridge with ``count`` hosts on it; give their addresses."""

    def ip(*args: str) -> None:
        subprocess.run(["ip", *args], check=True)

    names = [f"{PREFIX}{number}" for number in range(count)]
    limit = ("root", "tbf", "rate", rate, "burst", "256k", "latency", "100ms")
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("link", "set", BRIDGE, "up")
        for number, name in enumerate(names):
            ip("netns", "add", name)
            ip("link", "add", f"{name}b", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"{name}b", "master", BRIDGE, "up")
            ip("-n", name, "addr", "add", f"10.213.7.{number + 1}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            # what it sends, and what it receives
            subprocess.run(["tc", "-n", name, "qdisc", "add", "dev", "eth0", *limit], check=True)
            subprocess.run(["tc", "qdisc", "add", "dev", f"{name}b", *limit], check=True)
        # a host's firewall may filter what crosses bridges, as docker's does
        accept = ["iptables", "-I", "FORWARD", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT"]
        subprocess.run(accept, check=False, capture_output=True)
        yield [f"10.213.7.{number + 1}" for number in range(count)]
    finally:
        subprocess.run([part.replace("-I", "-D") for part in accept], check=False, capture_output=True)
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)


def sent(number: int) -> int:
    """Return the bytes that a host has sent: what arrived at the other end of its cable."""
    return int(Path(f"/sys/class/net/{PREFIX}{number}b/statistics/rx_bytes").read_text())


def ship(folder: Path, addresses: list[str], path: str, fan_out: int) -> tuple[float, int, list[float]]:
    """Bring the archive to all hosts; return the seconds of the last one, the bytes the builder sent, all seconds."""
    processes = []
    try:
        for number, address in enumerate(addresses):
            argv = [sys.executable, __file__, "--host", str(folder / address), f"{path}.json", "" if number else path]
            enter = ["ip", "netns", "exec", f"{PREFIX}{number}"]
            processes.append(subprocess.Popen([*enter, *argv], stdin=-1, stdout=-1, text=True))
        urls = [json.loads(read(process)) for process in processes]
        names = [str(number) for number in range(len(addresses))]
        peers = spread("0", names[1:], fan_out or len(names))
        before, begun = sent(0), time.monotonic()
        for number, process in enumerate(processes[1:], start=1):
            process.stdin.write(json.dumps([urls[int(name)] for name in peers[str(number)]]) + "\n")
            process.stdin.flush()
        ends: dict[int, float] = {}

        def wait(number: int) -> None:
            json.loads(read(processes[number]))
            ends[number] = time.monotonic() - begun

        waiting = [threading.Thread(target=wait, args=(number,)) for number in range(1, len(processes))]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join()
        assert len(ends) == len(processes) - 1, "a host did not receive the archive"
        return max(ends.values()), sent(0) - before, sorted(ends.values())
    finally:
        for process in processes:
            with suppress(OSError):
                process.stdin.close()
            process.wait()
            process.stdout.close()


def read(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout else ""
    assert line, "a host ended early"
    return line


def sample(folder: Path, mib: int, chunk: int) -> str:
    """Write an archive of ``mib`` MiB that does not compress, as image_archive would note it."""
    path = folder / "archive.tar.gz"
    chunks = []
    with path.open("wb") as file:
        for _ in range(mib * MIB // chunk):
            part = os.urandom(chunk)
            file.write(part)
            chunks.append(image_chunks.Chunk(len(part), hashlib.sha256(part).hexdigest(), len(part)))
    archive = image_chunks.Archive(str(path), "0" * 64, tuple(chunks), (Image("bench:1", DIGEST, (DIGEST,)),))
    notes = {"mtime_ns": path.stat().st_mtime_ns, "archive": archive.as_data()}
    Path(f"{path}.json").write_text(json.dumps(notes))
    return str(path)


def compare(hosts: int, rate: str, mib: int, chunk_kib: int, runs: int) -> None:
    """Print a row for each way."""
    print(f"{mib} MiB in chunks of {chunk_kib} KiB to {hosts} hosts, each link {rate} in each direction")
    print("way     copies sent by the builder   last host (critical path)   first host")
    with tempfile.TemporaryDirectory() as name, network(hosts + 1, rate) as addresses:
        path = sample(Path(name), mib, chunk_kib << 10)
        for way, fan_out in FAN_OUTS.items():
            rows = []
            for _ in range(runs):
                rows.append(ship(Path(name), addresses, path, fan_out))
                for address in addresses[1:]:
                    shutil.rmtree(Path(name) / address, ignore_errors=True)
            seconds, bytes_sent, ends = (
                statistics.median(column) for column in zip(*[(r[0], r[1], r[2][0]) for r in rows])
            )
            print(f"{way:7} {bytes_sent / (mib * MIB):10.2f} {seconds:35.1f} s {ends:22.1f} s")


class Counter:
    """A TCP proxy that counts what the other side answers."""

    def __init__(self, target: str) -> None:
        host_name, _, port = target.rpartition(":")
        self._target = (host_name, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.name = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.count = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                for source, sink, counted in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._pass, args=(source, sink, counted), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while True:
                data = source.recv(1 << 16)
                if not data:
                    break
                self.count += len(data) if counted else 0
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def new_commit(library_mib: int, program_mib: int) -> None:
    """Print what a host that has the last commit's image gets for the new one."""
    old, new = "llmfleet-bench/ship:old", "llmfleet-bench/ship:new"
    libraries = small_images.layer(1, library_mib * MIB)
    small_images.load(old, [libraries, small_images.layer(2, program_mib * MIB)])
    small_images.load(new, [libraries, small_images.layer(3, program_mib * MIB)])

    def run(module: str, **arguments: t.Any) -> dict[str, t.Any]:
        result = run_module(module, arguments)
        assert not result.get("failed"), result["msg"]
        return result

    print(f"a new commit's image ({library_mib} MiB of libraries as before, {program_mib} MiB of new programs)")
    with tempfile.TemporaryDirectory() as name:
        whole = run("image_archive", path=f"{name}/whole.tar.gz", images=[new], chunk_mib=4)
        layer = whole["images"][0]["layers"][0]
        thin = run("image_archive", path=f"{name}/thin.tar.gz", images=[new], without_layers=[layer])
        urls = run("image_share", path=whole["path"], bind="127.0.0.1")["urls"]
        try:
            with registry(Path(name)) as store:
                proxy = Counter(store)
                pushed = run("image_registry", state="pushed", image=new, registry=proxy.name)
                docker("rmi", new)
                proxy.count = 0
                run("image_registry", state="pulled", image=new, registry=proxy.name, id=pushed["id"])
                pulled = proxy.count
                proxy.close()
            docker("rmi", new)
            received = run("image_receive", archive=whole, peers=[urls], directory=f"{name}/in")
        finally:
            run("image_share", state="stopped", path=whole["path"])
            for image in (old, new):
                subprocess.run(["docker", "rmi", image], capture_output=True, check=False)
    rows = (
        ("the whole archive, a host that has nothing", whole["bytes"]),
        ("registry", pulled),
        ("between hosts (image_receive)", received["bytes"]),
        ("archive without the layer", thin["bytes"]),
    )
    for what, count in rows:
        print(f"  {what:45} {count / MIB:8.1f} MiB  {100 * count / whole['bytes']:5.1f} %")


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--rate", default="100mbit")
    parser.add_argument("--mib", type=int, default=48, help="size of the archive")
    parser.add_argument("--chunk-kib", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--host", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.host:
        host(*options.host)
        return
    lacking = [program for program in ("ip", "tc") if not shutil.which(program)]
    if lacking or os.geteuid() != 0:
        sys.exit(f"bench: needs root and {' and '.join(lacking) or 'nothing more'} (package iproute2)")
    compare(options.hosts, options.rate, options.mib, options.chunk_kib, options.runs)
    new_commit(40, 8)


if __name__ == "__main__":
    main()
