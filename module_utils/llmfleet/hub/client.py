"""Asking a source for a repository, whatever kind of source it is. Edge code."""

from __future__ import annotations

import http.client
import typing as t
import urllib.parse

from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.hub import folder, listing, web
from ansible.module_utils.llmfleet.hub.manifest import Listing
from ansible.module_utils.llmfleet.hub.refusal import NoAnswer, refused
from ansible.module_utils.llmfleet.hub.reply import Broken, read_all
from ansible.module_utils.llmfleet.hub.source_web import Unreachable, Web, joined
from ansible.module_utils.llmfleet.hub.sources import FOLDER, HF, MS, Source

CONNECT = 15.0
"""Seconds that a source has to begin its answer about a repository, before the next one is asked."""
ATTEMPTS = 3
"""How often a source that is busy is asked for a listing."""
LONGEST_WAIT = 20.0
"""Seconds at most before it is asked again, whatever Retry-After says."""

BRANCHES = {HF: "main", MS: "master"}
_MOST_PAGES = 1000
_LISTING_SECONDS = 300.0
"""For one answer, also from a hub that sends a byte now and then."""


def file_url(source: Source, repo: str, revision: str, path: str) -> str:
    """Return the URL of a file of a hub's repository."""
    quoted = urllib.parse.quote(path)
    if source.kind == MS:
        words = urllib.parse.urlencode({"Revision": revision, "FilePath": path})
        return f"{source.place}/api/v1/models/{repo}/repo?{words}"
    return f"{source.place}/{repo}/resolve/{urllib.parse.quote(revision, safe='')}/{quoted}"


def list_repo(source: Source, repo: str, revision: str, web_: Web) -> Listing:
    """Return what ``source`` says about a repository; raises NoAnswer with what it says instead."""
    try:
        if source.kind == FOLDER:
            found = folder.list_repo(source, repo, revision)
            if found is None:
                raise NoAnswer(folder.nothing_there(source, repo, revision))
            return found
        return _list_ms(source, repo, revision, web_) if source.kind == MS else _list_hf(source, repo, revision, web_)
    except NoAnswer:
        raise
    except LlmfleetError as error:
        raise NoAnswer(str(error).replace(f"source {source.name}: ", "", 1)) from None


def _list_hf(source: Source, repo: str, revision: str, web_: Web) -> Listing:
    asked = urllib.parse.quote(revision or BRANCHES[HF], safe="")
    url = f"{source.place}/api/models/{repo}"
    data = _json(source, repo, revision, f"{url}/revision/{asked}?blobs=true", web_)[0]
    found = listing.from_hf(source.name, repo, data, revision)
    if found is None:
        commit = listing.hf_commit(source.name, repo, data)
        pages = _pages(source, repo, revision, f"{url}/tree/{commit}?recursive=true", web_)
        found = listing.from_hf_tree(source.name, repo, commit, pages, revision)
    if listing.is_gated(data) and found.files:
        _check_access(source, found, web_)
    return found


def _pages(source: Source, repo: str, revision: str, url: str, web_: Web) -> t.Iterator[t.Any]:
    seen: set[str] = set()
    while url and url not in seen:
        if len(seen) == _MOST_PAGES:
            raise NoAnswer(f"the listing of {repo} has more than {_MOST_PAGES} pages; that is no model's")
        seen.add(url)
        data, headers = _json(source, repo, revision, url, web_)
        yield data
        url = _next_page(url, headers.get("Link", "") or "")


def _next_page(url: str, link: str) -> str:
    for part in link.split(","):
        place, _, words = part.strip().partition(">")
        next_ = joined(url, place[1:]) if 'rel="next"' in words and place.startswith("<") else ""
        if next_:
            # a mirror hands on the links of the hub that it mirrors
            there = urllib.parse.urlsplit(next_)
            here = urllib.parse.urlsplit(url)
            return urllib.parse.urlunsplit((here.scheme, here.netloc, there.path, there.query, ""))
    return ""


def _list_ms(source: Source, repo: str, revision: str, web_: Web) -> Listing:
    words = urllib.parse.urlencode({"Revision": revision or BRANCHES[MS], "Recursive": "true"})
    data, _ = _json(source, repo, revision, f"{source.place}/api/v1/models/{repo}/repo/files?{words}", web_)
    return listing.from_ms(source.name, repo, [data], revision)


def _check_access(source: Source, found: Listing, web_: Web) -> None:
    """Raise NoAnswer when files of a gated repository, which anybody may list, are not given to us."""
    if not source.has_token:
        raise refused(source, found.repo, "", 401, {"X-Error-Code": "GatedRepo"})
    smallest = min(found.files, key=lambda file: file.size)
    url = file_url(source, found.repo, found.commit, smallest.path)
    response, _ = _answer(source, url, {"Range": "bytes=0-0"}, web_)
    with response:
        if response.status in (401, 403):
            raise refused(source, found.repo, "", response.status, response.headers)


def _json(source: Source, repo: str, revision: str, url: str, web_: Web) -> tuple[t.Any, t.Any]:
    """Return the JSON that a hub answers, and the headers; a busy hub is asked again."""
    for attempt in range(ATTEMPTS):
        response, _ = _answer(source, url, {"Accept": "application/json"}, web_)
        with response:
            if response.status == 200:
                try:
                    raw = read_all(response, listing.MAX_BYTES, _LISTING_SECONDS)
                except (Broken, OSError, http.client.HTTPException) as error:
                    raise NoAnswer(f"the listing broke off: {web.explain(error, web_.timeout)}") from None
                return listing.read_json(raw, source.name, repo), response.headers
            if response.status not in web.TRANSIENT or attempt == ATTEMPTS - 1:
                raise refused(source, repo, revision, response.status, response.headers)
            pause = web.retry_after(response.headers, web_.now()) or 0.5 * 2**attempt
        web_.sleep(min(pause, LONGEST_WAIT))
    raise AssertionError


def _answer(source: Source, url: str, headers: t.Mapping[str, str], web_: Web) -> tuple[t.Any, str]:
    limit = min(web_.timeout, CONNECT)
    try:
        return web_.get(source, url, {"User-Agent": web.USER_AGENT, **headers}, limit)
    except Unreachable as error:
        raise NoAnswer(f"it {error.words(source, limit)}") from None


def first_that_answers(
    sources: t.Sequence[Source], repo: str, revision: str, web_: Web
) -> tuple[Listing, Source, list[dict[str, str]]]:
    """Ask the sources in their order; return the first listing, its source, and what those before it said.

    Raises LlmfleetError, what each said in one sentence, when none has it.
    """
    tried: list[dict[str, str]] = []
    gated = False
    for source in sources:
        try:
            return list_repo(source, repo, revision, web_), source, tried
        except NoAnswer as error:
            gated = gated or error.gated
            tried.append({"source": source.name, "said": str(error)})
        except OSError as error:
            tried.append(
                {"source": source.name, "said": f"{error.filename or source.place}: {error.strerror or error}"}
            )
    said = "; ".join(f"{row['source']}: {row['said']}" for row in tried)
    raise NoAnswer(f"no source gives {repo} ({said})" if len(tried) > 1 else said, gated=gated)
