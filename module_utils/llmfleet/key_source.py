"""Downloading a signing key: from the first URL that serves a right one, with a limit on time and size. Edge code."""

from __future__ import annotations

import ssl
import typing as t
import urllib.parse
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.image_source import public_url_in
from ansible.module_utils.llmfleet.mirror_edge import OverdueError, Visit, all_at_once, tls_context
from ansible.module_utils.llmfleet.mirror_index import Wrong
from ansible.module_utils.llmfleet.openpgp import BadKey, KeyFile, objection, read

LIMIT = 1 << 20
"""Bytes that a key file may have; those of the repositories in use have some thousand."""


@dataclass(frozen=True)
class Wanted:
    """What the key must be and where it may come from."""

    urls: list[str]
    fingerprints: list[str]
    timeout: int
    tls: ssl.SSLContext


@dataclass(frozen=True)
class Found:
    """The key that was found, where, and what was refused before it."""

    keys: KeyFile | None = None
    url: str = ""
    refused: list[dict[str, t.Any]] = field(default_factory=list)


def check_url(url: str) -> str:
    """Return ``url`` when it is one that can be asked; raise BadInput otherwise, without showing a password."""
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        usable = False
    if not usable:
        raise BadInput(f"{public_url_in(url)!r} cannot be one of `urls`; give an http or https URL without a user name")
    return url


def tls(ca_bundle: str) -> ssl.SSLContext:
    """Return the certificates to trust, the host's own with ""; raise BadInput when the file cannot be used."""
    try:
        return tls_context(ca_bundle)
    except ssl.SSLError:
        raise BadInput(f"`ca_bundle` {ca_bundle} has no certificate in PEM form; give a file that has") from None
    except OSError as error:
        raise BadInput(f"`ca_bundle` {ca_bundle}: {error.strerror}; give a PEM file of this host") from None


def search(want: Wanted) -> Found:
    """Return the first right key served, and what was refused on the way."""
    refused: list[dict[str, t.Any]] = []
    for url in want.urls:
        prints: list[str] = []
        try:
            keys = read(fetch(url, want.timeout, want.tls))
            prints = keys.fingerprints
            why = objection(prints, want.fingerprints)
            if not why:
                return Found(keys, url, refused)
        except BadKey as error:
            why = f"serves {error}"
        except LlmfleetError as error:
            why = str(error)
        refused.append({"url": url, "why": why, "fingerprints": prints})
    return Found(refused=refused)


def fetch(url: str, seconds: int, context: ssl.SSLContext) -> bytes:
    """Return what ``url`` serves; raise LlmfleetError with the reason when it serves nothing usable in time."""
    try:
        answer = all_at_once([lambda: Visit(context, seconds).get(url, LIMIT + 1)], seconds)[0]
    except OverdueError:
        answer = None
    except Wrong as error:
        raise LlmfleetError(str(error)) from None
    if answer is None:
        raise LlmfleetError(f"did not serve the key within {seconds} s")
    if answer.status != 200:
        raise LlmfleetError(f"answers HTTP {answer.status}")
    if len(answer.body) > LIMIT:
        raise LlmfleetError(f"serves more than {LIMIT} bytes, and no key is that large")
    return answer.body
