"""Which mirrors a role considers, and which of them it uses once mirror_probe has measured them. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.errors import BadInput

Data = dict[str, t.Any]


def considered(mirrors: t.Sequence[Data], one: str, option: str) -> list[Data]:
    """Return the mirrors to measure: all, or the ``one`` that ``option`` names. Raises BadInput."""
    chosen = [mirror for mirror in mirrors if not one or one in (mirror["name"], mirror["url"])]
    if one and not chosen and "://" not in one:
        names = ", ".join(mirror["name"] for mirror in mirrors)
        raise BadInput(f"{option} `{one}` is none of {names}; use one, or give a URL")
    return [{**mirror, "url": mirror["url"].rstrip("/")} for mirror in chosen or [{"name": one, "url": one}]]


def candidates(chosen: t.Sequence[Data], path: str) -> list[Data]:
    """Return what mirror_probe is to measure: the mirrors with ``path`` below their roots."""
    return [{"name": mirror["name"], "url": f"{mirror['url']}/{path}"} for mirror in chosen]


def usable(chosen: t.Sequence[Data], path: str, probe: Data, what: str) -> tuple[list[Data], Data, str]:
    """Return (the mirrors that can be used, best first, what was measured of the best, its speed in words).

    Told apart by their URLs, since names may be given twice. Raises BadInput when there is none.
    """
    by_place = {f"{mirror['url']}/{path}": mirror for mirror in chosen}
    ranked = [found for found in probe["ranked"] if found["url"] in by_place]
    if not ranked:
        said = "; ".join(f"{bad['name']}: {bad['why']}" for bad in probe["rejected"]) or "none is given"
        raise BadInput(f"no mirror of {what} can be used ({said})")
    speed = ranked[0].get("bytes_per_second")
    words = f"{speed / 1e6:.1f} MB/s, " if speed else ""
    found = [by_place[one["url"]] for one in ranked]
    return found, ranked[0], f"{words}best of {len(found)} usable of {len(chosen)} mirrors"
