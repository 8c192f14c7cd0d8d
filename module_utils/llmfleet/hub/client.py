"""Asking a source for a repository, whatever kind of source it is. Edge code.

Redirects are followed by hand, because a token must not go to the host that a hub redirects to. Proxies and
certificates are those of the environment.
"""

from __future__ import annotations

import http.client
import string
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request

from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.hub import folder, listing, web
from ansible.module_utils.llmfleet.hub.manifest import Listing
from ansible.module_utils.llmfleet.hub.reply import Broken, read_all
from ansible.module_utils.llmfleet.hub.sources import FOLDER, HF, MS, Source, why_no_token

CONNECT = 15.0
"""Seconds that a source has to begin its answer about a repository, before the next one is asked."""
ATTEMPTS = 3
"""How often a source that is busy is asked for a listing."""
LONGEST_WAIT = 20.0
"""Seconds at most before it is asked again, whatever Retry-After says."""

_HOPS = 8
_REDIRECTS = (301, 302, 303, 307, 308)
BRANCHES = {HF: "main", MS: "master"}
_MOST_PAGES = 1000
_LISTING_SECONDS = 300.0
"""For one answer, also from a hub that sends a byte now and then."""


class NoAnswer(LlmfleetError):
    """A source does not have a model, or does not give it; ``str()`` is what it said, after its name.

    ``gated``: it would, to those who accepted a licence or have a token.
    """

    def __init__(self, said: str, *, gated: bool = False) -> None:
        super().__init__(said)
        self.gated = gated


class Unreachable(OSError):
    """No answer came; ``reason`` is why, ``url`` whom it was to come from."""

    def __init__(self, url: str, reason: Exception) -> None:
        super().__init__(str(reason))
        self.url = url
        self.reason = reason

    def words(self, source: Source, timeout: float) -> str:
        """Return what cannot be reached, and why, after the name of ``source`` (``timeout``: seconds it had)."""
        why = web.explain(self.reason, timeout)
        host = urllib.parse.urlsplit(self.url).netloc.rpartition("@")[2]
        if host == urllib.parse.urlsplit(source.place).netloc:
            return f"cannot be reached: {why}"
        return f"sends on to {host}, which cannot be reached: {why}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: t.Any, **__: t.Any) -> None:
        return None


class Web:
    """HTTP(S) as a hub needs it; used by several threads at once. ``open_url`` takes a request and ``timeout``."""

    def __init__(
        self,
        timeout: float,
        open_url: t.Callable[..., t.Any] | None = None,
        sleep: t.Callable[[float], None] = time.sleep,
        now: t.Callable[[], float] = time.time,
    ) -> None:
        self.timeout = timeout
        self.sleep = sleep
        self.now = now
        self._open = open_url or urllib.request.build_opener(_NoRedirect()).open

    def get(self, source: Source, url: str, headers: t.Mapping[str, str], timeout: float) -> tuple[t.Any, str]:
        """Return the answer, whatever its status, and the URL that it came from in the end.

        The token of ``source`` goes where it may. Raises Unreachable where there is no answer, LlmfleetError where
        redirects do not end or the token's file cannot be read.
        """
        for _ in range(_HOPS):
            request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 -- checked here and by sources
            token = "" if why_no_token(source, url) else token_of(source)
            if token:
                request.add_unredirected_header("Authorization", f"Bearer {token}")
            try:
                response = self._open(request, timeout=timeout)
            except urllib.error.HTTPError as error:
                response = error
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise Unreachable(url, error) from None
            place = response.headers.get("Location", "") if response.status in _REDIRECTS else ""
            if not place:
                return response, url
            response.close()
            url = _joined(url, place)
            if not url:
                raise LlmfleetError("it redirects to something that is no http(s) URL; is this the URL of a hub?")
        raise LlmfleetError(f"it redirects more than {_HOPS} times; is this the URL of a hub?")


