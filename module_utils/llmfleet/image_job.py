"""What the llama_cpp_image module does on a host: look, choose, make the image, and clear older ones away.

Edge code: this is where the pure parts (request, choice, Dockerfile, parsing) meet the host.
"""

from __future__ import annotations

import os
import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from ansible.module_utils.llmfleet import base_image as base
from ansible.module_utils.llmfleet import (
    build_engine,
    image_look,
    image_prune,
    image_request,
    image_result,
    pulled_images,
)
from ansible.module_utils.llmfleet import host_edge as edge
from ansible.module_utils.llmfleet import image_source as src
from ansible.module_utils.llmfleet.build_host import BuildFailed, BuildHost, build_context
from ansible.module_utils.llmfleet.cpu_level import architecture, cpu_features, cpu_level
from ansible.module_utils.llmfleet.cuda_wheels import WheelStore
from ansible.module_utils.llmfleet.docker_cli import Docker, DockerError
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.gpu_access import docker_words
from ansible.module_utils.llmfleet.gpu_way import settle
from ansible.module_utils.llmfleet.image_builder import Settings, build_image, choose_source, no_source, pull_image
from ansible.module_utils.llmfleet.image_choice import Choice, Published, choose, keep
from ansible.module_utils.llmfleet.latest_ref import LATEST
from ansible.module_utils.llmfleet.published_images import llama_cpp
from ansible.module_utils.llmfleet.python_parts import PythonStore, python_store
from ansible.module_utils.llmfleet.source_fetch import Fetcher
from ansible.module_utils.llmfleet.source_host import ca_bundle, make_fetcher, package_places
from ansible.module_utils.llmfleet.toolchain_choice import Places, choose_toolchain, make_toolchain

Data = dict[str, t.Any]
UNKNOWN_REF = "unknown"
WHEELS_FOLDER = image_prune.SOURCES_FOLDER / "cuda"


