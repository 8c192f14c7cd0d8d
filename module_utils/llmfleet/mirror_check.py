"""What a candidate must serve to count as a mirror of what is wanted: packages and plain files.

Registries have a file of their own (registry_check). Every function here asks through a Visit and raises Wrong.
"""

from __future__ import annotations

import hashlib
import time
import typing as t
import urllib.parse
from dataclasses import dataclass

from ansible.module_utils.llmfleet import mirror_index
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.mirror_edge import Answer, Visit
from ansible.module_utils.llmfleet.mirror_index import Listed, Release, Wrong
from ansible.module_utils.llmfleet.mirror_rank import Sample

APT, APT_FLAT, YUM, REGISTRY, HUB, URL = "apt", "apt_flat", "yum", "registry", "hub", "url"
KINDS = (APT, APT_FLAT, YUM, REGISTRY, HUB, URL)

MAX_METADATA = 4 << 20
MAX_INDEX = 32 << 20

SAMPLE_SECONDS = 3.0
"""The longest that a candidate's speed is measured: by then it is known well enough."""

PATH_CHARACTERS = "/~+:%@!$&'()*,;="


@dataclass(frozen=True)
class Want:
    """What is looked for at every candidate."""

    kind: str
    suite: str = ""
    component: str = "stable"
    architecture: str = ""
    package: str = ""
    image: str = ""
    sha256: str = ""
    sample_bytes: int = 1 << 20


def host_of(url: str) -> str:
    """Return the host and port of a candidate. Raises BadInput for what is no usable URL."""
    try:
        parts = urllib.parse.urlsplit(url)
        bad = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        bad = True
    if bad or any(character.isspace() for character in url) or not url.isascii():
        raise BadInput(
            f"the candidate {url!r} is not an http or https URL; write one like https://mirror.example.org/x"
        )
    if "@" in parts.netloc:
        raise BadInput(
            f"the candidate {parts.hostname} has a user or password in its URL, which would be shown in the plan; "
            "give a URL that needs none"
        )
    return parts.netloc


def check_want(want: Want) -> None:
    """Raise BadInput when something is missing without which nothing can be checked."""
    if want.kind == APT and not (want.suite and want.architecture):
        raise BadInput("candidates of the kind `apt` need `suite` and `architecture`, as in bookworm and amd64")
    digits = set("0123456789abcdef")
    if want.sha256 and (len(want.sha256) != 64 or set(want.sha256) - digits):
        raise BadInput("`sha256` is not 64 hexadecimal digits; copy the digest in full")


def packages(visit: Visit, url: str, want: Want) -> Sample:
    """Check a package repository: its description, its index, and one package, on which the speed is measured."""
    if want.kind == YUM:
        release = _repomd(visit, url)
        listed, folder = release.files["primary"], url
    else:
        folder = f"{url}/dists/{want.suite}" if want.kind == APT else url
        release = _release(visit, folder, want)
        place = f"{want.component}/binary-{want.architecture}/" if want.kind == APT else ""
        listed = mirror_index.package_index(release, place)
    visit.vouch(release.date)
    index = visit.get(f"{folder}/{_quoted(listed.path)}", MAX_INDEX)
    content = _index_content(index, listed, "repomd.xml" if want.kind == YUM else "Release")
    if content is None:
        return index.sample
    find = mirror_index.newest_rpm if want.kind == YUM else mirror_index.newest_deb
    newest = find(content, want.package, want.architecture)
    visit.version = newest.version if want.package else ""
    visit.sampling = True
    return sample(visit, f"{url}/{_quoted(newest.path)}", newest, want.sample_bytes, f"{want.package} package".lstrip())


def _release(visit: Visit, folder: str, want: Want) -> Release:
    """Return the Release file of an apt repository: the right suite and machine, and not expired."""
    answer = visit.get(f"{folder}/InRelease", MAX_METADATA)
    if answer.status == 404:
        answer = visit.get(f"{folder}/Release", MAX_METADATA)
    what = f"suite {want.suite}" if want.kind == APT else "Release file"
    release = mirror_index.parse_release(_body(answer, what, "package index"))
    if want.kind == APT:
        named = [name for name in (release.codename, release.suite) if name]
        if named and want.suite not in named:
            raise Wrong(f"answers with the suite {named[0]}")
        if release.architectures and want.architecture not in release.architectures:
            raise Wrong(f"has no packages for {want.architecture}")
    if release.valid_until is not None and release.valid_until < time.time():
        raise Wrong(f"has an index that expired on {time.strftime('%Y-%m-%d', time.gmtime(release.valid_until))}")
    return release


