"""What hubs answer when they are asked which files a repository holds, made into a Listing. Pure.

Hugging Face: `/api/models/REPO/revision/REV?blobs=true` names the commit and its files (`siblings`); the pages of
`/api/models/REPO/tree/REV?recursive=true` name files alone. ModelScope: `/api/v1/models/REPO/repo/files`.
"""

from __future__ import annotations

import hashlib
import json
import re
import typing as t

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub.manifest import Listing, RepoFile, check_path

MAX_FILES = 50_000
"""More than any model has; a listing beyond is refused."""
MAX_BYTES = 64 << 20
"""Of one answer."""

CONTENT = "content-"
"""How the name begins that stands in for a commit when the hub tells none."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_SIZE = 1 << 50


def read_json(raw: bytes, source: str, repo: str) -> t.Any:
    """Return the JSON of a hub's answer; raises BadInput that names the source."""
    where = f"source {source}: the listing of {repo}"
    if len(raw) > MAX_BYTES:
        raise BadInput(f"{where} is larger than {MAX_BYTES >> 20} MiB; that is no model's")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        start = raw[:200].lstrip().lower()
        if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
            raise BadInput(
                f"{where} is a web page; a proxy or a login page stands between, or the URL is wrong"
            ) from None
        raise BadInput(f"{where} is no JSON; is this the URL of a hub?") from None


def from_hf(source: str, repo: str, data: t.Any, asked: str = "") -> Listing | None:
    """Return the Listing of Hugging Face's answer about a revision, whose files were asked for with `blobs=true`.

    None when it tells no sizes, as some mirrors do: ``from_hf_tree`` with the commit (``hf_commit``) has them.
    """
    where = _where(source, repo)
    rows = _rows(_mapping(data, where).get("siblings"), where, "siblings")
    commit = hf_commit(source, repo, data)
    if any(row.get("size") is None for row in rows):
        return None
    return _listing(
        source, repo, commit, [_hf_file(row, "rfilename", "blobId", "sha256", where) for row in rows], asked
    )


def hf_commit(source: str, repo: str, data: t.Any) -> str:
    """Return the commit that Hugging Face's answer about a revision names."""
    where = _where(source, repo)
    commit = _mapping(data, where).get("sha")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise BadInput(f"{where} names no commit; is this the URL of a hub?")
    return commit


def is_gated(data: t.Any) -> bool:
    """Return whether Hugging Face's answer says that files go only to those who accepted the licence."""
    return isinstance(data, dict) and data.get("gated") not in (None, False, "", "false")


def from_hf_tree(source: str, repo: str, commit: str, pages: t.Iterable[t.Any], asked: str = "") -> Listing:
    """Return the Listing of the pages of Hugging Face's file tree of a commit."""
    where = _where(source, repo)
    files: list[RepoFile] = []
    for page in pages:
        for row in _rows(page, where, "files"):
            if row.get("type") in ("file", None):
                files.append(_hf_file(row, "path", "oid", "oid", where))
        _check_count(len(files), where)
    return _listing(source, repo, commit, files, asked)


def from_ms(source: str, repo: str, pages: t.Iterable[t.Any], asked: str = "") -> Listing:
    """Return the Listing of ModelScope's answer, or of its pages, about the files of a repository."""
    where = _where(source, repo)
    files: list[RepoFile] = []
    touched: list[tuple[float, str]] = []
    tip: dict[str, t.Any] = {}
    for page in pages:
        body = _mapping(page, where)
        if body.get("Success") is False or body.get("Code", 200) not in (200, "200"):
            raise BadInput(f"{where} was refused: {_words(body.get('Message'))}")
        data = _mapping(body.get("Data"), where)
        tip = data["LatestCommitter"] if isinstance(data.get("LatestCommitter"), dict) else tip
        for row in _rows(data.get("Files") or [], where, "Files"):
            # folders, and repositories within the repository
            if row.get("Type") not in ("blob", None, ""):
                continue
            files.append(_ms_file(row, where))
            touched.append((_number(row.get("CommittedDate")), str(row.get("Revision") or "")))
        _check_count(len(files), where)
    return _listing(source, repo, _ms_commit(tip, touched, asked, files), files, asked)


def revision_to_ask(commit: str, asked: str, default: str) -> str:
    """Return by which revision files of a listed ``commit`` are to be asked for.

    That is the commit, unless the hub told none: then the revision that was ``asked`` for, or the hub's ``default``
    branch.
    """
    return commit if not commit.startswith(CONTENT) else asked or default