class ImageJob:
    """One run of the module; ``params`` are its parameters, ``run`` has the signature of run_command."""

    def __init__(self, params: t.Mapping[str, t.Any], check_mode: bool, run: t.Callable[..., t.Any]) -> None:
        self.params, self.check_mode, self.run = params, check_mode, run
        self.work = Path(params["work_dir"])
        self.docker = Docker(run, edge.find_program(params["docker_cli"]))
        if params["keep"] < 0:
            raise BadInput(f"keep is a number of images, 0 or more, not {params['keep']}.")
        rows = list(src.DEFAULT_SOURCES) if params["sources"] is None else params["sources"]
        self.candidates, self.passed_over = src.for_ref(src.parse_sources(rows), params["ref"])
        self.request = self._request()
        self.published = self._published()
        self.log = edge.JobLog(self.work / "logs" / f"llama_cpp-{self.request.key()}.log", params["timeout"])
        self.tried: list[dict[str, str]] = []

    def _gpu(self) -> tuple[str, ...]:
        """Return the words of `docker run` that give a container the GPUs, none where there are none."""
        access = self.params["gpu_access"]
        if not access:
            return ()
        # the plan may be older than the engine, which alone knows whether it has device lists
        return tuple(docker_words(settle(self.docker, access) if self.docker.executable else access))

    def _request(self) -> image_request.BuildRequest:
        """Return what is asked for; its recipe and its key say whether the image is there."""
        p = self.params
        if p["ref"] == LATEST:
            raise BadInput("ref latest is another one every day; give what llama_cpp_ref returns for it.")
        if not p["ref"] and p["source"] != "pull":
            raise BadInput("ref is empty, so nothing can be built; name a commit or tag, or set source to pull.")
        arch = architecture(os.uname().machine)
        asked = p["cpu_level"]
        wanted = p["cpu_level_planned"] if asked == "auto" and p["cpu_level_planned"] else asked
        request = image_request.BuildRequest(
            ref=p["ref"] or UNKNOWN_REF,
            pins=tuple(candidate.pin() for candidate in self.candidates),
            cmake_flags=tuple(p["cmake_flags"]),
            cpu_level=cpu_level(wanted, arch, cpu_features(edge.read_text("/proc/cpuinfo"))).name,
            cpu_level_asked=asked,
            variant=p["variant"],
            contents=p["contents"],
            architecture=arch,
            base_asked=base.check_base(p["base"]) if p["base"] else "",
            architectures=tuple(p["architectures"]),
            toolkits=tuple(p["toolkits"]),
            fa_all_quants=p["fa_all_quants"],
        )
        image_request.check_request(request, builds=p["source"] != "pull" and not p["received"])
        return request

    def _published(self) -> Published:
        p, tag, why = self.params, self.params["tag"], self.params["published_why"]
        if tag is None and not p["digest"]:
            if p["variant"] == "cuda":
                tag, why = "", "the plan names no published image for these GPUs"
            else:
                host = {"host": "", "architecture": self.request.architecture, "capabilities": []}
                verdict = llama_cpp(p["variant"], p["contents"], self.request.ref, host)
                tag, why = verdict.tag, verdict.why
        return Published(tuple(p["registries"]), p["repository"], tag or "", p["digest"], why)

    def provide(self) -> Data:
        """Make sure of the image, or in check mode say how; return the module's result."""
        images = self._images(lenient=self.check_mode)
        choice = keep(self.params["source"], self.published, self.request, images)
        if choice:
            if self.params["received"] and not self.check_mode and choice.image in self.published.references():
                pulled_images.add(self.work, choice.image, (self.request.variant, self.request.contents))
            return self._report(choice, images, made=False)
        p = self.params
        if p["received"]:
            raise BadInput("The image that was received is not on this host; send it again, or set received to false.")
        engine = build_engine.look(self.run, self.docker.executable, p["build_cli"], p["buildkit"], self.check_mode)
        host = engine.host(self.run, self.log, self._fetcher.opener, self.work, self.tried)
        choice, tried = choose(p["source"], self.published, self.request, host.registry_problem)
        self.tried += tried
        if self.check_mode:
            extra = self._plan_build(host) if choice.action == "build" else {}
            return self._report(choice, images, made=True, **extra)
        with edge.exclusive(self.work):
            # another run may have made it while this one waited
            there = keep(p["source"], self.published, self.request, self._images())
            choice, extra = (there, {}) if there else self._make(host, engine, choice)
        return self._report(choice, self._images(), made=choice.action != "keep", **extra)

    def _images(self, lenient: bool = False) -> list[Data]:
        """Return the llama.cpp images of the engine (rows of image_look); ``lenient`` takes no engine for no image."""
        if not self.docker.executable and not lenient:
            raise DockerError("There is no docker client on this host; install docker first.")
        if not self.docker.executable:
            return []
        rc, out, err = self.docker.attempt("images", "--no-trunc", "--format", image_look.LISTED)
        if rc != 0 and not lenient:
            raise DockerError(f"docker images failed: {' '.join((err or out).split())}")
        wanted = image_look.candidates(out) if rc == 0 else []
        if not self.published.repository.endswith(f"/{image_look.LAST_PART}"):
            wanted += self.published.references()
        return image_look.read(self.docker.attempt("image", "inspect", *wanted)[1]) if wanted else []

    def _make(self, host: BuildHost, engine: build_engine.BuildEngine, choice: Choice) -> tuple[Choice, Data]:
        request = self.request
        if choice.action == "pull":
            try:
                pull_image(host, choice.image, request.variant, request.programs()[0], self._gpu())
            except BuildFailed as problem:
                if self.params["source"] == "pull":
                    raise
                host.note(choice.image, str(problem))
                choice = Choice("build", request.image(), "the pull of the published image failed")
            else:
                pulled_images.add(self.work, choice.image, (request.variant, request.contents))
                return choice, {}
        return choice, self._build(host, engine)

    def _build(self, host: BuildHost, engine: build_engine.BuildEngine) -> Data:
        p, places = self.params, self._places()
        likely = choose_toolchain(replace(host, tried=[]), self.request, places)
        python = self._python()
        big = (likely.toolchain.kind != "base" and likely.how != "present") or python is not None
        engine.check_disk(self.work, sdk=big)
        self.tried += self.passed_over
        with build_context(self.work) as context:
            fetched = choose_source(host, self._fetcher, self.candidates, self.request, context / "source")
            os.utime(fetched.path)  # those used last are kept
            if python:
                python.bring(context, with_ca=bool(ca_bundle(p["ca_bundle"])))
                self.tried += python.tried
            chosen = make_toolchain(host, self.request, places, context)
            labels = {
                image_request.LABEL_SOURCE: fetched.source.label(),
                base.LABEL_BASE: f"{chosen.toolchain.base} {self._image_id(chosen.toolchain.base)}",
                "org.opencontainers.image.title": "llama.cpp",
                image_request.LABEL_REVISION: fetched.commit or self.request.ref,
            }
            how = Settings(engine.buildkit, engine.jobs(p["jobs"]), ca_bundle(p["ca_bundle"]), labels, self._gpu())
            build_image(host, self.request, chosen.toolchain, context, how)
        return {
            **image_result.toolchain(chosen),
            "build_source": {"candidate": fetched.source.label(), "commit": fetched.commit},
            "buildkit": engine.buildkit,
        }

    def _image_id(self, reference: str) -> str:
        return str((self.docker.inspect("image", reference) or {}).get("Id", ""))

    def _plan_build(self, host: BuildHost) -> Data:
        """Say what a build would start from; fail when nothing would deliver the source or a toolchain."""
        with ThreadPoolExecutor(max_workers=8) as pool:
            choosing = pool.submit(choose_toolchain, host, self.request, self._places())
            answers = list(pool.map(lambda candidate: self._source_problem(candidate), self.candidates))
            chosen = choosing.result()
        self.tried += self.passed_over
        self.tried += [
            {"candidate": candidate.label(), "result": problem or "would be used"}
            for candidate, problem in zip(self.candidates, answers)
        ]
        if all(answers):
            raise src.SourceError(no_source(self.tried))
        python = self._python()
        if python and (problem := python.missing()):
            raise src.SourceError(problem)
        return image_result.toolchain(chosen)

    def _source_problem(self, candidate: src.Source) -> str:
        try:
            if not self._fetcher.cached(candidate, self.request.ref):
                self._fetcher.probe(candidate)
        except src.SourceError as problem:
            return str(problem)
        return ""

    @cached_property
    def _fetcher(self) -> Fetcher:
        return make_fetcher(self.params, self.work / image_prune.SOURCES_FOLDER, self.params["timeout"])

    def _python(self) -> PythonStore | None:
        return python_store(self.params, self._fetcher, self.request)

    def _places(self) -> Places:
        p = self.params
        distribution = base.host_base(edge.read_text("/etc/os-release"))
        wheels = WheelStore(
            self._fetcher,
            lambda: package_places(p["pypi_index"], p["pypi_index_fallback"]),
            self.work / WHEELS_FOLDER,
        )
        return Places(distribution, tuple(p["base_images"]), wheels, tuple(p["cuda_images"]))

    def _prune(self, chosen: str, images: t.Sequence[Data], made: bool) -> tuple[list[str], Data]:
        """Take older images of this kind away, and after a build older sources; return (what went, what is in use)."""
        family = (self.request.variant, self.request.contents)
        # of the same recipe are those that the builder makes for other GPUs of the fleet
        label, recipe = image_request.LABEL_RECIPE, self.request.recipe()
        others = [row for row in images if row["labels"].get(label) != recipe]
        old = image_prune.older(others, chosen, family, self.params["keep"], pulled_images.read(self.work))
        if self.check_mode:
            return image_prune.prune(self.docker, self.work, old, check_mode=True)
        if not (old or made):
            return [], {}
        with edge.unless_busy(self.work) as free:
            if not free:  # somebody builds, perhaps for an hour; the next run prunes
                return [], {}
            gone, stays = image_prune.prune(self.docker, self.work, old, check_mode=False)
            return gone + (image_prune.prune_sources(self.work, self.params["keep"]) if made else []), stays

    def _report(self, choice: Choice, images: t.Sequence[Data], made: bool, **more: t.Any) -> Data:
        pruned, in_use = self._prune(choice.image, images, made)
        said = image_result.describe(choice, images, self.request, pruned)
        return {"changed": made or bool(pruned), **said, "pruned": pruned, "in_use": in_use, **more}
