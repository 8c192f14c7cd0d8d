"""Which files of a repository make the model that was asked for. Pure.

A GGUF repository holds one model several times, in types of weights of which one is chosen; a safetensors repository
holds it once, beside copies in other formats that are left out. An engine uses one of the two: llama_server GGUF, vllm
safetensors.
"""

from __future__ import annotations

import difflib
import re
import typing as t

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub import folder_files, gguf_files, quants
from ansible.module_utils.llmfleet.hub.gguf_files import Candidate
from ansible.module_utils.llmfleet.hub.manifest import GGUF, SAFETENSORS, Listing, Manifest, RepoFile
from ansible.module_utils.llmfleet.model_ref import ModelRef

PREFER = "Q4_K_M"
"""The type that is taken where nothing says how much room there is: the usual compromise."""

_CUT = re.compile(r"\.gguf[._-]?(?:part|split|[a-z]{2}$|\d+$)", re.IGNORECASE)
FORMATS = {"llama_server": GGUF, "vllm": SAFETENSORS}
"""Engine → the format that it loads."""


def formats(listing: Listing) -> tuple[str, ...]:
    """Return which of GGUF and SAFETENSORS a repository holds; weights in `.bin` files count as the latter."""
    found = [GGUF] if any(not row.missing for row in gguf_files.all_models(listing)) else []
    return (*found, SAFETENSORS) if folder_files.has_weights(listing) else tuple(found)


def choose(
    listing: Listing,
    ref: ModelRef,
    engine: str = "",
    limit_bytes: int = 0,
    prefer: str = PREFER,
    trust_remote_code: bool = False,
) -> Manifest:
    """Return the files of the model that ``ref`` asks for, and why these.

    ``engine`` (llama_server or vllm; "" takes what there is) decides between the formats. Without a type of weights in
    ``ref`` a GGUF repository yields the best one whose files take at most ``limit_bytes`` and that is no larger than
    Q8_0, or, when that is 0, the one nearest to ``prefer``. ``trust_remote_code`` adds the code that a repository
    brings.
    Raises BadInput: what is wrong, what there is instead.
    """
    there = formats(listing)
    wanted = GGUF if ref.quant or ref.file else FORMATS.get(engine) or (there[0] if there else GGUF)
    where = f"model {ref.shown}"
    if wanted == GGUF and engine == "vllm":
        asked = f"file {ref.file}" if ref.file else f":{ref.quant}"
        raise BadInput(
            f"{where}: {asked} asks for a GGUF file, and vLLM takes whole repositories of safetensors: give the "
            "repository that this one was made from, or `engine: llama_server`"
        )
    if wanted == GGUF:
        return _choose_gguf(listing, ref, limit_bytes, prefer, there)
    _check_digest(ref, ())
    if SAFETENSORS not in there:
        raise BadInput(f"{where}: {_no_folder(listing, there)}")
    files, why = folder_files.choose(listing, where, trust_remote_code)
    return _manifest(listing, ref, SAFETENSORS, files, why)


def _choose_gguf(listing: Listing, ref: ModelRef, limit: int, prefer: str, there: t.Sequence[str]) -> Manifest:
    where, rows = f"model {ref.shown}", gguf_files.whole_models(listing)
    broken = [row for row in gguf_files.all_models(listing) if row.missing]
    if ref.file:
        row, why = _of_file(listing, ref.file, rows, where), "it was asked for by its file"
    elif ref.quant:
        row, why = _of_quant(ref, rows, broken, where), f"{ref.quant} was asked for"
    elif not rows:
        raise BadInput(f"{where}: {_no_gguf(listing, broken, there)}")
    else:
        row, why = _best(gguf_files.candidates(listing), limit, prefer, where)
    if row.missing:
        raise BadInput(
            f"{where}: {row.word} is not whole in the repository, which lacks {row.missing}; {_others(rows)}"
        )
    _check_digest(ref, row.files)
    return _manifest(listing, ref, GGUF, row.files, why, entry=row.files[0].path, quant=row.quant)


def _best(rows: t.Sequence[Candidate], limit: int, prefer: str, where: str) -> tuple[Candidate, str]:
    """Return the best of ``rows``, which are sorted, and why it is."""
    # what is larger than Q8_0 costs room and speed and answers the same; names that say nothing go last
    usual = [row for row in rows if 0 < quants.worth(row.quant) <= quants.BEST] or list(rows)
    if not limit:
        goal = quants.worth(prefer)
        row = min(usual, key=lambda row: (not quants.same(row.quant, prefer), abs(quants.worth(row.quant) - goal)))
        if len(rows) == 1:
            return row, f"{row.word} is all there is"
        return row, f"{row.word} is the usual choice among the {len(rows)} types of weights there"
    fitting = [row for row in usual if row.size <= limit]
    # an original in 16 bits may still be smaller than the room
    fitting = fitting or [row for row in rows if row.size <= limit]
    if not fitting:
        least = min(rows, key=lambda row: row.size)
        raise BadInput(
            f"{where}: its smallest files, {least.word}, take {_gib(least.size)}, and there is room for {_gib(limit)}; "
            "choose a smaller model"
        )
    return fitting[0], f"{fitting[0].word} is the best whose files fit into {_gib(limit)}"


