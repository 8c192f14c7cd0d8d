"""An image by way of a registry in the own network: pushed by the host that has it, pulled by the others. Edge code.

Protocol: github.com/opencontainers/distribution-spec.
"""

from __future__ import annotations

import json
import re
import ssl
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass

from ansible.module_utils.llmfleet import registries
from ansible.module_utils.llmfleet.docker_cli import Docker, DockerError
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.image_identity import Image, from_inspect
from ansible.module_utils.llmfleet.timed_run import timed_run

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.oci.image.index.v1+json"
)
ASK_SECONDS = 5
LONGEST_MANIFEST = 4 << 20
CERTIFICATES = "/etc/docker/certs.d"

# what docker says (20.10 to 29), and what helps; the first that is found counts
_CAUSES = (
    (r"proxyconnect|Proxy Authentication", "the engine asks a proxy for it; add the registry to the engine's no_proxy"),
    (r"server gave HTTP response to HTTPS client|does not look like a TLS handshake",
     "it speaks plain HTTP, which the engine of this host does not accept; add {registry} to "
     "docker_engine_insecure_registries, or give the registry a certificate"),
    (r"certificate signed by unknown authority|certificate is not trusted|x509|certificate verify failed",
     "its certificate is not trusted on this host; put its CA into {certificates}/{registry}/ca.crt"),
    (r"connection refused", "nothing listens there; start the registry, or correct its name and port"),
    (r"no such host|server misbehaving|Temporary failure in name resolution",
     "its name does not resolve on this host; correct it, or the host's DNS"),
    (r"i/o timeout|deadline exceeded|Client\.Timeout|no route to host|network is unreachable|TLS handshake timeout",
     "it does not answer; see whether a firewall is between this host and the registry"),
    (r"no basic auth credentials|unauthorized|authentication required|denied|HTTP 401|HTTP 403",
     "it wants a login; run `docker login {registry}` as root on this host"),
    (r"manifest unknown|not found|name unknown", "it does not have the image; push it first"),
    (r"no space left on device", "there is no room left where the image goes; make some"),
)  # fmt: skip


def remote_name(image: str, registry: str) -> str:
    """Return how ``image`` is called in ``registry`` (host:port, or with a path below which images are kept)."""
    prefix = registry.rstrip("/")
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?(/[a-z0-9._-]+)*", prefix):
        raise BadInput(f"registry {registry!r} is no name of a registry; give HOST, HOST:PORT or HOST:PORT/PATH")
    host = prefix.partition("/")[0]
    if registries.split_reference(f"{host}/x")[0] != host:
        raise BadInput(f"docker takes {host!r} for a user of Docker Hub; give the registry's port, such as {host}:5000")
    if "@" in image:
        raise BadInput(f"{image} is named by its digest, which cannot be pushed; give it a tag and name that")
    rest = registries.split_reference(image)[1]
    name = f"{prefix}/{rest}"
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def explain(registry: str, said: str) -> str:
    """Return cause and fix for what docker said about a registry."""
    words = " ".join(said.split())
    for pattern, cause in _CAUSES:
        if re.search(pattern, words, re.IGNORECASE):
            return f"{registry}: " + cause.format(registry=registry, certificates=CERTIFICATES) + f" (docker: {words})"
    return f"{registry}: {words}"


@dataclass(frozen=True)
class Remote:
    """An image under its own name here, and under ``name`` in a registry."""

    docker: Docker
    image: str
    name: str
    timeout: float

    @property
    def registry(self) -> str:
        """Return HOST:PORT."""
        return self.name.partition("/")[0]

    def local(self, reference: str) -> Image | None:
        """Return the image that the engine has under a name."""
        found = self.docker.inspect("image", reference)
        return from_inspect(reference, found) if found else None

    def holds(self, image: Image) -> bool:
        """Whether the registry has the image under its name already; False when it does not tell."""
        info = json.loads(self.docker.text("info", "--format", "{{json .}}"))
        base = registries.api_urls(self.registry, registries.insecure_registries(info))[0][: -len("/v2/")]
        path, _, tag = self.name.partition("/")[2].rpartition(":")
        request = urllib.request.Request(  # noqa: S310 - http(s) by api_urls
            f"{base}/v2/{path}/manifests/{tag}", headers={"Accept": MANIFESTS}
        )
        openers = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._trust())
        )
        try:
            with openers.open(request, timeout=ASK_SECONDS) as answer:
                manifest = json.loads(answer.read(LONGEST_MANIFEST))
                digest = answer.headers.get("Docker-Content-Digest", "")
        except (OSError, ValueError):
            return False
        config = manifest.get("config") if isinstance(manifest, dict) else None
        return image.id in (digest, config.get("digest") if isinstance(config, dict) else "")

    def _trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        with suppress(OSError):  # without such a file the system's certificates are all there are
            context.load_verify_locations(f"{CERTIFICATES}/{self.registry}/ca.crt")
        return context

    def push(self) -> None:
        """Push the image; its second name is taken away again unless somebody had given it before."""
        before = self.local(self.name)
        self.docker.text("tag", self.image, self.name)
        try:
            self._run("push")
        finally:
            self._restore(before)

    def pull(self, wanted: Image) -> Image:
        """Pull the image and give it its own name; raise LlmfleetError when it is another one than ``wanted``."""
        before = self.local(self.name)
        self._run("pull")
        try:
            found = self.local(self.name)
            if found is None or not found.same(wanted):
                raise LlmfleetError(
                    f"{self.name} is {found.id if found else 'gone'} instead of {wanted.id}: somebody pushed another "
                    "image under this name; push the right one again"
                )
            self.docker.text("tag", self.name, self.image)
        finally:
            if self.name != self.image:
                self._restore(before)
        return found

    def _run(self, verb: str) -> None:
        answer = timed_run([self.docker.executable, verb, self.name], self.timeout)
        if answer.timed_out:
            raise DockerError(
                f"docker {verb} {self.name} took longer than {self.timeout:g} s; raise `timeout`, or see what is slow"
            )
        if answer.rc != 0:
            raise DockerError(f"docker {verb} failed: {explain(self.registry, answer.err.strip() or answer.said)}")

    def _restore(self, before: Image | None) -> None:
        if before:
            self.docker.text("tag", before.id, self.name)
        else:
            self.docker.attempt("rmi", "--no-prune", self.name)
