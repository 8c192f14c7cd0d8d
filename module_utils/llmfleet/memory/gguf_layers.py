"""What the layers of a GGUF model's architecture keep per token and per request, by its metadata. Pure.

Which layers have a window, a recurrent state or no cache at all is not in the file but in the code of llama.cpp: the
tables here are `load_arch_hparams` of its src/models/*.cpp and `create_memory` of src/llama-model.cpp, both of commit
0c1e57098. An architecture that is not in a table attends to the whole context in every layer, which is true of most,
and never too little for the others.
"""

from __future__ import annotations

import typing as t
from dataclasses import replace

from ansible.module_utils.llmfleet.memory.shape import Layer

if t.TYPE_CHECKING:
    from ansible.module_utils.llmfleet.gguf import GgufHeader

_WINDOW_PERIODS = {
    "afmoe": (4, False), "cohere2": (4, False), "cohere2moe": (4, True), "exaone-moe": (4, False),
    "gemma2": (2, False), "gemma3": (6, False), "gemma3n": (5, False), "gpt-oss": (2, False), "laguna": (4, True),
    "llama4": (4, False), "mellum": (4, False), "muse-glimmer": (4, False), "olmo2": (4, False), "plamo3": (8, False),
    "smallthinker": (4, True),
}  # fmt: skip
"""Architecture -> (every how many layers one sees the whole context, whether that is the first of them)."""

_WINDOW_LISTS = ("gemma4", "granite_swa", "maple", "mimo2", "spark2_5", "step35", "dots3note")
"""Architectures whose file lists the layers with a window."""

_WINDOW_LENGTHS = {"gemma2": 4096, "exaone-moe": 128, "llama4": 8192, "smallthinker": 4096}
"""Windows that the code knows; of llama4 and smallthinker whatever the file says."""

_RECURRENT = ("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7")
_INTERVALS = ("qwen3next", "qwen35", "qwen35moe", "qwen4exp", "minimax-01")
"""Architectures where one layer in four (or as the file says) attends and the others are recurrent."""
_RECURRENT_WITHOUT_HEADS = (
    "jamba", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "kimi-linear", "kimi-k3", "bailingmoe3", "glm5-next",
)  # fmt: skip
_NO_CACHE = (
    "bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert", "modern-bert",
    "gemma-embedding", "wavtokenizer-dec", "dream", "llada", "llada-moe", "rnd1", "t5encoder",
)  # fmt: skip
_INDEXED = ("deepseek32", "glm-dsa", "hy_v4", "dots3note", "minimax-m3", "qwen4exp", "glm5-next")
_MTP_KEPT = ("graniteswitch",)


class Keys:
    """The metadata below an architecture's name."""

    def __init__(self, header: GgufHeader) -> None:
        self.architecture = header.architecture
        self._metadata = header.metadata

    def number(self, key: str, default: int = 0) -> int:
        """Return the number under ``key``; of a list its first item."""
        value = self._metadata.get(f"{self.architecture}.{key}")
        if isinstance(value, tuple) and value:
            value = value[0]
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default

    def listed(self, key: str, count: int) -> list[int] | None:
        """Return the list of ``count`` numbers under ``key``, None where there is none."""
        value = self._metadata.get(f"{self.architecture}.{key}")
        if not isinstance(value, tuple) or len(value) < count:
            return None
        return [int(item) if isinstance(item, (int, bool)) and item > 0 else 0 for item in value[:count]]

    def each(self, key: str, count: int, default: int = 0) -> list[int]:
        """Return one number per layer, whether the file has a list or one number for all."""
        return self.listed(key, count) or [self.number(key, default)] * count

    def has(self, key: str) -> bool:
        """Whether the file says something under ``key``."""
        return f"{self.architecture}.{key}" in self._metadata


def keeps_cache(keys: Keys) -> bool:
    """Whether the model generates text, and so keeps keys and values."""
    return keys.architecture not in _NO_CACHE


def is_mla(keys: Keys) -> bool:
    """Whether attention keeps one latent per token; files from before this was split keep whole heads."""
    return bool(keys.number("attention.key_length_mla") and keys.number("attention.value_length_mla"))


def used_layers(keys: Keys, count: int) -> int:
    """Return how many of the ``count`` layers are run: those that predict further tokens are left on the disk."""
    extra = 0 if keys.architecture in _MTP_KEPT else keys.number("nextn_predict_layers")
    return count - extra if 0 < extra < count else count


