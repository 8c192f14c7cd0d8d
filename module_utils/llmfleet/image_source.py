"""Where the llama.cpp source may come from: candidates as data, and the package index read without pip.

A candidate is one row of the inventory: ``git: URL``, ``archive: URL or path`` with its ``sha256``, or ``sdist: name``
with ``version`` and ``sha256``. A row's ``ref`` says which llama.cpp it carries; rows that carry another one are passed
over.
"""

from __future__ import annotations

import configparser
import html.parser
import json
import re
import typing as t
from dataclasses import dataclass
from urllib.parse import urldefrag, urljoin, urlsplit, urlunsplit

from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError

KINDS = ("git", "archive", "sdist")
SHA256 = re.compile(r"[0-9a-f]{64}")
SIMPLE_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"


class SourceError(LlmfleetError):
    """A candidate did not deliver; the next one is tried."""


@dataclass(frozen=True)
class Source:
    """One candidate: ``where`` is a URL, a path or a distribution name, depending on ``kind``."""

    kind: str
    where: str
    version: str = ""
    sha256: str = ""
    ref: str = ""

    def pin(self) -> tuple[tuple[str, str], ...]:
        """Return what identifies the source, wherever it is fetched from."""
        if self.kind == "git":
            return (("kind", "git"),)
        if self.kind == "archive":
            return (("kind", "archive"), ("sha256", self.sha256))
        return (("kind", "sdist"), ("name", self.where), ("version", self.version), ("sha256", self.sha256))

    def row(self) -> dict[str, str]:
        """Return the candidate as a row of the inventory."""
        named = {self.kind: self.where, "version": self.version, "sha256": self.sha256, "ref": self.ref}
        return {name: value for name, value in named.items() if value}

    def label(self) -> str:
        """Return the candidate in words, without the credentials a URL may carry."""
        if self.kind == "sdist":
            return f"sdist {self.where} {self.version}".rstrip()
        return f"{self.kind} {public_url(self.where)}"


def parse_sources(rows: t.Sequence[t.Mapping[str, t.Any]]) -> list[Source]:
    """Return the candidates of the inventory in order, or say which row is wrong."""
    found = []
    for number, row in enumerate(rows, 1):
        place = f"sources[{number}]"
        given = {name: str(value).strip() for name, value in row.items() if value not in (None, "")}
        unknown = sorted(set(given) - {*KINDS, "version", "sha256", "ref"})
        kinds = [kind for kind in KINDS if kind in given]
        if unknown or len(kinds) != 1:
            what = f"has the unknown key {unknown[0]}" if unknown else "needs exactly one of git, archive and sdist"
            raise BadInput(f"{place} {what}; write for example {{git: URL}} or {{archive: PATH, sha256: DIGEST}}.")
        kind = kinds[0]
        digest = given.get("sha256", "").lower()
        if digest and not SHA256.fullmatch(digest):
            raise BadInput(f"{place}: sha256 is not 64 hexadecimal digits; copy the digest in full.")
        if kind == "archive" and not digest:
            raise BadInput(f"{place}: an archive needs its sha256, because nothing else says that it is the right one.")
        if kind == "git" and not re.match(r"(https?|ssh|git|file)://|[\w.-]+@[\w.-]+:|/", given[kind]):
            raise BadInput(f"{place}: git {given[kind]} is not a URL; write one like https://host/project.git.")
        found.append(Source(kind, given[kind], given.get("version", ""), digest, given.get("ref", "")))
    return found


def for_ref(sources: t.Sequence[Source], ref: str) -> tuple[list[Source], list[dict[str, str]]]:
    """Split the candidates into those that can deliver ``ref`` and those passed over, with the reason."""
    usable, passed = [], []
    for source in sources:
        if source.ref and source.ref != ref:
            passed.append({"candidate": source.label(), "result": f"carries {source.ref[:12]}, not {ref[:12]}"})
        else:
            usable.append(source)
    return usable, passed


def public_url(url: str) -> str:
    """Return ``url`` without user and password."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def public_url_in(text: str) -> str:
    """Return ``text`` with user and password taken out of the URLs in it."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1", text)


