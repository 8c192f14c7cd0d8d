#!/usr/bin/env -S python3 -ISB
"""A docker engine made of files: plays docker, systemctl and journalctl, by the name it is called with.

$FAKE_ENGINE is its folder. ``daemon.json`` is read when it is told to reload or restart, ``running.json`` is what it
runs with, ``containers.json`` what runs in it. It follows the real one (measured on 20.10, 26.1 and 28.5) in this: a
reload looks at reloadable keys that are in the file only, refuses a file with ``hosts``, and says so in its log only.
A file with ``log-opts`` stops it from starting; ``deaf`` lists keys that it ignores.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(os.environ["FAKE_ENGINE"])
RELOADED = ("debug", "insecure-registries", "labels", "live-restore", "registry-mirrors")
VERSION = "20.10.24"


def read(name: str) -> dict:
    path = ROOT / name
    return json.loads(path.read_text()) if path.exists() and path.read_text().strip() else {}


def write(name: str, content: dict) -> None:
    (ROOT / name).write_text(json.dumps(content))


def say(text: str) -> None:
    with open(ROOT / "journal", "a", encoding="utf-8") as file:
        file.write(f"{time.time():.6f} {text}\n")
    print(text, flush=True)


def happened(what: str) -> None:
    """Note it, and end who asked for it when the test wants an interruption here."""
    with open(ROOT / "events", "a", encoding="utf-8") as file:
        file.write(f"{what} {json.dumps(read('daemon.json'), sort_keys=True)}\n")
    if os.environ.get("FAKE_KILL") == what:
        os.kill(os.getppid(), signal.SIGKILL)


def reload() -> int:
    config = read("daemon.json")
    happened("reload")
    if "hosts" in config:
        say('level=error msg="unable to configure the Docker daemon with file: hosts: \\"fd://\\" twice"')
        return 0
    ignored = read("deaf")
    taken = {key: config[key] for key in RELOADED if key in config and key not in ignored}
    write("running.json", {**read("running.json"), **taken})
    if read("running.json").get("log-level") != "error":
        say('level=info msg="Reloaded configuration: {}"')
    return 0


def start() -> int:
    config, old, containers = read("daemon.json"), read("running.json"), read("containers.json")
    live = old.get("live-restore") and (config.get("live-restore") or "log-opts" in config)
    for one in containers.values():
        if one["pid"] and not live:
            one["pid"] = one["pid"] + 1000 if one["policy"] == "always" else 0
    write("containers.json", containers)
    if "log-opts" in config or (ROOT / "broken").exists():
        (ROOT / "up").unlink(missing_ok=True)
        write("running.json", {"live-restore": live})
        happened("restart")
        say("failed to start daemon: unknown log opt")
        return 1
    write("running.json", {key: value for key, value in config.items() if key not in read("deaf")})
    (ROOT / "up").touch()
    happened("restart")
    return 0


def systemctl(argv: list[str]) -> int:
    if argv[0] == "show":
        print("4242" if (ROOT / "up").exists() else "0")
    elif argv[0] in ("reload", "restart"):
        # systemctl keeps the daemon's words to the journal
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        rc = reload() if argv[0] == "reload" else start()
        if rc:
            print("Job for docker.service failed.", file=sys.stderr)
        return rc
    return 0


def docker(argv: list[str]) -> int:
    if not (ROOT / "up").exists():
        print("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", file=sys.stderr)
        return 1
    running, containers = read("running.json"), read("containers.json")
    if argv[0] == "version":
        print(VERSION)
    elif argv[0] == "info":
        mirrors = [f"{url}/" for url in running.get("registry-mirrors", [])]
        names = {name: {"Secure": False} for name in running.get("insecure-registries", [])}
        info = {
            "ServerVersion": VERSION,
            "Labels": running.get("labels", []),
            "Debug": running.get("debug", False),
            "LiveRestoreEnabled": bool(running.get("live-restore")),
            "LoggingDriver": running.get("log-driver", "json-file"),
            "RegistryConfig": {"Mirrors": mirrors, "IndexConfigs": names, "InsecureRegistryCIDRs": ["127.0.0.0/8"]},
        }
        print(json.dumps(info))
    elif argv[0] == "ps":
        print("\n".join(name for name, one in containers.items() if one["pid"]))
    elif argv[:2] == ["container", "inspect"]:
        told = [{"Id": name, "Name": f"/{name}", "State": {"Pid": containers[name]["pid"]}} for name in argv[2:]]
        print(json.dumps(told))
    elif argv[0] == "start":
        one = containers[argv[1]]
        if one["policy"] == "gone":
            print("no such container", file=sys.stderr)
            return 1
        one["pid"] = 5000
        write("containers.json", containers)
    return 0


def main() -> int:
    name, argv = Path(sys.argv[0]).name, sys.argv[1:]
    if name == "journalctl":
        since = next((float(word.partition("@")[2]) for word in argv if word.startswith("--since=@")), 0.0)
        lines = (ROOT / "journal").read_text().splitlines() if (ROOT / "journal").exists() else []
        print("\n".join(line.partition(" ")[2] for line in lines if float(line.partition(" ")[0]) >= since))
        return 0
    if name == "dockerd":
        return reload() if argv == ["reload"] else start()
    return systemctl(argv) if name == "systemctl" else docker(argv)


if __name__ == "__main__":
    sys.exit(main())
