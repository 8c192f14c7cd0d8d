"""What a candidate must serve to count as a registry, or as a mirror of Docker Hub, and to have an image.

Protocol: github.com/opencontainers/distribution-spec, distribution.github.io/distribution/spec/auth/token.
"""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
import urllib.parse

from ansible.module_utils.llmfleet import registries
from ansible.module_utils.llmfleet.mirror_check import HUB, MAX_METADATA, Want, sample
from ansible.module_utils.llmfleet.mirror_edge import Answer, Visit
from ansible.module_utils.llmfleet.mirror_index import Listed, Wrong
from ansible.module_utils.llmfleet.mirror_rank import Sample

ACCEPTED = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def split_image(image: str, kind: str) -> tuple[str, str]:
    """Return (repository, tag or digest) of ``image`` as it is named below a registry's /v2/."""
    name, at, digest = image.partition("@")
    head, slash, tail = name.rpartition("/")
    last, _, tag = tail.partition(":")
    repository = f"{head}{slash}{last}"
    if kind == HUB:
        registry, rest = registries.split_reference(repository)
        repository = rest if registry == registries.HUB else repository
        # Docker Hub keeps its official images there
        repository = repository if "/" in repository else f"library/{repository}"
    return repository, digest if at else tag or "latest"


def registry(visit: Visit, url: str, want: Want) -> Sample:
    """Check that a registry answers, and that it delivers the image where one is wanted."""
    answer = visit.get(f"{url}/v2/", MAX_METADATA)
    if answer.is_page():
        raise Wrong("answers with a web page instead of a registry")
    if answer.status not in (200, 401):
        raise Wrong(f"answers HTTP {answer.status} instead of a registry's 200 or 401")
    if not _is_registry(answer):
        raise Wrong("does not answer like a registry")
    visit.vouch()
    return _Pull(visit, url, want).run() if want.image else Sample()


def _is_registry(answer: Answer) -> bool:
    challenge = _challenge(answer)
    if "registry/2" in answer.headers.get("Docker-Distribution-Api-Version", "") or challenge.get("realm"):
        return True
    try:
        return isinstance(json.loads(answer.body), dict)
    except (ValueError, RecursionError):
        return False


def _challenge(answer: Answer) -> dict[str, str]:
    """Return the parameters of a Bearer challenge, {} when there is none."""
    kind, _, rest = answer.headers.get("WWW-Authenticate", "").partition(" ")
    return dict(re.findall(r'(\w+)="([^"]*)"', rest)) if kind.lower() == "bearer" else {}


class _Pull:
    """What a pull would ask: the manifest, that of this machine, and the beginning of the largest layer."""

    def __init__(self, visit: Visit, url: str, want: Want) -> None:
        self._visit, self._want = visit, want
        self._repository, self._reference = split_image(want.image, want.kind)
        self._base = f"{url}/v2/{self._repository}"
        self._token: dict[str, str] = {}

    def run(self) -> Sample:
        """Return the speed at which a layer arrives."""
        manifest = self._manifest(self._reference)
        if isinstance(manifest.get("manifests"), list):
            manifest = self._manifest(self._of_this_machine(manifest["manifests"]))
        layers = [layer for layer in _dicts(manifest.get("layers")) if DIGEST.fullmatch(str(layer.get("digest")))]
        if not layers:
            raise Wrong(f"has a manifest of {self._want.image} that is not one of an image")
        largest = max(layers, key=_size)
        digest = str(largest["digest"])
        self._visit.sampling = True
        return sample(
            self._visit,
            f"{self._base}/blobs/{digest}",
            Listed(digest, _size(largest), digest.partition(":")[2]),
            self._want.sample_bytes,
            f"layer of {self._want.image}",
            headers=self._token,
        )

    def _manifest(self, reference: str) -> dict[str, t.Any]:
        url = f"{self._base}/manifests/{reference}"
        answer = self._visit.get(url, MAX_METADATA, {"Accept": ACCEPTED, **self._token})
        if answer.status == 401 and not self._token:
            self._token = self._login(answer)
            answer = self._visit.get(url, MAX_METADATA, {"Accept": ACCEPTED, **self._token})
        if answer.status in (401, 403):
            raise Wrong(f"gives {self._want.image} only after a login (HTTP {answer.status})")
        if answer.status == 404:
            raise Wrong(f"does not have {self._want.image} (HTTP 404)")
        if answer.status != 200:
            raise Wrong(f"answers HTTP {answer.status} for {self._want.image}")
        pinned = DIGEST.fullmatch(reference)
        if pinned and hashlib.sha256(answer.body).hexdigest() != pinned[1]:
            raise Wrong(f"has a manifest of {self._want.image} that does not have its digest")
        try:
            manifest = json.loads(answer.body)
        except (ValueError, RecursionError):
            manifest = None
        if not isinstance(manifest, dict):
            raise Wrong(f"has a manifest of {self._want.image} that cannot be read")
        return manifest

    def _login(self, refusal: Answer) -> dict[str, str]:
        """Return the header with the token that anybody gets."""
        challenge = _challenge(refusal)
        realm = challenge.get("realm", "")
        if not realm.startswith(("https://", "http://")):
            raise Wrong(f"gives {self._want.image} only after a login (HTTP 401)")
        scope = challenge.get("scope") or f"repository:{self._repository}:pull"
        asked = {"scope": scope, **({"service": challenge["service"]} if challenge.get("service") else {})}
        address = f"{realm}{'&' if '?' in realm else '?'}{urllib.parse.urlencode(asked)}"
        host = realm.split("/")[2].rpartition("@")[2]
        try:
            answer = self._visit.get(address, MAX_METADATA)
        except Wrong as problem:
            raise Wrong(f"sends to the token server {host}, which {problem}") from None
        try:
            said = json.loads(answer.body)
            token = said.get("token") or said.get("access_token")
        except (ValueError, RecursionError, AttributeError):
            token = None
        if answer.status != 200 or not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise Wrong(f"sends to the token server {host}, which gives no token (HTTP {answer.status})")
        return {"Authorization": f"Bearer {token}"}

    def _of_this_machine(self, manifests: t.Any) -> str:
        machine = MACHINES.get(self._want.architecture, self._want.architecture)
        for entry in _dicts(manifests):
            platform = next(iter(_dicts([entry.get("platform")])), {})
            fits = platform.get("os") == "linux" and (not machine or platform.get("architecture") == machine)
            if fits and DIGEST.fullmatch(str(entry.get("digest"))):
                return str(entry["digest"])
        raise Wrong(f"has {self._want.image} not for {machine or 'linux'}")


def _dicts(rows: t.Any) -> list[dict[str, t.Any]]:
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _size(layer: t.Mapping[str, t.Any]) -> int:
    size = layer.get("size")
    return size if isinstance(size, int) else 0
