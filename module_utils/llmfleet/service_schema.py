"""The JSON schema of `llm_services`, for editors: made of the tables that services checks by. Pure.

It never refuses what services.parse_all accepts, and leaves to that what needs more than one look: addresses, keys for
public ones, names and ports used twice. Templates pass, as nobody knows what they become. The words are those that
drafts 7 and 2020-12 have in common, since editors know the former better (so `$ref` stands alone). `errorMessage` and
`patternErrorMessage` are what editors show; to validators they are annotations.
"""

from __future__ import annotations

import re
import typing as t

from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.schema_words import (
    TEMPLATE,
    Schema,
    any_case,
    not_,
    one_of,
    owned,
    ref,
    refusals,
    spelled,
    template,
    title,
)
from ansible.module_utils.llmfleet.service_fields import GPU_ENV, KEYS, RESERVED, SECRET_ENV, TASKS, Service, default_of
from ansible.module_utils.llmfleet.service_key import Key
from ansible.module_utils.llmfleet.service_options import MODEL_KEYS, NEEDS, NOT_WITH_MODELS
from ansible.module_utils.llmfleet.service_verify import LEVELS, NEEDS_TOKEN, VERIFY_KEYS, Verify

_TYPES: t.Mapping[t.Any, str] = {
    str: "string",
    bool: "boolean",
    list: "array",
    dict: "object",
    int: "integer",
    (int, float): "number",
}
_SEVERAL: Schema = {
    "required": ["models"],
    "properties": {"models": {"type": "object", "minProperties": 1}},
}
_PERHAPS: Schema = {**_SEVERAL, "properties": {"models": {"type": ["object", "string"], "minProperties": 1}}}
"""A template may be a mapping."""
_END = r"(?![\s\S])"
"""The end of a text; for Python `$` is also before a last line feed."""


