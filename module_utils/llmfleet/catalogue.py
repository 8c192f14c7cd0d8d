"""Well-known models by short names, so that `model: qwen3-8b` works: the files of catalog/ and the user's own.

An entry says which repository each engine takes. What it says beside that (size, context, licence) is for people, and
approximate: what a plan counts with comes from the model itself. Pure.
"""

from __future__ import annotations

import difflib
import re
import typing as t
from dataclasses import dataclass, fields

from ansible.module_utils.llmfleet import model_words
from ansible.module_utils.llmfleet.errors import BadInput

ENGINES = ("llama_server", "vllm")
TASKS = ("chat", "embedding")
AUTO = "auto"
"""After the colon: not the entry's own type of weights, but the best one that fits."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_WORD = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?::([A-Za-z0-9_.+-]*))?(?:@([A-Za-z0-9_.+/-]*))?")


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue."""

    name: str
    title: str = ""
    why: str = ""
    """What it is good for, in a line."""
    llama_server: str = ""
    """Reference for that engine, "" when it can not serve it; without a type of weights, which is ``quant``."""
    vllm: str = ""
    quant: str = ""
    """Type of weights that llama_server takes unasked; "" is the best one that fits."""
    task: str = "chat"
    parameters: str = ""
    """Such as `8.2B`, and those used per token in brackets."""
    context_length: int = 0
    """Tokens it was trained for; 0 is not known."""
    licence: str = ""
    gated: tuple[str, ...] = ()
    """The engines whose repository goes only to those who accepted the licence there."""
    size: int = 0
    """Bytes of the files of ``quant``, rounded; 0 is not known."""
    tool_parser: str = ""
    """vLLM's `--tool-call-parser` for it; a hint, as its releases rename them."""
    reasoning_parser: str = ""
    """vLLM's `--reasoning-parser` for it; a hint likewise."""

    def reference(self, engine: str) -> str:
        """Return the reference for an engine, "" when it can not serve the model."""
        return str(getattr(self, engine, ""))


Catalogue = t.Mapping[str, Entry]

_TEXTS = tuple(row.name for row in fields(Entry) if row.type == "str" and row.name != "name")
_KEYS = tuple(row.name for row in fields(Entry) if row.name != "name")


def load(texts: t.Mapping[str, t.Any], overlay: t.Any = None) -> dict[str, Entry]:
    """Return the catalogue of files (name -> YAML text or data) with ``overlay``, the user's ``llm_catalog``, on it.

    The overlay maps names to entries: keys given there take the place of those of the file's entry of that name, and a
    null takes the entry away. Raises BadInput with a sentence that names the place, the model and the key.
    """
    raw: dict[str, tuple[str, dict[str, t.Any]]] = {}
    for file in sorted(texts):
        for name, row in _rows(_data(texts[file], file), file).items():
            if name in raw:
                raise BadInput(f"{file}: model {name} is in {raw[name][0]} already")
            raw[name] = (file, _row(row, f"{file}: model {name}"))
    for name, row in _rows(overlay, "llm_catalog").items():
        if row is None:
            raw.pop(name, None)
            continue
        raw[name] = ("llm_catalog", {**raw.get(name, ("", {}))[1], **_row(row, f"llm_catalog: model {name}")})
    return {name: _entry(name, row, f"{file}: model {name}") for name, (file, row) in sorted(raw.items())}


def resolve(services: t.Any, catalogue: Catalogue) -> t.Any:
    """Return ``services`` (the raw list of a host) with the catalogue's names replaced by references.

    A name may be followed by `:QUANT` or `:auto` and by `@REVISION`. What is no name of a catalogue stays as it is;
    what could only be one and is not there raises BadInput with the nearest names.
    """
    if not isinstance(services, list):
        return services
    return [_each(_resolved(service, catalogue), catalogue) for service in services]


def _each(service: t.Any, catalogue: Catalogue) -> t.Any:
    """Return ``service`` with the catalogue's names in its `models` replaced."""
    models = service.get("models") if isinstance(service, dict) else None
    if not isinstance(models, dict):
        return service
    found = {name: _resolved({**service, "model": model}, catalogue)["model"] for name, model in models.items()}
    return {**service, "models": found}


def _resolved(service: t.Any, catalogue: Catalogue) -> t.Any:
    model = service.get("model") if isinstance(service, dict) else None
    word = _WORD.fullmatch(model.strip()) if isinstance(model, str) else None
    if not word or word.group(0) == model_words.TINY or word.group(1).lower().endswith(".gguf"):
        return service
    entry = catalogue.get(word.group(1).lower())
    if not entry and service.get("state") == "absent":
        return service
    where = f"service {service.get('name')}: model {word.group(0)}"
    if not entry:
        raise BadInput(f"{where}: {_nearest(word.group(1).lower(), catalogue)}")
    return {**service, "model": _reference(entry, str(service.get("engine") or ENGINES[0]), word, where)}


