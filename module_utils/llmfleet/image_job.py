"""What the llama_cpp_image module does on a host: look, choose, and make the image.

Edge code: this is where the pure parts (request, choice, Dockerfile, parsing) meet the host.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import sys
import typing as t
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ansible.module_utils.llmfleet import base_image as base
from ansible.module_utils.llmfleet import host_edge as edge
from ansible.module_utils.llmfleet import image_source as src
from ansible.module_utils.llmfleet import llama_image
from ansible.module_utils.llmfleet.build_host import BuildFailed, BuildHost, disk_problem, workplace
from ansible.module_utils.llmfleet.cpu_level import architecture, cpu_features, cpu_level
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engine_info import CLIENT_DIRS, summarise
from ansible.module_utils.llmfleet.engine_look import ask_client
from ansible.module_utils.llmfleet.image_builder import Settings, build_image, choose_source, no_source, pull_image
from ansible.module_utils.llmfleet.image_choice import Choice, Published, acceptable, choose, keep
from ansible.module_utils.llmfleet.source_fetch import Fetcher
from ansible.module_utils.llmfleet.timed_run import timed_run

Data = dict[str, t.Any]
CA_PLACES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
SOURCES_FOLDER = Path("sources", "llama.cpp")
PULLED_RECORD = Path("sources", "llama_cpp_pulled")
"""The published images this module has pulled, one reference a line: they carry no label of ours."""


class ImageJob:
    """One run of the module; ``params`` are its parameters, ``run`` has the signature of run_command."""

    def __init__(self, params: t.Mapping[str, t.Any], check_mode: bool, run: t.Callable[..., t.Any]) -> None:
        self.params, self.check_mode, self.run = params, check_mode, run
        self.work = Path(params["work_dir"])
        self.docker = Docker(run, edge.find_program(params["docker_cli"]))
        self.request = self._request()
        self.published = Published(tuple(params["registries"]), params["repository"], params["tag"], params["digest"])
        self.log = edge.JobLog(self.work / "logs" / f"llama_cpp-{self.request.key()}.log", params["timeout"])
        self.builder, self.buildkit, self.info = self.docker, "none", t.cast(Data, {})
        self.tried: list[dict[str, str]] = []

    def _request(self) -> llama_image.BuildRequest:
        """Return what is asked for; its key says whether the image is there."""
        p = self.params
        arch = architecture(os.uname().machine)
        self.candidates, self.passed_over = src.for_ref(src.parse_sources(p["sources"]), p["ref"])
        request = llama_image.BuildRequest(
            ref=p["ref"],
            pins=tuple(candidate.pin() for candidate in self.candidates),
            cmake_flags=tuple(p["cmake_flags"]),
            cpu_level=cpu_level(p["cpu_level"], arch, cpu_features(edge.read_text("/proc/cpuinfo"))).name,
            variant=p["variant"],
            architecture=arch,
            base=base.check_base(p["base"] or base.host_base(edge.read_text("/etc/os-release"))),
            targets=tuple(p["targets"]),
        )
        llama_image.check_request(request)
        return request

    def provide(self) -> Data:
        """Make sure of the image, or in check mode say how; return the module's result."""
        images = acceptable(self.params["source"], self.published, self.request)
        present = edge.images_present(self.docker, images, lenient=self.check_mode)
        choice = keep(present, images)
        if choice:
            return self._report(choice, present[choice.image], changed=False)
        self._look_at_engine()
        host = BuildHost(
            docker=self.builder,
            run=self.run,
            stream=self.log.stream,
            opener=self._opener(),
            work=self.work,
            log=self.log.path,
            info=self.info,
            environment=os.environ,
            tried=self.tried,
        )
        choice, tried = choose(self.params["source"], self.published, self.request, host.registry_problem)
        self.tried += tried
        if self.check_mode:
            extra = self._plan_build(host) if choice.action == "build" else {}
            return self._report(choice, {}, changed=True, **extra)
        with edge.exclusive(self.work):
            choice, extra = self._make(host, choice)
        present = edge.images_present(self.docker, [choice.image])
        return self._report(choice, present[choice.image], changed=True, **extra)

    def _make(self, host: BuildHost, choice: Choice) -> tuple[Choice, Data]:
        if choice.action == "pull":
            try:
                pull_image(host, choice.image)
            except BuildFailed as problem:
                if self.params["source"] == "pull":
                    raise
                host.note(choice.image, str(problem))
                choice = Choice("build", self.request.image(), "the pull of the published image failed")
            else:
                record = self.work / PULLED_RECORD
                record.parent.mkdir(parents=True, exist_ok=True)
                with open(record, "a", encoding="utf-8") as lines:
                    lines.write(f"{choice.image}\n")
                return choice, {}
        return choice, self._build(host)

    def _build(self, host: BuildHost) -> Data:
        self._check_disk()
        self.tried += self.passed_over
        with workplace(self.work, "build-") as context:
            fetched = choose_source(host, self._fetcher(), self.candidates, self.request.ref, context / "source")
            kind, reference = host.make_base(self.request.base, self._base_references())
            labels = {
                llama_image.LABEL_SOURCE: fetched.source.label(),
                base.LABEL_BASE: f"{reference} {self._image_id(reference)}",
                "org.opencontainers.image.title": "llama.cpp",
                "org.opencontainers.image.revision": fetched.commit or self.request.ref,
            }
            how = Settings(reference, self.buildkit, self._jobs(), self._ca_bundle(), labels)
            build_image(host, self.request, context, how)
        return {
            "base": {"kind": kind, "image": reference},
            "build_source": {"candidate": fetched.source.label(), "commit": fetched.commit},
            "buildkit": self.buildkit,
        }

    def _image_id(self, reference: str) -> str:
        return str((self.docker.inspect("image", reference) or {}).get("Id", ""))

    def _plan_build(self, host: BuildHost) -> Data:
        """Say what a build would start from; fail when nothing would deliver the source."""
        fetcher = self._fetcher()
        with ThreadPoolExecutor(max_workers=8) as pool:
            finding = pool.submit(host.find_base, self.request.base, self._base_references())
            answers = list(pool.map(lambda candidate: self._source_problem(fetcher, candidate), self.candidates))
            kind, reference = finding.result()
        self.tried += self.passed_over
        self.tried += [
            {"candidate": candidate.label(), "result": problem or "would be used"}
            for candidate, problem in zip(self.candidates, answers)
        ]
        if all(answers):
            raise src.SourceError(no_source(self.tried))
        return {"base": {"kind": kind, "image": reference}}

    def _source_problem(self, fetcher: Fetcher, candidate: src.Source) -> str:
        try:
            if not fetcher.cached(candidate, self.request.ref):
                fetcher.probe(candidate)
        except src.SourceError as problem:
            return str(problem)
        return ""

    def _look_at_engine(self) -> None:
        """Find the client to build with and what the engine says of itself."""
        p = self.params
        own = [p["build_cli"]] if p["build_cli"] else [self.docker.executable, *(f"{d}/docker" for d in CLIENT_DIRS)]
        paths = {os.path.realpath(found): found for found in map(edge.find_program, filter(None, own)) if found}
        clients = [ask_client(path)[0] for path in paths.values()]
        engine = summarise(clients, edge.find_program("dockerd"))
        if not engine.reachable:
            if self.check_mode:
                self.builder = Docker(self.run, "")
                return
            raise BuildFailed(f"An image cannot be made: {engine.error}.")
        self.builder = Docker(self.run, engine.build_cli)
        self.buildkit = engine.buildkit if p["buildkit"] == "auto" else p["buildkit"]
        self.info = dict(next(client.info for client in clients if client.path == engine.cli))

    def _check_disk(self) -> None:
        root = str(self.info.get("DockerRootDir") or "/var/lib/docker")
        place = self.work
        while not place.exists():
            place = place.parent
        local = self.info.get("Name") == os.uname().nodename and os.path.isdir(root)
        shared = local and os.stat(root).st_dev == os.stat(place).st_dev
        docker_free = shutil.disk_usage(root).free if local else None
        problem = disk_problem(root, docker_free, str(place), shutil.disk_usage(place).free, shared)
        if problem:
            raise BuildFailed(problem)

    def _jobs(self) -> int:
        if self.params["jobs"] > 0:
            return int(self.params["jobs"])
        return llama_image.jobs(int(self.info.get("NCPU") or 1), int(self.info.get("MemTotal") or 0))

    def _base_references(self) -> list[str]:
        return base.base_references(self.params["base_images"], self.request.base)

    def _ca_bundle(self) -> str:
        given = self.params["ca_bundle"]
        if given and not os.path.isfile(given):
            raise BuildFailed(f"ca_bundle {given} is not a file on this host; give the path of a PEM bundle.")
        places = (given, os.environ.get("SSL_CERT_FILE", ""), *CA_PLACES)
        return next((place for place in places if place and os.path.isfile(place)), "")

    def _opener(self) -> t.Callable[..., t.Any]:
        context = ssl.create_default_context(cafile=self._ca_bundle() or None)
        handler = urllib.request.HTTPSHandler(context=context)
        return urllib.request.build_opener(handler).open

    def _fetcher(self) -> Fetcher:
        return Fetcher(
            folder=self.work / SOURCES_FOLDER,
            run=self.run,
            opener=self._opener(),
            connect=socket.create_connection,
            git=edge.find_program("git") or None,
            index=self._index,
            environment=os.environ,
        )

    def _index(self) -> str:
        """Return the package index: asked for, else what this host's pip uses, else the controller's."""
        p = self.params
        configured = src.index_from_config(edge.read_text(os.path.expanduser(file)) for file in src.PIP_CONFIG_FILES)
        found = src.choose_index(p["pypi_index"], os.environ, configured, "", "")
        if found:
            return found
        pythons = dict.fromkeys(filter(None, (edge.find_program("python3"), "/usr/bin/python3", sys.executable)))
        answers = (timed_run([python, "-c", src.ASK_PIP], 20) for python in pythons)
        builtin = next((answer.out.strip() for answer in answers if answer.rc == 0), "")
        return src.choose_index("", {}, "", builtin, p["pypi_index_fallback"])

    def _report(self, choice: Choice, image: Data, changed: bool, **more: t.Any) -> Data:
        before = choice.image if choice.action == "keep" else None
        return {
            "changed": changed,
            "action": choice.action,
            "image": choice.image,
            "why": choice.why,
            "image_id": str(image.get("Id") or ""),
            "size_bytes": int(image.get("Size") or 0),
            "build_key": self.request.key(),
            "cpu_level": self.request.cpu_level,
            "diff": {"before": {"image": before}, "after": {"image": choice.image}},
            **more,
        }
