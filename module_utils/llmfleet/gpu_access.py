"""How a container gets the GPUs of its host: the ways there are, and what each tells docker. Pure."""

from __future__ import annotations

import csv
import io
import typing as t

HOOK, CDI, RUNTIME = "nvidia", "nvidia_cdi", "nvidia_runtime"
NVIDIA_WAYS = (HOOK, CDI, RUNTIME)
PLANNED = (HOOK, CDI, "amd", "intel", "moore_threads")
"""What a plan may say. Which of NVIDIA's ways it becomes, only the running engine can tell (gpu_way)."""

WAYS = (*NVIDIA_WAYS, "amd", "intel", "moore_threads")
"""The NVIDIA toolkit's hook, its device list (CDI) or its container runtime; device nodes; or a variable for a runtime
that is the engine's default one. Those of vendors other than NVIDIA follow their documentation and were not tried."""

ACCESS: t.Mapping[str, str] = {"cdi": CDI, "gpus": HOOK, "runtime": RUNTIME}
"""What a user may ask for instead of `auto` -> the way."""

CDI_KIND = "nvidia.com/gpu"


def docker_words(way: str, ids: t.Sequence[str] = ()) -> list[str]:
    """Return the words of ``docker create`` that give a container GPUs by ``way``.

    ``ids``: which ones, all where empty: UUIDs of NVIDIA's GPUs, device nodes of AMD's and Intel's, numbers of others.
    """
    listed = ",".join(ids) or "all"
    if way == HOOK:
        return ["--gpus", _field(f"device={listed}") if ids else listed]
    if way == CDI:
        return [word for name in cdi_names(ids) for word in ("--device", name)]
    if way == RUNTIME:
        return ["--runtime", "nvidia", "--env", f"NVIDIA_VISIBLE_DEVICES={listed}"]
    if way == "moore_threads":
        return ["--env", f"MTHREADS_VISIBLE_DEVICES={listed}"]
    if way in ("amd", "intel"):
        nodes = [*(["/dev/kfd"] if way == "amd" else []), *(ids or ["/dev/dri"])]
        return [word for node in nodes for word in ("--device", node)]
    raise ValueError(f"{way!r} is no way to a GPU; there are {', '.join(WAYS)}")


def compose_keys(way: str, ids: t.Sequence[str] = ()) -> dict[str, t.Any]:
    """Return the keys of a service in a Compose file that say the same as ``docker_words``."""
    said = docker_words(way, ids)
    pairs = list(zip(said[::2], said[1::2]))
    if way in (HOOK, CDI):
        which: dict[str, t.Any] = {"device_ids": list(ids)} if ids else {"count": "all"}
        # under `devices` Compose 2.26 would take the name in a list for the path of a node
        request = {"driver": "cdi", "device_ids": cdi_names(ids)} if way == CDI else {"driver": "nvidia", **which}
        return {"deploy": {"resources": {"reservations": {"devices": [{**request, "capabilities": ["gpu"]}]}}}}
    found: dict[str, t.Any] = {
        "runtime": "".join(value for flag, value in pairs if flag == "--runtime"),
        "devices": [f"{value}:{value}" for flag, value in pairs if flag == "--device"],
        "environment": dict(value.split("=", 1) for flag, value in pairs if flag == "--env"),
    }
    return {key: value for key, value in found.items() if value}


def cdi_names(ids: t.Sequence[str] = ()) -> list[str]:
    """Return the names under which device lists have the GPUs ``ids``."""
    return [f"{CDI_KIND}={name}" for name in ids or ("all",)]


def _field(text: str) -> str:
    """Return ``text`` as one field of what docker's client reads as CSV."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([text])
    return line.getvalue()
