"""What model_fetch does for any kind of model, as one result: the generated one, files, folders, URLs, hubs."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet import gguf, model_file
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.hub import own_folder
from ansible.module_utils.llmfleet.hub.manifest import GGUF, SAFETENSORS, manifest_from
from ansible.module_utils.llmfleet.model_ref import ModelRef
from ansible.module_utils.llmfleet.model_store import Store
from ansible.module_utils.llmfleet.model_words import parse


@dataclass(frozen=True)
class _Look:
    """What is known of a model that is there."""

    files: tuple[str, ...] = ()
    fingerprint: str = ""
    size: int = 0
    total_size: int = 0
    gguf: t.Mapping[str, t.Any] | None = None
    shape: t.Mapping[str, t.Any] | None = None
    format: str = ""


def run(params: t.Mapping[str, t.Any], environ: t.Mapping[str, str], dry_run: bool) -> dict[str, t.Any]:
    """Return the result of model_fetch for its options; raises LlmfleetError that names the model."""
    ref = parse(params["model"], params["sha256"], params["name"])
    _check(params)
    try:
        if ref.kind == "hub":
            return _hub(ref, params, environ, dry_run)
        if ref.kind == "path" and own_folder.is_folder(ref.model):
            return _folder(ref)
        return _file(ref, params, dry_run)
    except LlmfleetError as error:
        said = str(error)
        raise type(error)(said if said.startswith("model ") else f"model {ref.shown}: {said}") from None
    except OSError as error:
        place = error.filename or params["dest"]
        raise LlmfleetError(f"model {ref.shown}: {place}: {error.strerror or error}") from None


def _check(params: t.Mapping[str, t.Any]) -> None:
    if not os.path.isabs(params["dest"]):
        raise BadInput(f"`dest` must be an absolute path, not {params['dest']!r}")
    for option, least, what in (("timeout", 1, "second"), ("connections", 1, "connection")):
        if params[option] < least:
            raise BadInput(f"`{option}` must be at least {least} {what}, not {params[option]}")
    for option in ("quant_limit", "lock_timeout"):
        if params[option] < 0:
            raise BadInput(f"`{option}` must not be negative, and is {params[option]}")
    if params["connections"] > 64:
        raise BadInput(f"`connections` must be at most 64, not {params['connections']}: hubs refuse those who ask more")
    if params["token"] and params["token_file"]:
        raise BadInput("`token` and `token_file` exclude each other")
    refuse_tokens(params["sources"])


def refuse_tokens(raw: t.Any) -> None:
    """Raise BadInput for a token within `sources`: what options of modules hold is logged."""
    rows = raw if isinstance(raw, (list, tuple)) else [raw]
    if any(isinstance(row, dict) and row.get("token") for row in rows):
        raise BadInput("`sources` may hold no `token`, which logs would show: use `token_file`, or the option `token`")


def with_token(environ: t.Mapping[str, str], token: str | None, token_file: str | None) -> dict[str, str]:
    """Return the environment with a token for Hugging Face, which the sources of that kind take from there."""
    found = dict(environ)
    if token or token_file:
        for name in ("HF_TOKEN", "HF_TOKEN_PATH"):
            found.pop(name, None)
    if token:
        found["HF_TOKEN"] = token
    if token_file:
        if not os.path.isfile(token_file):
            raise BadInput(f"there is no token file {token_file} on the host; create it or leave `token_file` out")
        found["HF_TOKEN_PATH"] = token_file
    return found


def _hub(ref: ModelRef, params: t.Mapping[str, t.Any], environ: t.Mapping[str, str], dry_run: bool) -> dict[str, t.Any]:
    # most runs find a file in its place and need nothing of hubs; loading it takes longer than they do
    from ansible.module_utils.llmfleet.hub.job import Job
    from ansible.module_utils.llmfleet.hub.wanted import Wanted

    wanted = Wanted(
        ref=ref,
        dest=params["dest"],
        sources=params["sources"],
        environ=with_token(environ, params["token"], params["token_file"]),
        manifest=manifest_from(params["manifest"]) if params["manifest"] else None,
        engine=params["engine"] or "",
        quant_limit=params["quant_limit"],
        trust_remote_code=params["trust_remote_code"],
        update=params["update"],
        verify=params["verify"],
        connections=params["connections"],
        timeout=params["timeout"],
        lock_timeout=params["lock_timeout"],
        peers=params["peers"] or (),
        archive=params["archive"] or {},
        log=params["log"] or "",
    )
    job = Job(wanted, dry_run)
    done = job.present() if params["state"] == "present" else job.absent()
    manifest = done.manifest
    path = job.place.location(manifest) if manifest else job.place.root
    look = _Look()
    if done.is_there and manifest:
        look = _look_at_file(path) if manifest.entry else _look_at_folder(path)
    shown = {} if manifest is None else manifest.as_data()
    return {
        **_result(done.changed, done.action, done.why, path, look, done.before, done.after),
        "manifest": shown,
        "source": done.source,
        "bytes_fetched": done.bytes_fetched,
        "seconds": done.seconds,
        "log": job.log if done.bytes_fetched else "",
        "tried": [dict(row) for row in done.tried],
        "format": manifest.format if manifest else "",
    }


def _folder(ref: ModelRef) -> dict[str, t.Any]:
    if ref.sha256:
        raise BadInput("a folder has no sha256: leave it out")
    return _result(False, "keep", "it is on the host", ref.model, _look_at_folder(ref.model))


def _file(ref: ModelRef, params: t.Mapping[str, t.Any], dry_run: bool) -> dict[str, t.Any]:
    place = Store(ref, params["dest"], params["timeout"], dry_run=dry_run)
    outcome = place.present() if params["state"] == "present" else place.absent()
    found = outcome.found
    look = _Look() if found is None else _of_file(found, os.path.isfile(found.files[0]))
    result = _result(outcome.changed, outcome.action, outcome.why, place.path, look, outcome.before, outcome.after)
    fetched = outcome.action == "download" and found is not None
    return {
        **result,
        "source": "url" if ref.kind == "url" else "",
        "bytes_fetched": found.size if fetched and found else 0,
    }


def _look_at_file(path: str) -> _Look:
    return _of_file(model_file.read(path), True)


def _of_file(found: model_file.ModelFile, on_disk: bool) -> _Look:
    shape = _gguf_shape(gguf.read_model(found.files) if on_disk and len(found.files) > 1 else found.header)
    return _Look(found.files, found.fingerprint, found.size, found.size, found.header.facts(), shape, GGUF)


def _look_at_folder(path: str) -> _Look:
    found = own_folder.read(path)
    shape = config_shape(found.config, found.size)
    return _Look(found.files, found.fingerprint, found.size, found.total_size, {}, shape, SAFETENSORS)


def _gguf_shape(header: gguf.GgufHeader) -> dict[str, t.Any]:
    from ansible.module_utils.llmfleet.memory.shape import from_gguf

    try:
        return from_gguf(header).as_data()
    except BadInput:
        # an architecture that no plan knows may still be served
        return {}


def config_shape(config: t.Mapping[str, t.Any], weights: int) -> dict[str, t.Any]:
    """Return what config.json and the bytes of the weights say about memory, {} when that is not known."""
    from ansible.module_utils.llmfleet.memory.config_shape import from_config

    try:
        return from_config(config, weights).as_data()
    except BadInput:
        return {}


def _result(
    changed: bool, action: str, why: str, path: str, look: _Look, before: str = "", after: str = ""
) -> dict[str, t.Any]:
    return {
        "changed": changed,
        "path": path,
        "files": list(look.files),
        "action": action,
        "why": why,
        "fingerprint": look.fingerprint,
        # where `path` is a file exit_json measures it itself and calls that `size`
        "size": look.size,
        "total_size": look.total_size,
        "gguf": dict(look.gguf or {}),
        "shape": dict(look.shape or {}),
        "format": look.format,
        "manifest": {},
        "source": "",
        "bytes_fetched": 0,
        "seconds": 0.0,
        "log": "",
        "tried": [],
        "diff": {"before": before, "after": after},
    }
