#!/usr/bin/env python3
"""The host stage on hosts with systemd: its no-change run against plain tasks, and how often it restarts Docker.

Two hosts get the same Docker CE, pinned and held, with the same daemon.json: one from playbooks/host.yml, one from the
plain playbook a user would write (host_baseline.yml). Then both playbooks run in turn and every run must report
changed=0. Hosts and mirror are made as those of the Molecule scenarios, under names of their own.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import typing as t

import yaml
from no_change import ROOT, play

FIXTURES, SCENARIOS = ROOT / "tests" / "fixtures", ROOT / "molecule"
sys.path[:0] = [str(FIXTURES), str(ROOT / "tests" / "integration")]
from build_host_image import OWN_SUITE  # noqa: E402 - needs the path above
from helpers import docker  # noqa: E402

LABEL = "llmfleet.test=bench"
MIRRORS, OURS, PLAIN = "llmfleet-bench-mirrors", "llmfleet-bench-ours", "llmfleet-bench-plain"
SUITE, HOST_IMAGE, MIRROR_URL = "bookworm", "llmfleet-test/systemd:bookworm", "http://mirrors.test/good/docker-ce"
PACKAGES = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin")
START = ("run", "--detach", f"--label={LABEL}")


def remove() -> None:
    """Remove hosts and mirror, also those of an interrupted run, with the volumes that their engines write to."""
    for container in docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}").split():
        docker("rm", "--force", "--volumes", container)


def create() -> None:
    """Start the mirror and both hosts, and wait until systemd has started everything."""
    for builder in (["build_host_image.py", OWN_SUITE, SUITE], ["build_mirrors.py"]):
        subprocess.run([sys.executable, *builder], cwd=FIXTURES, stdout=subprocess.DEVNULL, check=True)
    mounts = (f"--volume={ROOT}/.cache/fixtures:/srv:ro", f"--volume={FIXTURES}/mirror_server.py:/mirror_server.py:ro")
    server = (f"llmfleet-test/tools:{OWN_SUITE}", "python3", "/mirror_server.py", "/srv/mirrors")
    docker(*START, f"--name={MIRRORS}", *mounts, *server)
    address = docker("inspect", "--format", "{{.NetworkSettings.Networks.bridge.IPAddress}}", MIRRORS).strip()
    # what makes a container a host is said there only
    plays = yaml.safe_load((SCENARIOS / "default" / "create.yml").read_text())
    task = next(task for play in plays for task in play.get("tasks", []) if task["name"] == "Start the host")
    common = [option for option in task["vars"]["options"] if "{{" not in option and "--label" not in option]
    for host in (OURS, PLAIN):
        docker(*START, *common, f"--name={host}", f"--add-host=mirrors.test:{address}", HOST_IMAGE)
        # at first there is no bus to ask
        asked = "for _ in $(seq 100); do systemctl is-system-running --wait && exit; sleep 0.1; done; exit 1"
        docker("exec", host, "sh", "-c", asked)


def inventory() -> dict[str, t.Any]:
    """Return an inventory that reaches the hosts as the Molecule scenarios reach theirs."""
    given = yaml.safe_load((SCENARIOS / "inventory" / "hosts.yml").read_text())["test_hosts"]["vars"]
    fingerprints = json.loads((ROOT / ".cache" / "fixtures" / "mirrors" / "fingerprints.json").read_text())
    ours = {
        "docker_engine_version": "26.1",
        "docker_engine_source": "mirror",
        "docker_engine_mirrors": [{"name": "good", "url": MIRROR_URL}],
        "docker_engine_key_fingerprints": {"apt": fingerprints["docker_apt"], "rpm": fingerprints["docker_rpm"]},
        "docker_engine_registry_mirrors": ["http://registry.test:5000"],
        "docker_engine_insecure_registries": ["registry.test:5000"],
        "docker_engine_log_options": {"max-size": "50m", "max-file": "3"},
        "docker_engine_daemon_options": {"live-restore": True},
    }
    plain = {"baseline_repository": f"{MIRROR_URL}/linux/debian"}
    groups = {"llm_hosts": {"hosts": {OURS: ours}}, "plain": {"hosts": {PLAIN: plain}}}
    return {"all": {"children": groups, "vars": {key: given[key] for key in given if key.startswith("ansible_")}}}


def wanted() -> str:
    """Return the variables of the plain playbook: the state that ours brought its host to."""
    versions = docker("exec", OURS, "dpkg-query", "--show", *PACKAGES).splitlines()
    daemon = json.loads(docker("exec", OURS, "cat", "/etc/docker/daemon.json"))
    return json.dumps({"baseline_packages": dict(map(str.split, versions)), "baseline_daemon": daemon})


def starts() -> int:
    """Return how often systemd has started the engine of our host."""
    journal = docker("exec", OURS, "journalctl", "--unit=docker", "--output=cat", "--no-pager")
    return journal.count("Started docker.service")


def measure(runs: int, hosts: str) -> tuple[dict[str, list[float]], int, int]:
    """Return the seconds of all no-change runs, and the restarts from bare and in the no-change runs."""
    ours = ["playbooks/host.yml", "-i", hosts]
    play(*ours)
    first = starts()
    assert first, "the journal knows of no start of docker.service"
    plain = ["bench/host_baseline.yml", "-i", hosts, "-e", wanted()]
    play(*plain)
    times: dict[str, list[float]] = {"plain": [], "llmfleet": []}
    for _ in range(runs):
        for name, arguments in (("plain", plain), ("llmfleet", ours)):
            wall, changed = play(*arguments)
            assert not changed, f"{name} changed {changed} things in a run that should change nothing"
            times[name].append(wall)
    return times, first - 1, starts() - first


def main() -> None:
    """Measure, print medians, their ratio and the restarts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    remove()
    try:
        create()
        with tempfile.NamedTemporaryFile("w", suffix=".json") as hosts:
            json.dump(inventory(), hosts)
            hosts.flush()
            times, bare, again = measure(runs, hosts.name)
    finally:
        remove()
    ours, plain = (statistics.median(times[name]) for name in ("llmfleet", "plain"))
    print(f"no change, median of {runs}: {ours:.2f} s, plain {plain:.2f} s, ratio {ours / plain:.2f} (goal <= 0.50)")
    print(f"docker restarts: {bare} from bare (goal <= 1), {again} in {runs} no-change runs (goal 0)")


if __name__ == "__main__":
    main()
