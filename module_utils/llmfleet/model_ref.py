"""What a service's ``model`` refers to once its words are understood, and how messages show it. Pure."""

from __future__ import annotations

import posixpath
import re
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.hub import quants

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class ModelRef:
    """Where a model comes from and, unless it is the user's own file, how its file is called in the store."""

    kind: t.Literal["tiny", "path", "url", "hub"]
    model: str
    sha256: str
    file_name: str
    """Name in the store; for a user's file the name under which the store notes its verified digest; "" of a hub's."""
    source: str = ""
    """Of a hub's model: `hf`, `hf-mirror` or `ms`; "" is the first source that answers."""
    repo: str = ""
    """Of a hub's model: ORG/NAME."""
    quant: str = ""
    """Of a hub's model: the type of weights that was asked for, "" when none was."""
    revision: str = ""
    """Of a hub's model: the branch, tag or commit that was asked for, "" when none was."""
    file: str = ""
    """Of a hub's model: the path in the repository of the one GGUF file that was asked for, "" when none was."""

    @property
    def shown(self) -> str:
        """The model as messages and plans may show it."""
        return masked(self.model)

    @property
    def pinned(self) -> bool:
        """Whether it always means the same content: not a branch or tag of a hub, nor a user's file without digest."""
        if self.kind == "hub":
            return _COMMIT.fullmatch(self.revision) is not None
        return bool(self.sha256)

    @property
    def canonical(self) -> str:
        """The one spelling of a hub's model, whatever words it was given in; of others what was given."""
        if self.kind != "hub":
            return self.model
        source = f"{self.source}:" if self.source else ""
        wanted = f"/{self.file}" if self.file else f":{quants.canonical(self.quant)}" if self.quant else ""
        return f"{source}{self.repo}{wanted}{'@' + self.revision if self.revision else ''}"

    def location(self, store: str) -> str:
        """Return the path of the model's file on a host whose store is the directory ``store``.

        A hub's model has its path only when it is known which of its files are wanted: this is its repository's folder.
        """
        if self.kind == "hub":
            return posixpath.join(store, "hub", "models--" + self.repo.replace("/", "--"))
        return self.model if self.kind == "path" else posixpath.join(store, self.file_name)


def masked(model: str) -> str:
    """Return the model as messages and plans may show it."""
    # a URL may carry secrets before its host and, when it is signed, in its query
    text = re.sub(r"//[^/@]*@", "//", model.split("?", 1)[0])
    return text if text.isprintable() and " " not in text else repr(text)
