"""A host that may have chunks: where it is, and what is known of it so far."""

from __future__ import annotations

import re
import threading
import time
import typing as t
import urllib.parse
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.errors import BadInput

_URL = re.compile(r"http://(\[[0-9a-fA-F:.]+\]|[\w.-]+):\d{1,5}/[A-Za-z0-9_-]{16,64}")


@dataclass
class Peer:
    """A host that may have chunks, by the URLs it has told.

    ``got``: bytes it gave; ``said``: what went wrong last; ``strikes``: wrong chunks; ``rests_until``: until when
    others are asked first; ``has``: bytes that it had itself when it last told, ``grew``: when they had become more.
    """

    urls: tuple[str, ...]
    got: int = 0
    said: str = ""
    strikes: int = 0
    rests_until: float = 0.0
    has: int = -1
    grew: float = 0.0
    good_url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        """Return what it is called in messages: without the token."""
        return urllib.parse.urlsplit(self.good_url or self.urls[0]).netloc

    def moves(self, has: int, patience: float) -> bool:
        """Whether it got something itself in the last ``patience`` seconds; ``has``: the bytes it has now."""
        with self.lock:
            now = time.monotonic()
            if has > self.has:
                self.has, self.grew = has, now
            return now - self.grew < patience


def parse_peers(rows: t.Any) -> list[Peer]:
    """Return peers from lists of URLs; raise BadInput for what is none."""
    peers = []
    for row in rows:
        addresses = [row] if isinstance(row, str) else list(row)
        for url in addresses:
            if not _URL.fullmatch(str(url)):
                # behind the host there may be a token
                shown = re.sub(r"(?s)(//[^/]*/).*", r"\1...", str(url))[:60]
                raise BadInput(f"{shown!r} is no URL of a share; give `urls` as the share returned them")
        if addresses:
            peers.append(Peer(tuple(map(str, addresses))))
    if not peers:
        raise BadInput("`peers` names nobody to fetch from; give the `urls` that shares returned on other hosts")
    return peers