def _reference(entry: Entry, engine: str, word: re.Match[str], where: str) -> str:
    reference, quant, revision = entry.reference(engine), word.group(2), word.group(3)
    if not reference:
        able = " and ".join(name for name in ENGINES if entry.reference(name))
        raise BadInput(
            f"{where}: the catalogue has no files of it for engine {engine}, only for {able}; change `engine`, or name "
            "a repository of a hub"
        )
    ref = model_words.parse(reference)
    if ref.kind != "hub" and (quant or revision):
        raise BadInput(
            f"{where}: the catalogue says {ref.shown}, of which there is one only: leave out what follows the name"
        )
    if quant == "" or revision == "":
        raise BadInput(f"{where}: nothing follows the {':' if quant == '' else '@'}")
    if engine == "vllm" and quant:
        raise BadInput(f"{where}: vLLM takes the whole repository {ref.repo}: leave :{quant} out")
    if ref.kind != "hub":
        return reference
    quant = quant or ref.quant or ("" if engine == "vllm" or ref.file else entry.quant)
    if quant.lower() == AUTO:
        quant = ""
    source = f"{ref.source}:" if ref.source else ""
    wanted = f"/{ref.file}" if ref.file and not word.group(2) else f":{quant}" if quant else ""
    revision = revision or ref.revision
    return f"{source}{ref.repo}{wanted}{'@' + revision if revision else ''}"


def _nearest(name: str, catalogue: Catalogue) -> str:
    close = difflib.get_close_matches(name, [*catalogue, model_words.TINY], n=3, cutoff=0.6)
    # what was left out of a name is in the middle of it as often as at its end
    close = close or [known for known in catalogue if name in known][:3]
    if close:
        return f"the catalogue has no such model; did you mean {' or '.join(close)}?"
    return (
        f"the catalogue has no such model, only {', '.join(catalogue) or 'an empty list'}; a model of a hub is given "
        "as ORG/NAME, one on the host by its absolute path"
    )


def _data(text: t.Any, file: str) -> t.Any:
    if not isinstance(text, str):
        return text
    # on the controller alone: hosts have no yaml
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        at = f" (line {line + 1})" if line is not None else ""
        raise BadInput(f"{file}: not valid YAML{at}") from None


def _rows(data: t.Any, where: str) -> dict[str, t.Any]:
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise BadInput(f"{where} must map names of models to entries, not be {type(data).__name__}")
    for name in data:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name == model_words.TINY:
            raise BadInput(
                f"{where}: {name!r} can not be the name of a model: use lower-case letters, digits, `.`, `_` and `-`"
            )
        if name.endswith(".gguf"):
            raise BadInput(f"{where}: {name!r} can not be the name of a model, because it looks like a file")
    return data


def _row(row: t.Any, where: str) -> dict[str, t.Any]:
    """Return the given keys of an entry, checked one by one."""
    if isinstance(row, str):
        row = dict.fromkeys(ENGINES, row)
    if not isinstance(row, dict):
        raise BadInput(f"{where}: must be a mapping or a reference, not {type(row).__name__}")
    for key, value in row.items():
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, n=1, cutoff=0.5)
            raise BadInput(
                f"{where}: unknown key `{key}` ({f'did you mean `{close[0]}`?' if close else ', '.join(_KEYS)})"
            )
        _check(key, value, where)
    return {key: value for key, value in row.items() if value is not None}


def _check(key: str, value: t.Any, where: str) -> None:
    if value is None:
        return
    if key in _TEXTS and (not isinstance(value, str) or not value.isprintable()):
        raise BadInput(f"{where}: `{key}` must be a line of text, not {value!r}")
    if key in ("context_length", "size") and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        unit = "tokens" if key == "context_length" else "bytes"
        raise BadInput(f"{where}: `{key}` must be a whole number of {unit}, not {value!r}")
    if key == "gated" and (not isinstance(value, (list, tuple)) or not all(word in ENGINES for word in value)):
        raise BadInput(f"{where}: `gated` must be a list of {', '.join(ENGINES)}, not {value!r}")
    if key == "task" and value not in TASKS:
        raise BadInput(f"{where}: `task` must be one of {', '.join(TASKS)}, not {value!r}")
    if key in ENGINES and value:
        _check_reference(value, f"{where}: `{key}`")


def _check_reference(value: str, where: str) -> None:
    try:
        model_words.parse(value)
    except BadInput as error:
        if re.match(r"(?i)https?:", value):
            raise BadInput(
                f"{where}: a file of the web is given with its sha256, in a service; name a repository"
            ) from None
        raise BadInput(f"{where}: {error}") from None


def _entry(name: str, row: dict[str, t.Any], where: str) -> Entry:
    entry = Entry(**{**row, "name": name, "title": row.get("title") or name, "gated": tuple(row.get("gated", ()))})
    if not entry.llama_server and not entry.vllm:
        raise BadInput(f"{where}: say where it comes from with `llama_server`, `vllm` or both")
    return entry