class _Links(html.parser.HTMLParser):
    """The anchors of an HTML index page: (href, text, whether the file was withdrawn)."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[tuple[str, str, bool]] = []
        self._href, self._yanked = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._href, self._yanked = dict(attrs).get("href") or "", "data-yanked" in dict(attrs)

    def handle_data(self, data: str) -> None:
        if self._href and data.strip():
            self.links.append((self._href, data.strip(), self._yanked))

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._href = ""


@dataclass(frozen=True)
class IndexFile:
    """A file listed on a package index."""

    name: str
    url: str
    sha256: str
    yanked: bool = False  # withdrawn: only for those who ask for exactly this version


def parse_index(body: str, content_type: str, page_url: str) -> list[IndexFile]:
    """Return the files of a project page of a simple index, in HTML or in JSON (PEP 691)."""
    if "json" in content_type:
        try:
            return [
                IndexFile(
                    row["filename"],
                    urljoin(page_url, row["url"]),
                    row.get("hashes", {}).get("sha256", ""),
                    bool(row.get("yanked")),
                )
                for row in json.loads(body)["files"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise SourceError(
                f"The package index page {public_url(page_url)} is not valid JSON of a simple index."
            ) from exc
    parser = _Links()
    parser.feed(body)
    files = []
    for href, text, yanked in parser.links:
        url, fragment = urldefrag(urljoin(page_url, href))
        digest = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
        files.append(IndexFile(text, url, digest[1].lower() if digest else "", yanked))
    return files


def normalized(name: str) -> str:
    """Return a distribution name the way an index spells it in URLs."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _version_of(filename: str, name: str) -> str:
    stem = re.fullmatch(r"(.+)-([0-9][^-]*)\.tar\.gz", filename)
    return stem[2] if stem and normalized(stem[1]) == normalized(name) else ""


def pick_sdist(files: t.Sequence[IndexFile], name: str, version: str, sha256: str) -> tuple[str, IndexFile]:
    """Return (version, file) of the source distribution wanted; without a version, of the newest final one."""
    found = {_version_of(file.name, name): file for file in files if _version_of(file.name, name)}
    if not version:
        kept = (number for number, file in found.items() if not file.yanked)
        finals = [number for number in kept if re.fullmatch(r"\d+(\.\d+)*(\.post\d+)?", number)]
        version = max(finals, key=lambda number: [int(part) for part in re.findall(r"\d+", number)], default="")
    if version not in found:
        raise SourceError(f"The package index has no source distribution of {name} {version or '(any version)'}.")
    file = found[version]
    if sha256 and file.sha256 and file.sha256 != sha256:
        raise SourceError(f"The package index lists {file.name} with sha256 {file.sha256}, but {sha256} was asked for.")
    if not sha256 and not file.sha256:
        raise SourceError(f"The package index gives no sha256 for {file.name}; set it in the candidate.")
    return version, file


def index_from_config(texts: t.Iterable[str]) -> str:
    """Return ``index-url`` of pip's configuration files, given from weakest to strongest."""
    url = ""
    for text in texts:
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(text)
        except configparser.Error:
            continue  # pip itself will complain about it
        for section in ("global", "install", "download"):
            for option in ("index-url", "index_url"):
                url = parser.get(section, option, fallback=url).strip()
    return url


def choose_index(option: str, environment: t.Mapping[str, str], configured: str, builtin: str, fallback: str) -> str:
    """Return the package index of this host, in the order pip itself would choose, "" when nothing names one."""
    for url in (option, environment.get("PIP_INDEX_URL", ""), configured, builtin, fallback):
        if url:
            return url.rstrip("/")
    return ""


PIP_CONFIG_FILES = ("/etc/xdg/pip/pip.conf", "/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
"""Weakest first, as pip reads them."""

ASK_PIP = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
"""A Python one-liner that prints the index pip uses when nothing is configured."""

DEFAULT_SOURCES: tuple[dict[str, str], ...] = (
    {"git": "https://github.com/ggml-org/llama.cpp.git"},
    {"git": "https://gitee.com/mirrors/llama.cpp.git"},
    {
        "sdist": "llama-cpp-python",
        "version": "0.3.36",
        "sha256": "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
        "ref": "0c1e57098bba43ac29e6e3b677cdceebdd22334f",
    },
)
"""Where the default ref comes from; the sdist carries the same commit's tree."""
