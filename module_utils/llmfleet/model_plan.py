"""Which files of a hub a host gets: the best that fit the memory its services have. Pure."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from ansible.module_utils.llmfleet import model_words
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub import choice, gguf_files, quants
from ansible.module_utils.llmfleet.hub.manifest import GGUF, Manifest, listing_from, manifest_from
from ansible.module_utils.llmfleet.hub.place import Place
from ansible.module_utils.llmfleet.memory.config_shape import from_config
from ansible.module_utils.llmfleet.memory.shape import Shape, shape_from
from ansible.module_utils.llmfleet.memory.terms import Verdict
from ansible.module_utils.llmfleet.memory_room import MemoryRoom, gives_up
from ansible.module_utils.llmfleet.model_rows import FETCH, KEEP, MISSING
from ansible.module_utils.llmfleet.service_device import device_of
from ansible.module_utils.llmfleet.services import Service, parse_all, with_more

Data = dict[str, t.Any]

WEIGHTS = (".safetensors", ".bin", ".pt")

FALLBACK_QUANT = "Q4_K_M"
"""Taken where no file fits whole: smaller ones lose more than layers on the CPU cost."""


def settle(
    plan: t.Sequence[Data],
    raw_services: t.Any,
    answers: t.Mapping[str, Data] | None,
    store: str,
    facts: Data | None = None,
    toolkit: Data | None = None,
    images: t.Mapping[str, Data] | None = None,
    others: t.Mapping[str, t.Sequence[Data]] | None = None,
) -> list[Data]:
    """Return the rows of a host with the files that were chosen for it.

    ``answers``: model -> what hub_listing said, or {msg} where it failed; None before the hubs are asked: then only
    what ``others`` (rows by host) have is looked at, so that a fleet has one commit of a model and needs no hub for it.
    ``store``: the folder of models; ``facts``: what host_info says, with the plans of ``toolkit`` and ``images`` (by
    engine): nothing is known of the host's memory without them. A row that cannot be had has ``problem``, one sentence.
    """
    settled = {(row["engine"], row["model"]): dict(row) for row in plan}
    memory = MemoryRoom(facts or {"machine": {}})
    for service, spends in _in_turn(parse_all(raw_services), memory):
        row = settled.get((service.engine, service.model))
        if service.state == "absent" or row is None or row.get("problem"):
            continue
        judge = _Judge(service, _gpus(service, facts, toolkit or {}, (images or {}).get(service.engine) or {}), memory)
        try:
            if row["action"] == MISSING and answers is None:
                _take(row, others or {}, judge, store)
            elif answers is not None and (row["action"] == MISSING or service.model in answers):
                row["asked"] = True
                _choose(row, service, answers.get(service.model, {}), judge, store)
            if row.get("shape") and service.state == "started":
                verdict = judge.ask(shape_from(row["shape"]))
                spends(verdict or Verdict(True))
        except BadInput as problem:
            row["problem"] = str(problem)
    return list(settled.values())


def _in_turn(
    services: t.Sequence[Service], memory: MemoryRoom
) -> t.Iterator[tuple[Service, t.Callable[[Verdict], None]]]:
    """Yield each model's service with what its verdict is told.

    Of a service with several models only some are in memory at once: the first ones, and the largest of the others.
    """
    for service in services:
        parts = with_more([service])
        fixed = service.loaded - 1 if service.models else len(parts)
        others: list[Verdict] = []
        for number, part in enumerate(parts):
            yield part, memory.take if number < fixed else others.append
        if others:
            memory.take(max(others, key=lambda verdict: verdict.total))


def _gpus(service: Service, facts: Data | None, toolkit: Data, image: Data) -> tuple[Data, ...]:
    """Return the GPUs that the service computes on; where that cannot work the plan of the service says it."""
    try:
        return device_of(service, facts["gpu"], toolkit, image).gpus if facts and image else ()
    except BadInput:
        return ()


@dataclass(frozen=True)
class _Judge:
    """What fits a service."""

    service: Service
    gpus: tuple[Data, ...]
    memory: MemoryRoom

    def ask(self, shape: Shape) -> Verdict | None:
        """Return the verdict on a model."""
        return self.memory.judge(self.service, shape, self.gpus)

    def whole(self, shape: Shape) -> bool:
        """Whether a model fits without giving anything up, as far as anything is known."""
        verdict = self.ask(shape)
        return verdict is None or (verdict.fits and not gives_up(verdict, shape))


def _take(row: Data, others: t.Mapping[str, t.Sequence[Data]], judge: _Judge, store: str) -> None:
    """Complete ``row`` with what another host has of the model, where that fits or there is nothing to choose."""
    ref = model_words.parse(row["model"], row["sha256"])
    settled = bool(ref.quant or ref.file or row["engine"] == "vllm")
    for host, plan in others.items():
        for other in plan:
            if (other["engine"], other["model"]) != (row["engine"], row["model"]) or other["action"] != KEEP:
                continue
            shape = shape_from(other["shape"]) if other.get("shape") else None
            if not other.get("manifest") or (shape and not settled and not judge.whole(shape)):
                continue
            _complete(row, manifest_from(other["manifest"]), str(other.get("source") or ""), store, shape)
            row["why"] = f"{host} has it"
            return


def _choose(row: Data, service: Service, answer: Data, judge: _Judge, store: str) -> None:
    """Complete ``row`` with the files that suit the service. Raises BadInput when there are none."""
    if "listing" not in answer:
        if row["action"] != MISSING:
            return  # it was only to be updated
        raise BadInput(f"model {service.model}: {answer.get('msg') or 'no source answered'}")
    ref = model_words.parse(row["model"], row["sha256"])
    listing = listing_from(answer["listing"])
    shape = shape_from(answer["shape"]) if answer.get("shape") else None
    earlier = manifest_from(row["manifest"]) if row.get("manifest") and row["action"] != MISSING else None
    if earlier and earlier.quant and not row.get("chosen") and not ref.file:
        # a newer commit of what is there, not another type of weights
        ref = replace(ref, quant=earlier.quant)
    limit, why = 0, ""
    if service.engine != "vllm" and not ref.quant and not ref.file and shape and shape.format == GGUF:
        limit, why = _limit(gguf_files.candidates(listing), shape, judge)
    manifest = choice.choose(listing, ref, service.engine, limit, trust_remote_code=service.trust_remote_code)
    if earlier and (earlier.key == manifest.key or (row.get("chosen") and earlier.size <= manifest.size)):
        return
    its_shape = _shape_of(shape, answer, manifest)
    _complete(row, manifest, str(answer.get("source") or listing.source), store, its_shape)
    row["why"] = f"{manifest.quant} {why}" if why else manifest.why or "it is not there"
    if earlier and earlier.commit != manifest.commit:
        row["why"] = f"{ref.revision or 'its default branch'} has moved on to {manifest.commit[:12]}"


def _complete(row: Data, manifest: Manifest, source: str, store: str, shape: Shape | None) -> None:
    row.update(
        action=FETCH,
        chosen=True,
        manifest=manifest.as_data(),
        source=source,
        path=Place(store, manifest.repo).location(manifest),
        total_size=manifest.size,
        format=manifest.format,
        shape=shape.as_data() if shape else {},
    )


def _limit(candidates: t.Sequence[gguf_files.Candidate], shape: Shape, judge: _Judge) -> tuple[int, str]:
    """Return the bytes that the files may have (0: nothing is known), and what to say about it.

    That is the size of the largest candidate that fits with everything on the device as asked; where none does, of
    the one that loses least by what the memory plan would have to give up.
    """
    compromises = []
    for candidate in sorted(candidates, key=lambda one: -one.size):
        verdict = judge.ask(shape.sized(candidate.size, candidate.quant))
        if verdict is None:
            return 0, ""
        if verdict.fits and not gives_up(verdict, shape):
            return candidate.size, f"is the best of {_types(candidates)} that fits"
        if verdict.fits:
            compromises.append(candidate)
    if compromises:
        usual = [one.size for one in compromises if quants.same(one.quant, FALLBACK_QUANT)]
        return (usual or [compromises[-1].size])[0], f"is the usual choice, as none of {_types(candidates)} fits whole"
    # too large even as the smallest: the plan of the service says by how much
    return min((one.size for one in candidates), default=0), "is the smallest there is"


def _types(candidates: t.Sequence[gguf_files.Candidate]) -> str:
    return f"{len(candidates)} types of weights" if len(candidates) > 1 else "all there is"


def _shape_of(shape: Shape | None, answer: Data, manifest: Manifest) -> Shape | None:
    """Return the shape of what was chosen: as it was read, or scaled from that of another quant."""
    if manifest.format != GGUF:
        if (shape is None or shape.format == GGUF) and answer.get("config"):
            weights = sum(file.size for file in manifest.files if file.path.endswith(WEIGHTS))
            return from_config(answer["config"], weights)
        return shape
    if shape is None or shape.format != GGUF or (shape.quant and quants.same(shape.quant, manifest.quant)):
        return shape if shape and shape.format == GGUF else None
    return shape.sized(manifest.size, manifest.quant)