def _ms_commit(
    tip: t.Mapping[str, t.Any], touched: t.Sequence[tuple[float, str]], asked: str, files: t.Sequence[RepoFile]
) -> str:
    """Return the commit of a ModelScope listing, which often tells only its first digits, or none.

    The newest of the commits that touched a file holds the same files as the tip, which at most removed some.
    """
    whole, short = str(tip.get("Id") or ""), str(tip.get("ShortId") or "")
    if _COMMIT.fullmatch(whole):
        return whole
    if _COMMIT.fullmatch(asked):
        return asked
    known = [commit for _, commit in sorted(touched) if _COMMIT.fullmatch(commit)]
    if known:
        return next((commit for commit in known if short and commit.startswith(short)), known[-1])
    rows = sorted(f"{file.path}\0{file.size}\0{file.digest}" for file in files)
    return CONTENT + hashlib.sha256("\n".join(rows).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _listing(source: str, repo: str, commit: str, files: t.Sequence[RepoFile], asked: str) -> Listing:
    where = _where(source, repo)
    _check_count(len(files), where)
    paths = {file.path for file in files}
    if len(paths) != len(files):
        raise BadInput(f"{where} names a file twice; nothing was fetched")
    for path in paths:
        _check(path, where)
        if any(parent in paths for parent in _parents(path)):
            raise BadInput(f"{where} names {path!r} below a file; nothing was fetched")
    return Listing(source, repo, commit, tuple(sorted(files, key=lambda file: file.path)), asked)


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _check(path: str, where: str) -> None:
    try:
        check_path(path)
        too_long = len(path.encode()) > 2000 or any(len(part.encode()) > 240 for part in path.split("/"))
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    except UnicodeEncodeError:
        too_long = True
    if too_long or not path.isprintable():
        raise BadInput(f"{where} holds a file called {path[:100]!r}, which is no safe path; nothing was fetched")


def _hf_file(row: t.Mapping[str, t.Any], path: str, blob: str, digest: str, where: str) -> RepoFile:
    lfs = row.get("lfs")
    if not isinstance(lfs, dict) or not lfs:
        return _file(row.get(path), row.get("size"), "", row.get(blob), where)
    # beside `lfs` the blob is that of the pointer, which says nothing about the content
    file = _file(row.get(path), lfs.get("size", row.get("size")), lfs.get(digest) or lfs.get("oid"), "", where)
    if row.get("size") not in (None, file.size):
        raise BadInput(f"{where} tells two sizes of {file.path}; nothing was fetched")
    return file


def _ms_file(row: t.Mapping[str, t.Any], where: str) -> RepoFile:
    return _file(row.get("Path") or row.get("Name"), row.get("Size"), row.get("Sha256"), "", where)


def _file(path: t.Any, size: t.Any, sha256: t.Any, blob: t.Any, where: str) -> RepoFile:
    if not isinstance(path, str):
        raise BadInput(f"{where} holds a file without a name; is this the URL of a hub?")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < _MAX_SIZE:
        raise BadInput(f"{where} tells no size of {path[:100]!r}; is this the URL of a hub?")
    digest = str(sha256 or "").lower()
    digest = digest[7:] if digest.startswith("sha256:") else digest
    blob_id = str(blob or "").lower()
    if (digest and not _SHA256.fullmatch(digest)) or (blob_id and not _COMMIT.fullmatch(blob_id)):
        raise BadInput(f"{where} tells a digest of {path[:100]!r} that is none; nothing was fetched")
    return RepoFile(path, size, digest, blob_id)


def _check_count(count: int, where: str) -> None:
    if count > MAX_FILES:
        raise BadInput(f"{where} holds more than {MAX_FILES} files; that is no model's")


def _where(source: str, repo: str) -> str:
    return f"source {source}: the listing of {repo}"


def _mapping(data: t.Any, where: str) -> dict[str, t.Any]:
    if not isinstance(data, dict):
        raise BadInput(f"{where} is not what a hub answers; is this the URL of a hub?")
    return data


def _rows(data: t.Any, where: str, what: str) -> list[dict[str, t.Any]]:
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise BadInput(f"{where} tells no {what}; is this the URL of a hub?")
    _check_count(len(data), where)
    return data


def _number(value: t.Any) -> float:
    # what JSON may hold is more than what fits into a float
    return float(value) if isinstance(value, (int, float)) and abs(value) < 1e18 else 0.0


def _words(message: t.Any) -> str:
    text = str(message or "no reason was given")[:200]
    return text if text.isprintable() else repr(text)