def _repomd(visit: Visit, url: str) -> Release:
    answer = visit.get(f"{url}/repodata/repomd.xml", MAX_METADATA)
    return mirror_index.parse_repomd(_body(answer, "repomd.xml", "package index"))


def _body(answer: Answer, what: str, kind: str) -> bytes:
    """Return the body of a good answer. ``kind`` is what should have come in place of a web page."""
    if answer.status == 404:
        raise Wrong(f"has no {what} (HTTP 404)")
    if answer.status != 200:
        raise Wrong(f"answers HTTP {answer.status} for its {what}")
    if answer.is_page():
        raise Wrong(f"answers with a web page instead of a {kind}")
    return answer.body


def _index_content(answer: Answer, listed: Listed, lister: str) -> bytes | None:
    """Return the unpacked package index, None when it cannot be unpacked here; it must be the one that is listed."""
    body = _body(answer, "package index", "package index")
    if not answer.whole:
        raise Wrong(f"has a package index of more than {MAX_INDEX >> 20} MiB")
    encoding = answer.headers.get("Content-Encoding", "")
    if not listed.matches(body) and "gzip" in encoding:
        # sent packed although nobody asked for it
        body = mirror_index.unpack(".gz", body) or b""
    if not listed.matches(body):
        raise Wrong(f"has a package index that is not the one its {lister} lists")
    return mirror_index.unpack(listed.path, body)


def sample(visit: Visit, url: str, listed: Listed, limit: int, what: str, **options: t.Any) -> Sample:
    """Read the beginning of a file, which must be the one that is listed as far as that can be seen; time it."""
    answer = visit.get(url, limit, seconds=SAMPLE_SECONDS, **options)
    body = _body(answer, what, what)
    encoded = "Content-Encoding" in answer.headers
    size = len(body) if answer.whole else answer.length
    if listed.size and size is not None and size != listed.size and not encoded:
        raise Wrong(f"has a {what} of {size} bytes where its index says {listed.size}")
    if answer.whole and listed.digest and not encoded and not listed.matches(body):
        raise Wrong(f"has a {what} that is not the one its index lists")
    return answer.sample


def file(visit: Visit, url: str, want: Want) -> Sample:
    """Check a plain file: it is there, no web page in its place, and has the digest when it is short enough to tell."""
    visit.sampling = True
    answer = visit.get(url, want.sample_bytes, seconds=SAMPLE_SECONDS)
    name = urllib.parse.urlsplit(url).path.rpartition("/")[2]
    wants_page = "." not in name or name.lower().endswith((".html", ".htm"))
    if answer.status == 404:
        raise Wrong("has no such file (HTTP 404)")
    if answer.status != 200:
        raise Wrong(f"answers HTTP {answer.status}")
    if answer.is_page() and not wants_page:
        raise Wrong("answers with a web page instead of a file")
    if not answer.body:
        raise Wrong("answers with an empty file")
    if want.sha256 and answer.whole and hashlib.sha256(answer.body).hexdigest() != want.sha256:
        raise Wrong("has another file than the one with the wanted sha256")
    visit.vouch()
    return answer.sample


def overdue(visit: Visit, floor: float) -> Sample:
    """Return the speed of a candidate whose time ran out while it was working; raise Wrong when it cannot be used."""
    reached = visit.so_far()
    limit = f"{visit.seconds:g} s"
    if not reached.size:
        raise Wrong(f"stopped answering within {limit}" if visit.vouched else f"no answer within {limit}")
    if not visit.vouched or (not visit.sampling and reached.rate() < floor):
        raise Wrong(f"is too slow to be checked ({reached.size} bytes in {reached.seconds:.0f} s)")
    return reached


def _quoted(path: str) -> str:
    return urllib.parse.quote(path, safe=PATH_CHARACTERS)
