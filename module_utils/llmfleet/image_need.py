"""What one host needs of the llama.cpp image, and whether an image will do for it. Pure.

From host_info's facts of the host and the inputs of the role llama_cpp_image there; image_fleet makes one plan of the
needs of all hosts.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import cpu_level, cuda_plan, engine_info, gpus, image_request, image_source
from ansible.module_utils.llmfleet import published_images as published
from ansible.module_utils.llmfleet.base_image import BOOTSTRAPPED, DEFAULT_BASE, check_base
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.registries import join_reference
from ansible.module_utils.llmfleet.services import parse_all

Data = dict[str, t.Any]

AUTO, CPU, CUDA = "auto", "cpu", "cuda"
PULL, BUILD = "pull", "build"
ANY, NONE = "any", "none"
CONTROLLER = "controller"

INPUTS = (
    *("source", "variant", "contents", "ref", "ref_why", "sources", "cmake_flags", "fa_all_quants", "cpu_level"),
    *("base", "ptx", "cuda_toolkit", "registries", "repository", "tag", "digest", "builder", "builder_known"),
    *("controller", "toolkit"),
)
"""Named after the role's variables; ``ref_why`` says why `latest` could not be resolved, ``controller`` is the
controller's machine architecture where that is to build, ``toolkit`` the plan of nvidia_container_toolkit or {}."""

OTHER_BACK_ENDS = {"amd": "rocm", "intel": "intel", "moore_threads": "musa"}


def choose_variant(facts: Data, asked: str, wanted: str) -> tuple[str, str]:
    """Return (variant, why) for a host; ``wanted`` is for which devices."""
    if asked != AUTO:
        return asked, f"llama_cpp_image_variant is {asked}"
    if wanted == CPU:
        return CPU, "all services ask for the processor"
    gpu = facts["gpu"]
    if gpu["verdict"] == gpus.GPU:
        if facts["docker"]["problem"] == engine_info.ELSEWHERE:
            return CPU, "its docker engine is on another machine, whose GPUs are not known"
        return CUDA, gpu["reason"]
    others = sorted({card["vendor"] for card in gpu["gpus"] if card["vendor"] in OTHER_BACK_ENDS})
    if others:
        titles = " and ".join(gpus.VENDOR_TITLES[vendor] for vendor in others)
        back_end = OTHER_BACK_ENDS[others[0]]
        return CPU, f"its {titles} GPU is used only when asked for: set llama_cpp_image_variant to {back_end}"
    return CPU, gpu["reason"]


def make(facts: Data, inputs: Data, host: str, wanted: str = ANY) -> Data:
    """Return the need of ``host``; ``wanted`` is for which devices it is to have an image (any, cpu, none).

    ``recipe`` identifies what a build for it is made from; ``references`` are what to pull for it instead, with
    ``tag``, empty where no published image fits, for the reason ``published_why``. ``problems`` and ``warnings`` are
    sentences without the host's name.
    """
    machine, docker = facts["machine"], facts["docker"]
    need: Data = {"host": host, "wanted": wanted, "problems": [], "warnings": [], "images": facts["images"]}
    need.update(cpus=machine["cpus"], memory_bytes=machine["memory_bytes"], built_at=machine["built_at"])
    need.update(disk_free_bytes=docker["disk_free_bytes"], base=inputs["base"])
    need.update({name: inputs[name] for name in ("source", "contents", "ref", "ref_why", "builder", "ptx")})
    need["cuda_toolkit"] = inputs["cuda_toolkit"]
    need["cpu_level"], need["cpu_level_asked"] = machine["cpu_level"], inputs["cpu_level"]
    need["variant"], need["variant_why"] = choose_variant(facts, inputs["variant"], wanted)
    need["gpu_access"] = _gpu_access(facts, inputs["toolkit"])
    # the toolkits that there is a choice of, where it turns out that not all can be had (image_rounds)
    need.update(pool=[], pool_why="", distribution=inputs["base"] or _distribution(facts["platform"]))
    need.update(recipe="", tag="", references=[], published_why="", architecture="")
    try:
        need["architecture"] = architecture = cpu_level.architecture(facts["platform"]["architecture"])
        need.update(cuda_plan.row_of(host, architecture, facts["gpu"]))
        if wanted != NONE:
            _check_builder(need, inputs)
            _check_level(need)
            need["recipe"] = _recipe(need, inputs)
            _published(need, inputs)
    except BadInput as problem:
        need["problems"].append(str(problem))
    return need