def _of_quant(ref: ModelRef, rows: list[Candidate], broken: list[Candidate], where: str) -> Candidate:
    found = gguf_files.matching(ref.quant, rows) or gguf_files.matching(ref.quant, broken)
    if not found:
        words = _words(rows)
        if not words:
            cause = f"lacks {broken[0].missing}" if broken else "holds no GGUF model"
            raise BadInput(f"{where}: there is no {ref.quant}, because the repository {cause}; leave it out")
        close = difflib.get_close_matches(ref.quant.upper(), [word.upper() for word in words], n=1, cutoff=0.6)
        hint = next((f"; did you mean {word}?" for word in words if close and word.upper() == close[0]), "")
        raise BadInput(f"{where}: there is no {ref.quant}; {_others(rows)}{hint}")
    if len(found) > 1:
        names = ", ".join(sorted(row.files[0].path for row in found)[:6])
        source = ref.source or "hf"
        raise BadInput(
            f"{where}: {len(found)} models there are {ref.quant} ({names}): "
            f"name the file as {source}:{ref.repo}/FILE.gguf"
        )
    return found[0]


def _of_file(listing: Listing, path: str, rows: t.Sequence[Candidate], where: str) -> Candidate:
    row = next((row for row in gguf_files.all_models(listing) if any(file.path == path for file in row.files)), None)
    if row:
        return row
    named = next((file for file in listing.files if file.path == path), None)
    if named and gguf_files.PROJECTOR.search(path):
        return Candidate("", path[: -len(".gguf")], (named,))
    if named:
        raise BadInput(f"{where}: {path} is no model by itself; {_others(rows)}")
    names = [row.files[0].path for row in rows]
    close = difflib.get_close_matches(path, names, n=1, cutoff=0.6)
    raise BadInput(
        f"{where}: there is no file {path}; " + (f"did you mean {close[0]}?" if close else _others(rows, by_name=True))
    )


def _check_digest(ref: ModelRef, files: t.Sequence[RepoFile]) -> None:
    if ref.sha256 and len(files) != 1:
        raise BadInput(
            f"model {ref.shown}: it has several files, so that one sha256 can not be all of theirs: leave it out"
        )
    if ref.sha256 and files[0].sha256 and files[0].sha256 != ref.sha256:
        raise BadInput(
            f"model {ref.shown}: {files[0].path} has the sha256 {files[0].sha256} in the repository, not {ref.sha256}; "
            "correct it, or name the revision that has it"
        )


def _manifest(
    listing: Listing, ref: ModelRef, form: str, files: t.Sequence[RepoFile], why: str, entry: str = "", quant: str = ""
) -> Manifest:
    return Manifest(
        repo=listing.repo,
        commit=listing.commit,
        format=form,
        files=tuple(files),
        entry=entry,
        quant=quant,
        source=listing.source,
        asked=listing.asked or ref.revision,
        why=why,
    )


def _words(rows: t.Sequence[Candidate]) -> list[str]:
    return list(dict.fromkeys(row.word for row in rows))


def _others(rows: t.Sequence[Candidate], by_name: bool = False) -> str:
    words = [row.files[0].path for row in rows if row.files] if by_name else _words(rows)
    shown = ", ".join(words[:40]) + (f" and {len(words) - 40} more" if len(words) > 40 else "")
    return f"there are {shown}" if len(words) > 1 else f"there is {shown}" if words else "there is no other"


def _no_gguf(listing: Listing, broken: t.Sequence[Candidate], there: t.Sequence[str]) -> str:
    if broken:
        return f"the repository lacks {broken[0].missing}, without which {broken[0].word} can not be used"
    cut = next((file.path for file in listing.files if _CUT.search(file.path)), "")
    if cut:
        return (
            f"the repository holds GGUF files only cut to pieces that engines can not load ({cut}); take another "
            "repository of this model"
        )
    if SAFETENSORS in there:
        name = listing.repo.rpartition("/")[2]
        return (
            "it is in Hugging Face's format, and llama_server takes GGUF: take a GGUF repository of it (often called "
            f"{name}-GGUF), make a GGUF of it with playbooks/quantize.yml, or use `engine: vllm`"
        )
    return "the repository holds no GGUF model"


def _no_folder(listing: Listing, there: t.Sequence[str]) -> str:
    if GGUF in there:
        name = re.sub(r"(?i)[-._](i1-)?gguf$", "", listing.repo.rpartition("/")[2])
        return (
            f"the repository holds GGUF files only, and vLLM takes safetensors: give the repository they were made "
            f"from (often ORG/{name}), or use `engine: llama_server`"
        )
    return folder_files.why_none(listing)


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 29 else f"{size / (1 << 20):.1f} MiB"