def _joined(url: str, place: str) -> str:
    """Return the URL of ``place``, a header's words, seen from ``url``; "" unless it is one of http(s)."""
    try:
        # servers put letters there as they are, which http.client decodes as Latin-1
        there = urllib.parse.urljoin(url, urllib.parse.quote(place, safe=string.punctuation, encoding="iso-8859-1"))
        return there if urllib.parse.urlsplit(there).scheme.lower() in ("http", "https") else ""
    except ValueError:
        return ""


def token_of(source: Source) -> str:
    """Return the token for a source, "" where there is none; raises BadInput when its file cannot be used."""
    if source.token or not source.token_file:
        return source.token
    try:
        with open(source.token_file, encoding="utf-8") as stream:
            token = stream.read(4096).strip()
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or "it is no text"
        raise BadInput(
            f"the file {source.token_file} with the token for {source.name} cannot be read: {said}"
        ) from None
    if not token or not token.isascii() or any(character <= " " for character in token):
        raise BadInput(f"the file {source.token_file} holds no token for {source.name}: one line, without blanks")
    return token


def file_url(source: Source, repo: str, revision: str, path: str) -> str:
    """Return the URL of a file of a hub's repository."""
    quoted = urllib.parse.quote(path)
    if source.kind == MS:
        words = urllib.parse.urlencode({"Revision": revision, "FilePath": path})
        return f"{source.place}/api/v1/models/{repo}/repo?{words}"
    return f"{source.place}/{repo}/resolve/{urllib.parse.quote(revision, safe='')}/{quoted}"


# --- listings ---------------------------------------------------------------------------------------------------------


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
        next_ = _joined(url, place[1:]) if 'rel="next"' in words and place.startswith("<") else ""
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


def refused(source: Source, repo: str, revision: str, status: int, headers: t.Mapping[str, str]) -> NoAnswer:
    """Return what an answer with an error status means, and what to do."""
    code = headers.get("X-Error-Code", "") or ""
    token = "HF_TOKEN" if source.kind == HF else "MODELSCOPE_API_TOKEN"
    ways = f"`token_file` of the source, or {token} in the environment"
    page = f"{source.place}/{repo}" if source.kind == HF else f"{source.place}/models/{repo}"
    withheld = why_no_token(source, source.place) if source.has_token else ""
    if withheld:
        ways = f"an https URL of the source, as its token is not sent because {withheld}"
    if code == "GatedRepo" or (source.kind == MS and status in (401, 403)):
        if source.has_token and not withheld:
            return NoAnswer(
                f"{repo} is gated and the token's account has not been let in: accept the licence at {page} with it",
                gated=True,
            )
        return NoAnswer(
            f"{repo} is gated: accept the licence at {page} and give a token of that account ({ways})", gated=True
        )
    said = f"it answers HTTP {status}"
    if code == "RevisionNotFound" or (status == 404 and revision and code != "RepoNotFound"):
        return NoAnswer(f"{repo} has no revision {revision or 'main'}: check the branch, tag or commit behind the @")
    if status == 401 and code != "RepoNotFound" and source.has_token:
        return NoAnswer(f"its token is not valid ({_message(headers) or said}): make a new one", gated=True)
    if code == "RepoNotFound" or status in (401, 404):
        private = "" if source.has_token and not withheld else f"; a private one needs a token ({ways})"
        return NoAnswer(f"it has no repository {repo}: check the name, upper and lower case too{private}")
    if status == 403:
        return NoAnswer(f"it refuses access to {repo} ({_message(headers) or said})", gated=True)
    if status == 429:
        return NoAnswer(f"it has been asked too often (HTTP 429): wait, or give a token ({ways})")
    return NoAnswer(f"{said}: {web.HINTS.get(status, 'try again later, or name another source')}")


def _message(headers: t.Mapping[str, str]) -> str:
    text = headers.get("X-Error-Message", "") or ""
    return text[:200] if text.isprintable() else ""


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