def _distribution(platform: Data) -> str:
    """Return what a build on the host starts from, as base_image.host_base says it on the host."""
    known = platform["distribution_id"] in BOOTSTRAPPED and platform["codename"]
    return f"{platform['distribution_id']}:{platform['codename']}" if known else DEFAULT_BASE


def _gpu_access(facts: Data, toolkit: Data) -> str:
    """Return how containers get the host's NVIDIA GPUs, "" when they get none or nothing is known."""
    if facts["gpu"]["verdict"] != gpus.GPU or toolkit.get("action", "") in ("", "skip", "refuse", "remove"):
        return ""
    return "nvidia_cdi" if toolkit["cdi"] else "nvidia"


def _check_builder(need: Data, inputs: Data) -> None:
    builder = inputs["builder"]
    if not inputs["builder_known"]:
        raise BadInput(
            f"llama_cpp_image_builder is {builder}, which is no host of the inventory; name one, or write auto or "
            f"{CONTROLLER}"
        )
    if builder == CONTROLLER and inputs["controller"]:
        found = cpu_level.ARCHITECTURES.get(inputs["controller"], inputs["controller"])
        if found != need["architecture"]:
            need["builder"] = AUTO
            need["warnings"].append(
                f"the controller ({found}) cannot build for {need['architecture']}, so a host of the fleet does"
            )


def _check_level(need: Data) -> None:
    """Refuse a processor level that the host does not have; `auto` never gives one."""
    asked = need["cpu_level_asked"]
    if asked == AUTO:
        return
    cpu_level.cpu_level(asked, need["architecture"], ())
    if level_rank(asked) < level_rank(need["cpu_level"]):
        raise BadInput(
            f"llama_cpp_image_cpu_level is {asked}, but its processor has {need['cpu_level'] or 'none of the levels'}; "
            "set auto"
        )


def level_rank(level: str) -> int:
    """Return how much a level asks of a processor, less being more; unknown ones ask for nothing."""
    names = [row.name for row in cpu_level.CPU_LEVELS]
    return names.index(level) if level in names else len(names)


def _words(value: t.Any) -> tuple[str, ...]:
    """Return a list of strings as modules take it, which may come as one string with commas (-e name=a,b)."""
    return tuple(value.split(",")) if isinstance(value, str) else tuple(map(str, value))


def _recipe(need: Data, inputs: Data) -> str:
    """Return the recipe of the image that would be built. Raises BadInput."""
    if inputs["base"]:
        check_base(inputs["base"])
    if not need["ref"]:
        return ""
    usable, _passed = image_source.for_ref(image_source.parse_sources(inputs["sources"]), need["ref"])
    asked = inputs["cpu_level"]
    request = image_request.BuildRequest(
        ref=need["ref"],
        pins=tuple(candidate.pin() for candidate in usable),
        cmake_flags=_words(inputs["cmake_flags"]),
        cpu_level=need["cpu_level"] if asked == AUTO else asked,
        cpu_level_asked=asked,
        variant=need["variant"],
        contents=need["contents"],
        architecture=need["architecture"],
        fa_all_quants=inputs["fa_all_quants"],
        base_asked=inputs["base"],
        # what it covers is no part of the recipe, but a request has to be whole to be checked
        architectures=("86-real",) if need["variant"] == CUDA else (),
        toolkits=("12.8.1",) if need["variant"] == CUDA else (),
    )
    image_request.check_request(request)
    return request.recipe()