def layers(keys: Keys, count: int) -> list[Layer]:
    """Return what each of ``count`` layers keeps, without its weights."""
    heads = keys.each("attention.head_count", count)
    kv_heads = keys.listed("attention.head_count_kv", count)
    if kv_heads is None:
        has = keys.has("attention.head_count_kv")
        kv_heads = [keys.number("attention.head_count_kv")] * count if has else list(heads)
    windows = _windows(keys, count)
    shared_from = _shared_from(keys, count)
    recurrent = _recurrent(keys, count, kv_heads)
    attends = _attending(keys, count, recurrent)
    conv, ssm = _states(keys, heads)
    mla = is_mla(keys)
    # one more head than there are would be a division by zero for the models without heads
    default = keys.number("embedding_length") // heads[0] if heads and heads[0] else 0
    full = keys.number("attention.key_length", default), keys.number("attention.value_length", default)
    swa = keys.number("attention.key_length_swa", full[0]), keys.number("attention.value_length_swa", full[1])
    index = keys.number("attention.indexer.key_length") if keys.architecture in _INDEXED else 0

    made = []
    for number in range(count):
        layer = Layer(heads=heads[number])
        if attends[number] and number < shared_from and keeps_cache(keys):
            key, value = swa if windows[number] else full
            layer = replace(
                layer,
                kv_heads=kv_heads[number],
                key_length=key,
                value_length=0 if mla else value,
                window=windows[number],
                index=index,
            )
        if recurrent[number]:
            layer = replace(layer, conv_state=conv, ssm_state=ssm)
        made.append(layer)
    return made


def _windows(keys: Keys, count: int) -> list[int]:
    """Return each layer's window in tokens, 0 for the whole context."""
    arch = keys.architecture
    length = keys.number("attention.sliding_window", _WINDOW_LENGTHS.get(arch, 0))
    if length and arch in ("llama4", "smallthinker"):
        length = _WINDOW_LENGTHS[arch]
    if arch == "exaone4":
        # only the largest of them has windows
        return _pattern(keys, count, 4, False, length or 4096) if count == 64 else [0] * count
    if not length:
        return [0] * count
    if arch in ("lfm2",):
        return [length] * count
    if arch in _WINDOW_PERIODS:
        return _pattern(keys, count, *_WINDOW_PERIODS[arch], length)
    listed = keys.listed("attention.sliding_window_pattern", count) if arch in _WINDOW_LISTS else None
    return [length if has else 0 for has in listed] if listed else [0] * count


def _pattern(keys: Keys, count: int, period: int, dense_first: bool, length: int) -> list[int]:
    listed = keys.listed("attention.sliding_window_pattern", count)
    if listed:
        return [length if has else 0 for has in listed]
    period = keys.number("attention.sliding_window_pattern", period)
    if period == 0:
        return [length] * count
    whole = 0 if dense_first else period - 1
    return [0 if number % period == whole else length for number in range(count)]


def _shared_from(keys: Keys, count: int) -> int:
    """Return the first layer that reuses the cache of an earlier one."""
    if keys.architecture == "gemma3n":
        return 20
    if keys.architecture == "gemma4":
        return count - keys.number("attention.shared_kv_layers")
    return count


def _recurrent(keys: Keys, count: int, kv_heads: t.Sequence[int]) -> list[bool]:
    arch = keys.architecture
    if arch in _RECURRENT or arch == "falcon-h1":
        return [True] * count
    if arch in _INTERVALS:
        listed = keys.listed("attention.recurrent_layers", count)
        if listed:
            return [bool(has) for has in listed]
        interval = keys.number("full_attention_interval", 4) or 4
        return [(number + 1) % interval != 0 for number in range(count)]
    if arch in _RECURRENT_WITHOUT_HEADS:
        return [has == 0 for has in kv_heads]
    if arch in ("nemotron_h", "nemotron_h_moe"):
        lengths = keys.each("feed_forward_length", count)
        return [has == 0 and length == 0 for has, length in zip(kv_heads, lengths)]
    return [False] * count


def _attending(keys: Keys, count: int, recurrent: t.Sequence[bool]) -> list[bool]:
    if keys.architecture == "falcon-h1":
        return [True] * count
    return [not has for has in recurrent]


def _states(keys: Keys, heads: t.Sequence[int]) -> tuple[int, int]:
    """Return the elements of (the rolling state, the recurrent state) of one recurrent layer for one request."""
    embedding = keys.number("embedding_length")
    kernel = keys.number("ssm.conv_kernel")
    head_size = keys.number("wkv.head_size")
    if head_size:
        return keys.number("token_shift_count", 2) * embedding, embedding * head_size
    if keys.number("shortconv.l_cache"):
        return embedding * (keys.number("shortconv.l_cache") - 1), 0
    first = heads[0] if heads else 0
    head_size = keys.number("kda.head_dim")
    if head_size:
        return 3 * (kernel - 1 if kernel else 3) * first * head_size, head_size * head_size * first
    inner, state = keys.number("ssm.inner_size"), keys.number("ssm.state_size")
    conv = (kernel - 1 if kernel else 0) * (inner + 2 * keys.number("ssm.group_count") * state)
    if keys.architecture == "minimax-01":
        length = keys.number("attention.key_length")
        return conv, length * length * first
    return conv, state * inner
