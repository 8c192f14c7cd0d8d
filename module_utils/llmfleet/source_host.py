"""The host as a place to fetch sources from: its certificates, its package index, its git. Edge code."""

from __future__ import annotations

import os
import socket
import ssl
import sys
import typing as t
import urllib.request
from pathlib import Path

from ansible.module_utils.llmfleet import image_source as src
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.host_edge import find_program, read_text, search_path
from ansible.module_utils.llmfleet.pip_places import PipPlaces, pip_places
from ansible.module_utils.llmfleet.source_fetch import Fetcher
from ansible.module_utils.llmfleet.timed_run import timed_run

CA_PLACES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
TOO_LATE = 124
"""Exit status for a command that was given up, as timeout(1) has it."""


def ca_bundle(given: str) -> str:
    """Return the file of certificates to trust: ``given``, else the host's own, "" where it has none."""
    if given and not os.path.isfile(given):
        raise BadInput(f"ca_bundle {given} is not a file on this host; give the path of a PEM bundle.")
    places = (given, os.environ.get("SSL_CERT_FILE", ""), *CA_PLACES)
    return next((place for place in places if place and os.path.isfile(place)), "")


def https_opener(bundle: str) -> t.Callable[..., t.Any]:
    """Return what opens URLs (proxies as in the environment) and trusts ``bundle``, the default places with ""."""
    try:
        context = ssl.create_default_context(cafile=bundle or None)
    except (ssl.SSLError, OSError) as error:
        raise BadInput(
            f"ca_bundle {bundle} cannot be used ({error}); give a readable file of PEM certificates."
        ) from error
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context)).open


def pip_files() -> list[str]:
    """Return the texts of pip's configuration files, weakest first, as pip reads them."""
    return [read_text(os.path.expanduser(file)) for file in src.PIP_CONFIG_FILES]


def package_places(option: str, fallback: str) -> PipPlaces:
    """Return where pip would look for packages on this host."""
    return pip_places(pip_files(), os.environ, package_index(option, fallback))


def package_index(option: str, fallback: str) -> str:
    """Return the package index: asked for, else what this host's pip uses, else the controller's."""
    configured = src.index_from_config(pip_files())
    found = src.choose_index(option, os.environ, configured, "", "")
    if found:
        return found
    pythons = dict.fromkeys(filter(None, (find_program("python3"), "/usr/bin/python3", sys.executable)))
    answers = (timed_run([python, "-c", src.ASK_PIP], 20) for python in pythons)
    builtin = next((answer.out.strip() for answer in answers if answer.rc == 0), "")
    return src.choose_index("", {}, "", builtin, fallback)


def limited(seconds: float) -> t.Callable[..., tuple[int, str, str]]:
    """Return a command runner (signature of run_command) that gives a command up after ``seconds``."""

    def run(argv: t.Sequence[str], environ_update: t.Mapping[str, str] | None = None) -> tuple[int, str, str]:
        # git looks for ssh and its own helpers there
        answer = timed_run(argv, seconds, {"PATH": search_path(), **(environ_update or {})})
        if answer.rc is None:
            return TOO_LATE, answer.out, f"fatal: no answer within {seconds:g} s"
        return answer.rc, answer.out, answer.err

    return run


def make_fetcher(params: t.Mapping[str, t.Any], folder: Path, seconds: float, patience: float = 20) -> Fetcher:
    """Return a Fetcher for this host.

    ``params`` has the module's ca_bundle, pypi_index and pypi_index_fallback; ``seconds`` is the limit on one git
    command and ``patience`` that on one page of the package index.
    """
    own = {"GIT_SSL_CAINFO": params["ca_bundle"]} if params["ca_bundle"] else {}
    return Fetcher(
        folder=folder,
        run=limited(seconds),
        opener=https_opener(ca_bundle(params["ca_bundle"])),
        connect=socket.create_connection,
        git=find_program("git") or None,
        index=lambda: package_index(params["pypi_index"], params["pypi_index_fallback"]),
        environment=os.environ,
        git_environment=own,
        patience=patience,
    )