def _published(need: Data, inputs: Data) -> None:
    """Say which published image can stand in for a build."""
    tag, digest = inputs["tag"], inputs["digest"]
    if need["source"] == BUILD:
        return
    if inputs["cmake_flags"] or inputs["fa_all_quants"]:
        tag = digest = ""
        named = "llama_cpp_image_cmake_flags" if inputs["cmake_flags"] else "llama_cpp_image_fa_all_quants"
        need["published_why"] = f"{named} can only be honoured by building"
    elif tag or digest:
        need["published_why"] = "it is named in llama_cpp_image_tag or llama_cpp_image_digest"
    elif need["variant"] == CUDA and (inputs["cuda_toolkit"] or inputs["ptx"]):
        named = "llama_cpp_image_cuda_toolkit" if inputs["cuda_toolkit"] else "llama_cpp_image_ptx"
        need["published_why"] = f"{named} can only be honoured by building"
    elif not need["ref"]:
        need["published_why"] = f"it is not known what `latest` is ({need['ref_why']})"
    else:
        verdict = published.llama_cpp(need["variant"], need["contents"], need["ref"], need)
        tag, need["published_why"] = verdict.tag, verdict.why
    if not (tag or digest):
        if need["source"] == PULL:
            raise BadInput(
                f"llama_cpp_image_source is pull, but {need['published_why']}; set llama_cpp_image_tag to a published "
                "one, or the source to auto or build"
            )
        return
    need["tag"] = tag
    need["references"] = [
        join_reference(name, inputs["repository"], tag, digest) for name in _words(inputs["registries"])
    ]


def wish(raw_services: t.Any) -> str:
    """Return for which devices the services of a host want the image (any, cpu, none). Raises BadInput."""
    own = [one for one in parse_all(raw_services) if one.engine == "llama_server" and not one.image]
    devices = {one.device for one in own if one.state == "started"}
    if not devices:
        return NONE
    return CPU if devices == {CPU} else ANY


def commit_in_use(images: t.Sequence[Data]) -> str:
    """Return the ref that the newest image built here was made of, "" when there is none; ``images`` of host_info."""
    for image in images:
        if image_request.LABEL_RECIPE in image["labels"]:
            return str(image["labels"].get(image_request.LABEL_REVISION, ""))
    return ""


def suitable(need: Data, image: Data) -> str:
    """Return the reference under which ``image`` (a row of host_info) does for a host, "" when it does not."""
    names = image["references"]
    pulled = [name for name in need["references"] if name in names]
    own = next((name for name in names if name.startswith(f"{image_request.REPOSITORY}:")), "")
    if need["source"] != PULL and own and _built_for(need, image["labels"]):
        return own
    return pulled[0] if pulled else ""


def _built_for(need: Data, labels: Data) -> bool:
    """Whether an image that was built covers the host; without a known ref any recipe of the same kind will do."""
    kind = (labels.get(image_request.LABEL_VARIANT), labels.get(image_request.LABEL_CONTENTS))
    if kind != (need["variant"], need["contents"]):
        return False
    if need["ref"] and labels.get(image_request.LABEL_RECIPE) != need["recipe"]:
        return False
    if level_rank(labels.get(image_request.LABEL_CPU_LEVEL, "")) < level_rank(need["cpu_level"]):
        return False
    if need["variant"] != CUDA:
        return True
    code = [entry for entry in labels.get(image_request.LABEL_ARCHITECTURES, "").split(";") if entry]
    toolkit = labels.get(image_request.LABEL_CUDA, "")
    served = cuda_plan.serves(toolkit, need)
    if need["ptx"] and (served != cuda_plan.FULL or not any(entry.endswith("-virtual") for entry in code)):
        return False
    asked = need["cuda_toolkit"]
    same_toolkit = not asked or toolkit == asked or toolkit.startswith(f"{asked}.")
    return bool(served) and same_toolkit and cuda_plan.covers(code, need["capabilities"])