def schema() -> Schema:
    """Return the schema of a file of variables (group_vars, host_vars) and of an inventory; its parts are `$defs`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Services of llmfleet",
        "description": "Variables of hosts with `llm_services` among them, or an inventory that has such variables.",
        "type": ["object", "null"],
        "properties": {"llm_services": ref("services")},
        "additionalProperties": ref("group"),
        "$defs": {
            "services": {
                "title": "Services",
                "description": "The services of a host, each with a `name` and a `port` of its own.",
                "type": ["array", "string"],
                "items": ref("service"),
                **template("a list of services"),
            },
            "service": _service(),
            "verify": _mapping("Verification", KEYS["verify"].about, VERIFY_KEYS, Verify),
            "rules": {**_rules(), **{name: _engine_rule(name) for name in ENGINES}},
            "variables": {
                "title": "Variables",
                "description": "Variables of a host or of a group, of which `llm_services` is checked.",
                "properties": {"llm_services": ref("services")},
            },
            "group": {
                "title": "Group",
                "description": "A group of an inventory; anything else passes.",
                "properties": {
                    "hosts": {"additionalProperties": ref("variables")},
                    "vars": ref("variables"),
                    "children": {"additionalProperties": ref("group")},
                },
            },
        },
    }


def _service() -> Schema:
    about = "A served model; only `name` must be given, and `model` and `port` for one that is not absent."
    service = _mapping("Service", about, KEYS, Service)
    properties = service["properties"]
    properties["engine"].update(one_of(tuple(ENGINES)))
    ends = "|".join(re.escape(end) for end in RESERVED)
    properties["name"]["pattern"] = f"^(?!.*(?:{ends})$)(?:{KEYS['name'].pattern})$|{TEMPLATE}"
    properties["name"].update(type="string", minLength=1)
    properties["bind"]["examples"] = [Service.bind, "0.0.0.0"]  # noqa: S104 - an example
    properties["gpus"]["items"] = {"type": ["integer", "string"]}
    properties["models"]["additionalProperties"] = {"type": "string", "minLength": 1}
    properties["models"]["propertyNames"] = {"pattern": f"^(?:{KEYS['models'].pattern})$"}
    properties["args"]["items"] = {"type": "string"}
    properties["env"]["additionalProperties"] = {"type": "string"}
    secret = not_(
        f"(?:[\\s\\S]*_)?(?:{any_case(SECRET_ENV[len('(^|_)(') : -len(')$')])})$",
        "This looks like a secret: anyone who may run docker inspect would read it.",
    )
    properties["env"]["propertyNames"] = {"allOf": [{"pattern": f"^(?:{KEYS['env'].pattern}){_END}"}, secret]}
    properties["verify"] = ref("verify")
    return {**service, "required": ["name"], "allOf": [ref(f"rules/{name}") for name in (*_rules(), *ENGINES)]}


def _mapping(title: str, about: str, keys: t.Mapping[str, Key], defaults: t.Any) -> Schema:
    return {
        "title": title,
        "description": about,
        "type": ["object", "string", "null"] if keys is VERIFY_KEYS else ["object", "string"],
        **template("a mapping"),
        "properties": {name: _key(name, key, default_of(name, defaults)) for name, key in keys.items()},
        "additionalProperties": False,
    }


def _key(name: str, key: Key, default: t.Any) -> Schema:
    """Return what a value of ``key`` may be by itself; null is the same as leaving it out."""
    kind = _TYPES[key.kind]
    found: Schema = {"title": title(name), "description": key.about}
    found["type"] = ["string", "null"] if kind == "string" else [kind, "string", "null"]
    if default is not None and (key.minimum is None or isinstance(default, list) or default >= key.minimum):
        found["default"] = default
    if kind != "string":
        found.update(template(key.words))
    if key.choices:
        found.update(one_of((default, *(word for word in key.choices if word != default))))
    if key.pattern and kind != "object":
        pattern = {"patternErrorMessage": f"It {key.must}.", "pattern": f"^(?:{key.pattern})$|{TEMPLATE}"}
        if kind == "array":
            found["items"] = {"type": "string", **pattern}
        else:
            found.update(pattern, pattern=f"^(?:{key.pattern})$|^$|{TEMPLATE}")
    if key.minimum is not None:
        found["minimum"] = key.minimum if default is None else min(key.minimum, default)
    if key.maximum is not None:
        found["maximum"] = key.maximum if default is None else max(key.maximum, default)
    return found


def _rules() -> dict[str, Schema]:
    """Return what keys have to do with each other, whatever the engine."""
    early = [level for level in LEVELS if level not in ("token", "device")]

    def unjudged(why: str) -> Schema:
        nothing = {name: one_of((default_of(name, Verify),), why) for name in NEEDS_TOKEN}
        return {"properties": {"verify": {"properties": nothing}}}

    one = "It contradicts `models`."
    alone = {name: one_of((default_of(name, Service),), one) for name in (*NOT_WITH_MODELS, "served_name")}
    device = not_(f"device{_END}", "It cannot be proven of several `models`.")
    return {
        "running": {
            "if": {"properties": {"state": {"enum": ["started", "stopped", None]}}},
            "then": {
                "required": ["port"],
                "properties": {"port": {"type": ["integer", "string"], "minimum": KEYS["port"].minimum}},
                "if": _PERHAPS,
                "else": {"required": ["model"], "properties": {"model": {"type": "string", "minLength": 1}}},
            },
        },
        "models": {
            "if": _SEVERAL,
            "then": {"properties": {**alone, "verify": {"properties": {"level": device}}}},
        },
        "cpu": {
            "if": {"required": ["device"], "properties": {"device": {"const": "cpu"}}},
            "then": {
                "properties": {
                    "gpu_layers": one_of((0,), "It contradicts `device: cpu`."),
                    "gpus": {"maxItems": 0, "errorMessage": "It contradicts `device: cpu`."},
                    "verify": {
                        "properties": {"level": not_(f"device{_END}", "This is about GPUs, and `device` is cpu.")}
                    },
                }
            },
        },
        "venv": {
            "if": {"required": ["runtime"], "properties": {"runtime": {"const": "venv"}}},
            "then": {"properties": {"image": one_of(("",), "It contradicts `runtime: venv`.")}},
        },
        **{f"needs_{name}": _need(name, *need) for name, need in NEEDS.items()},
        "level": {
            "if": {
                "required": ["verify"],
                "properties": {"verify": {"required": ["level"], "properties": {"level": {"enum": early}}}},
            },
            "then": unjudged("A reply can only be judged at `level: token` or `device`."),
        },
        "task": {
            "if": {"required": ["task"], "properties": {"task": {"enum": list(TASKS[1:])}}},
            "then": unjudged("A service for this `task` gives no answer in words."),
        },
    }


def _need(name: str, other: str, why: str) -> Schema:
    """Return that ``other`` is given wherever ``name`` is."""
    said = {"not": one_of((default_of(name, Service),))}
    needed = {"not": {"enum": [default_of(other, Service), None]}}
    return {
        "if": {"required": [name], "properties": {name: said}},
        "then": {"required": [other], "properties": {other: {**needed, "errorMessage": f"`{name}`: {why}."}}},
    }


def _engine_rule(name: str) -> Schema:
    """Return what the keys may hold for one engine, the one that is taken when none is named included."""
    engine = ENGINES[name]
    said: Schema = {"properties": {"engine": {"enum": [name, None]}}}
    if name != Service.engine:
        said = {"required": ["engine"], "properties": {"engine": {"const": name}}}
    refused = {
        key: one_of((default_of(key, Service),), f"Engine {name} does not know it: {why}.")
        for key, why in engine.REFUSED_FIELDS.items()
    }
    chosen = {key: one_of(("", *choices)) for key, choices in engine.CHOICES.items() if key not in refused}
    unknown = {
        key: not_(f"(?:{spelled(words)}){_END}", f"{'; '.join(sorted(set(words.values())))}.")
        for key, words in engine.REFUSED_WORDS.items()
        if key not in engine.CHOICES
    }
    env = {**engine.OWNED_ENV, **dict.fromkeys(GPU_ENV, "gpus")}
    unfit = not_(f"(?:{any_case(engine.REFUSED_MODELS)}){_END}", f"{engine.REFUSED_MODELS_WHY}.")
    return {
        "if": said,
        "then": {
            "properties": {
                **dict.fromkeys(MODEL_KEYS, unfit),
                "models": {"additionalProperties": unfit},
                "task": one_of(tuple(engine.PATHS)),
                **(
                    {}
                    if name == "vllm"
                    else {"runtime": one_of((Service.runtime,), "Only vllm runs without a container.")}
                ),
                "parallel": {"default": engine.DEFAULT_PARALLEL},
                **chosen,
                **unknown,
                **refused,
                "args": {"items": {"allOf": _flags(engine)}},
                "env": {"propertyNames": {"allOf": [*owned(env, _END), *refusals(engine.REFUSED_ENV, _END)]}},
            }
        },
    }


def _flags(engine: t.Any) -> list[Schema]:
    end = r"(?![^=])"
    return [*owned(engine.OWNED_FLAGS, end), *refusals(engine.REFUSED_FLAGS, end)]
