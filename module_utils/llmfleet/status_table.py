"""The table of all services of a fleet, for people and as data for programs. Pure."""

from __future__ import annotations

import json
import typing as t

from ansible.module_utils.llmfleet import status_rows
from ansible.module_utils.llmfleet.text_table import aligned, without_empty

Data = dict[str, t.Any]

_SHORT = 12
"""Digits of a digest that people compare."""


def table(hosts: t.Sequence[Data], fronts: t.Mapping[str, t.Any] | None = None) -> str:
    """Return the table of ``hosts`` (of status_rows), and below it what is wrong and where else callers may go.

    ``fronts``: title -> results of roles that publish services under other addresses, each with `urls`.
    """
    streams = sorted({load["streams"] for host in hosts for row in host["services"] for load in row.get("loads") or ()})
    several = [number for number in streams if number > 1]
    head = ["HOST", "SERVICE", "STATE", "VERIFIED", "FIRST TOKEN", "TOKENS/S"]
    head += [*(f"{number} STREAMS" for number in several), "MEMORY", "UP", "IMAGE", "MODEL", "ADDRESS"]
    rows = [head]
    for host in hosts:
        for row in host["services"]:
            rows.append([host["host"], *_cells(row, several)])
        for row in host["helpers"]:
            blank = [""] * (len(several) + 3)
            addresses = ", ".join(row.get("addresses") or ())
            rows.append([host["host"], row["name"], row["state"], *blank, _memory(row), _up(row), "", "", addresses])
        if host["problem"] or not (host["services"] or host["helpers"]):
            rows.append([host["host"], "", _one_word(host), *[""] * (len(head) - 3)])
    text = aligned(without_empty(rows)) if len(rows) > 1 else "there are no hosts"
    return "\n".join([text, *_notes(hosts), *_fronts(fronts or {})])


def _one_word(host: Data) -> str:
    return host["problem"].partition(":")[0] or "no services"


def _cells(row: Data, several: t.Sequence[int]) -> list[str]:
    """Return the cells of one service, without its host."""
    verified = row.get("verification") or {}
    loads = {load["streams"]: load for load in row.get("loads") or ()}
    single = loads.get(1) or {}
    first = single.get("first_token_p50") or verified.get("first_token_seconds")
    speed = single.get("tokens_per_second") or verified.get("tokens_per_second")
    level, seconds = next(reversed(list((verified.get("levels") or {}).items())), ("", 0.0))
    urls = row.get("urls") or {}
    return [
        row["name"] if row["in_inventory"] else f"{row['name']} (not in the inventory)",
        row["verdict"] if row["verdict"] != status_rows.NOT_READY else f"not ready ({row['state']})",
        f"{level} {seconds:.2f} s" if level else "",
        f"{first:.3f} s" if first else "",
        f"{speed:.1f}" if speed else "",
        *(_loaded(loads.get(number)) for number in several),
        _memory(row),
        _up(row),
        _digest(row.get("image_id") or ""),
        _digest((row.get("model") or {}).get("digest") or ""),
        urls.get("lan") or urls.get("host") or "",
    ]


def _loaded(load: Data | None) -> str:
    if not load or load["total_tokens_per_second"] is None:
        return ""
    return f"{load['total_tokens_per_second']:.1f} tokens/s, p95 {load['first_token_p95']:.3f} s"


def _memory(row: Data) -> str:
    sizes = [(row.get("memory_bytes"), ""), (row.get("gpu_memory_bytes"), "GPU ")]
    return ", ".join(f"{title}{_size(size)}" for size, title in sizes if size)


def _size(size: float) -> str:
    mib = size / (1 << 20)
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def _up(row: Data) -> str:
    """Return how long it has been running, in two units at most, and how often it had ended by itself."""
    seconds = row.get("uptime_seconds")
    if seconds is None:
        return ""
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count or parts:
            parts.append(f"{count} {unit}")
    said = " ".join(parts[:2]) or "0 s"
    again = row.get("restarts") or 0
    return f"{said}, {again} restart{'s' if again > 1 else ''}" if again else said


def _digest(digest: str) -> str:
    """Return the beginning of a digest; of `sha256:…`, the usual kind, without the word."""
    kind, _, digits = digest.rpartition(":")
    return f"{kind} {digits[:_SHORT]}" if kind not in ("", "sha256") else digits[:_SHORT]


def _notes(hosts: t.Sequence[Data]) -> list[str]:
    said = []
    for host in hosts:
        said += [f"{host['host']}: {problem}" for problem in status_rows.wrong(host)]
        said += [
            f"{host['host']}: service {row['name']}: {row['problem']}; {row['fix']}".rstrip("; ")
            for row in host["services"]
            if row["problem"] and row["verdict"] not in status_rows.WRONG
        ]
        if host["wsl"] and any((row.get("urls") or {}).get("lan") for row in host["services"]):
            said.append(
                f"{host['host']}: its LAN addresses are those of the WSL machine; Windows reaches it as localhost"
            )
    return said


def _fronts(fronts: t.Mapping[str, t.Any]) -> list[str]:
    urls = {title: [url for result in results for url in result.get("urls") or ()] for title, results in fronts.items()}
    return [f"{title}: {', '.join(dict.fromkeys(found))}" for title, found in urls.items() if found]


def document(hosts: t.Sequence[Data], made_at: str, fronts: t.Mapping[str, t.Any] | None = None) -> str:
    """Return the same as JSON, whole; ``made_at`` is the moment it was seen."""
    wrong = {host["host"]: status_rows.wrong(host) for host in hosts}
    data = {
        "made_at": made_at,
        "ok": not any(wrong.values()),
        "hosts": [{**host, "wrong": wrong[host["host"]]} for host in hosts],
        "fronts": {title: list(results) for title, results in (fronts or {}).items()},
    }
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
