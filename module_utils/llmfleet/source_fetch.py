"""Fetching a source candidate: probe, download, check, unpack. The command runner and the URL opener are passed in.

Downloads are kept under ``sources`` by their digest, so the next build needs no network for them; an interrupted one
continues where it stopped, and nothing gets its final name before its sha256 is right.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import typing as t
import urllib.error
import urllib.request
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ansible.module_utils.llmfleet import image_source as src
from ansible.module_utils.llmfleet.image_request import is_commit
from ansible.module_utils.llmfleet.image_source import Source, SourceError

Runner = t.Callable[..., "tuple[int, str, str]"]
Opener = t.Callable[..., t.Any]
Connect = t.Callable[..., t.Any]

QUIET_GIT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_HTTP_LOW_SPEED_LIMIT": "1000",
    "GIT_HTTP_LOW_SPEED_TIME": "30",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=10",
    "LC_ALL": "C",
}
"""git that asks nobody and gives up on a connection that stands still; what the caller's environment says wins."""
DEFAULT_PORTS = {"https": 443, "http": 80, "git": 9418, "ssh": 22}


@dataclass(frozen=True)
class Fetched:
    """A source archive on this host and the commit it holds ("" when nothing tells)."""

    source: Source
    path: Path
    commit: str


@dataclass
class Fetcher:
    """Turns candidates into archives under ``folder``."""

    folder: Path
    run: Runner
    opener: Opener
    connect: Connect
    git: str | None
    index: t.Callable[[], str]
    environment: t.Mapping[str, str]
    git_environment: t.Mapping[str, str] = field(default_factory=dict)
    patience: float = 20  # seconds for a page of the package index

    def cached(self, source: Source, ref: str) -> Fetched | None:
        """Return what an earlier build has left for this candidate."""
        if source.kind == "git":
            kept = self.folder / f"git-{ref}.tar"
            return Fetched(source, kept, ref) if is_commit(ref) and kept.exists() else None
        kept = self._kept(source)
        return Fetched(source, kept, source.ref) if source.sha256 and kept.exists() else None

    def probe(self, source: Source) -> None:
        """Raise SourceError when the candidate cannot deliver now; takes seconds and downloads nothing large."""
        if source.kind == "git":
            if not self.git:
                raise SourceError("git is not installed on this host")
            self._reach(source.where)
        elif source.kind == "sdist":
            self._resolve(source)
        elif "://" in source.where and not source.where.startswith("file:"):
            self._reach(source.where)
        elif not Path(source.where.replace("file://", "", 1)).is_file():
            raise SourceError(f"there is no file {source.where} on this host")

    def fetch(self, source: Source, ref: str) -> Fetched:
        """Return the candidate's archive, or raise SourceError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if source.kind == "git":
            return self._clone(source, ref)
        url = source.where
        if source.kind == "sdist":
            source, url = self._resolve(source)
        kept = self._kept(source)
        if not kept.exists():
            self.bring(url, kept, source.sha256)
        return Fetched(source, kept, source.ref)

    def bring(self, place: str, kept: Path, sha256: str) -> None:
        """Put the file at ``place``, a URL or a path, to ``kept`` once its digest is right; raise SourceError."""
        parts = urlsplit(place)
        if parts.scheme in ("http", "https", "ftp"):
            self._download(place, kept, sha256)
        else:
            self._copy(Path(url2pathname(parts.path) if parts.scheme == "file" else place), kept, sha256)

    def _kept(self, source: Source) -> Path:
        return self.folder / f"{source.kind}-{source.sha256[:24]}.tar.gz"

    def _reach(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or self._proxied(parts.scheme):
            return  # a local repository, scp-like syntax, or a proxy that alone knows
        place = (parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme])
        try:
            self.connect(place, timeout=5).close()
        except OSError as exc:
            raise SourceError(f"{place[0]} does not answer on port {place[1]} ({_reason(exc)})") from exc

    def _proxied(self, scheme: str) -> bool:
        names = (f"{scheme}_proxy", "all_proxy")
        return any(self.environment.get(name) or self.environment.get(name.upper()) for name in names)

    def _clone(self, source: Source, ref: str) -> Fetched:
        store = self.folder / "llama.cpp.git"
        if not (store / "HEAD").exists():
            self.git_says("init", "--quiet", "--bare", str(store))
        for lock in store.glob("*.lock"):  # of a run that was killed: the caller lets one at a time make images
            lock.unlink()
        there = ("-C", str(store))
        self.git_says(*there, "fetch", "--quiet", "--depth", "1", "--no-tags", source.where, ref)
        commit = self.git_says(*there, "rev-parse", "FETCH_HEAD^{commit}").strip()
        kept = self.folder / f"git-{commit}.tar"
        part = kept.with_suffix(".part")
        self.git_says(*there, "archive", "--format=tar", f"--output={part}", commit)
        os.replace(part, kept)
        return Fetched(source, kept, commit)

    def git_says(self, *args: str) -> str:
        """Return what ``git args`` prints; raise SourceError with its own words when it fails."""
        own = {name: value for name, value in QUIET_GIT.items() if name not in self.environment or name == "LC_ALL"}
        rc, out, err = self.run([str(self.git), *args], environ_update={**own, **self.git_environment})
        if rc != 0:
            lines = [line for line in (err or out).splitlines() if line.strip()]
            fatal = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1] if lines else "")
            raise SourceError(src.public_url_in(fatal) or f"git ended with status {rc}")
        return out

    def listed(self, name: str) -> list[src.IndexFile]:
        """Return the files that the package index lists for the distribution ``name``."""
        index = self.index()
        if not index:
            raise SourceError("no package index is known on this host; set pypi_index")
        page = f"{index}/{src.normalized(name)}/"
        with self._open(page, {"Accept": src.SIMPLE_ACCEPT}, self.patience) as answer:
            try:
                body = answer.read().decode(errors="replace")
            except (OSError, http.client.HTTPException) as exc:
                raise SourceError(f"{src.public_url(page)} broke off ({_reason(exc)})") from exc
            return src.parse_index(body, answer.headers.get("Content-Type") or "", answer.geturl())

    def _resolve(self, source: Source) -> tuple[Source, str]:
        version, file = src.pick_sdist(self.listed(source.where), source.where, source.version, source.sha256)
        return replace(source, version=version, sha256=source.sha256 or file.sha256), file.url

    def _open(self, url: str, headers: dict[str, str], timeout: float) -> t.Any:
        try:
            return self.opener(urllib.request.Request(url, headers=headers), timeout=timeout)  # noqa: S310
        except (OSError, ValueError, http.client.HTTPException) as exc:  # URLError and HTTPError are OSErrors
            raise SourceError(f"{src.public_url(url)} does not answer ({_reason(exc)})") from exc

    def _download(self, url: str, kept: Path, sha256: str, attempts: int = 3) -> None:
        part = kept.with_suffix(".part")
        for attempt in range(1, attempts + 1):
            resumed = part.exists()
            try:
                self._continue(url, part)
                _accept(part, kept, sha256, src.public_url(url))
                return
            except (OSError, http.client.HTTPException) as exc:
                if attempt == attempts:
                    raise SourceError(f"the download of {src.public_url(url)} broke off ({_reason(exc)})") from exc
            except SourceError:
                if not resumed:  # what was continued may have been rubbish from the start: once more from the beginning
                    raise

    def _continue(self, url: str, part: Path) -> None:
        have = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        try:
            answer = self.opener(urllib.request.Request(url, headers=headers), timeout=30)  # noqa: S310
        except urllib.error.HTTPError as exc:
            if exc.code == 416:  # nothing is left to fetch, or the part belongs to something else: the digest decides
                return
            raise
        with answer, open(part, "ab" if answer.status == 206 else "wb") as out:
            total = answer.headers.get("Content-Length")
            before = out.tell()
            shutil.copyfileobj(answer, out, 1 << 20)
            if total and out.tell() - before < int(total):
                raise ConnectionError(f"{out.tell() - before} of {total} bytes arrived")

    def _copy(self, path: Path, kept: Path, sha256: str) -> None:
        part = kept.with_suffix(".part")
        try:
            shutil.copyfile(path, part)
        except OSError as exc:
            raise SourceError(f"{path} cannot be read ({_reason(exc)})") from exc
        _accept(part, kept, sha256, str(path))


def link_or_copy(kept: Path, target: Path) -> None:
    """Put the content of ``kept`` to ``target``, without using its room twice where that can be had."""
    try:
        os.link(kept, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(kept, target)


def _accept(part: Path, kept: Path, sha256: str, origin: str) -> None:
    digest = hashlib.sha256()
    with open(part, "rb") as content:
        for block in iter(lambda: content.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != sha256:
        part.unlink()
        raise SourceError(f"{origin} has sha256 {digest.hexdigest()}, but {sha256} was asked for")
    os.replace(part, kept)


def _reason(exc: BaseException) -> str:
    inner = getattr(exc, "reason", None)
    return str(inner or getattr(exc, "strerror", None) or exc) or type(exc).__name__


def tree_root(names: t.Iterable[str]) -> str:
    """Return the folder of an archive that holds llama.cpp: its vendored copy, else the topmost CMake project."""
    lists = [PurePosixPath(name).parent for name in names if PurePosixPath(name).name == "CMakeLists.txt"]
    vendored = [folder for folder in lists if folder.parts[-2:] == ("vendor", "llama.cpp")]
    if not lists:
        raise SourceError("the archive holds no CMakeLists.txt, so it is not a llama.cpp source tree")
    return str(min(vendored or lists, key=lambda folder: len(folder.parts)))


def unpack(archive: Path, into: Path, without: t.Collection[str] = ()) -> None:
    """Unpack the llama.cpp of ``archive``, but for the folders of it named in ``without``.

    Only plain files are made, and only below ``into``: links and devices are left out (no target needs one), and a
    name that points outside is refused.
    """
    try:
        with tarfile.open(archive) as tar:
            members = [member for member in tar.getmembers() if member.isreg()]
            root = PurePosixPath(tree_root(member.name for member in members))
            for member in members:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise SourceError(f"the archive holds the unsafe path {member.name}")
                if root not in name.parents or name.relative_to(root).parts[0] in without:
                    continue
                target = into / name.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                if content is not None:
                    with content, open(target, "wb") as out:
                        shutil.copyfileobj(content, out, 1 << 20)
                    target.chmod(0o755 if member.mode & 0o100 else 0o644)
    except (tarfile.TarError, EOFError, OSError) as exc:
        words = " ".join(str(exc).split())
        raise SourceError(f"{archive.name} cannot be unpacked ({words})") from exc
