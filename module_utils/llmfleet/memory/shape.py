"""What the memory plan must know of a model: its layers, what each keeps per token, and where its weights lie. Pure.

A Shape comes from the header of a GGUF file (`from_gguf` of gguf_shape.py) or from config.json and the index of a
safetensors model (`from_config` of config_shape.py), and goes through JSON (`as_data`, `shape_from`),
because the plan is made on the controller while the file lies on a host.
"""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass, field, fields, replace

from ansible.module_utils.llmfleet.errors import BadInput

GGUF = "gguf"
SAFETENSORS = "safetensors"
LARGEST = "largest_tensor"
"""Key of `Shape.extra`: bytes of the largest tensor."""
ROWS = "embedding_rows"
"""Key of `Shape.extra`: embeddings per token that are alive beside `Layer.work`."""
MAX_LAYERS = 4096
"""More than any model has: a header that claims more is not believed."""

if t.TYPE_CHECKING:
    from ansible.module_utils.llmfleet.gguf import GgufHeader


@dataclass(frozen=True)
class Layer:
    """One block of the model. Counts are of elements, weights in bytes."""

    heads: int = 0
    kv_heads: int = 0
    """0 where the layer attends to nothing (recurrent, or it reuses the cache of another layer)."""
    key_length: int = 0
    """Elements of one key of one head; with MLA the latent and its rope part, of which there is one per token."""
    value_length: int = 0
    """Elements of one value of one head; 0 with MLA, which keeps no values."""
    window: int = 0
    """Tokens the layer looks back; 0 is the whole context."""
    conv_state: int = 0
    """Elements of the rolling state of a recurrent layer, per request."""
    ssm_state: int = 0
    """Elements of the recurrent state, per request."""
    index: int = 0
    """Elements per token of the index that sparse attention keeps beside its keys."""
    weights: int = 0
    """Bytes of all tensors of the layer."""
    experts: int = 0
    """Bytes of those which are experts' (part of ``weights``)."""
    ff: int = 0
    """Length of its feed-forward layer (of one expert in a mixture of experts)."""
    work: int = 0
    """Elements per token that are alive at its widest step while it is computed, without the embeddings."""
    state_work: int = 0
    """Elements per request that are alive then besides."""

    @property
    def kv_elements(self) -> int:
        """Elements kept per token."""
        return self.kv_heads * (self.key_length + self.value_length) + self.index


@dataclass(frozen=True)
class Shape:
    """A model, as far as memory is concerned. 0 and "" stand for what is not known."""

    format: str
    """GGUF or SAFETENSORS."""
    architecture: str
    """Of GGUF `general.architecture`, of safetensors `architectures[0]` (or model_type)."""
    layers: tuple[Layer, ...]
    context_length: int = 0
    """Tokens the model was trained for."""
    embedding_length: int = 0
    vocab_size: int = 0
    input_bytes: int = 0
    """Weights of the token embedding."""
    output_bytes: int = 0
    """Weights of the output head and its norm; 0 where the embedding serves as head too."""
    other_bytes: int = 0
    """Weights that belong to no layer, embedding or head (a vision tower inside the model, for example)."""
    tied: bool = False
    """Whether the token embedding serves as the output head too."""
    mla: bool = False
    """Whether attention keeps one latent per token instead of keys and values of heads."""
    expert_count: int = 0
    expert_used: int = 0
    quant: str = ""
    """What most of its weights are stored as: Q4_K_M and the like, or bf16, fp8, awq, gptq of safetensors."""
    causal: bool = True
    """False for models that make embeddings and keep no cache."""
    extra: t.Mapping[str, int] = field(default_factory=dict)
    """Further numbers that one engine's plan wants, by names of its own."""

    @property
    def weights(self) -> int:
        """Bytes of all weights."""
        return sum(layer.weights for layer in self.layers) + self.input_bytes + self.output_bytes + self.other_bytes

    def sized(self, total: int, quant: str = "") -> Shape:
        """Return the shape of the same model with weights of ``total`` bytes.

        For another quant, or for a split model when only the header of its first part was read. Weights keep their
        proportions; layers whose weights are not known get equal shares.
        """
        known = sorted((layer for layer in self.layers if layer.weights), key=lambda layer: layer.weights)
        # a first part that holds nothing but the vocabulary leaves the rest to the layers
        rest = max(1, (total - self.input_bytes - self.output_bytes) // max(1, len(self.layers)))
        middle = known[len(known) // 2] if known else Layer(weights=rest)
        work = max((layer.work for layer in known), default=0)
        layers = [
            layer
            if layer.weights
            else replace(layer, weights=middle.weights, experts=middle.experts, work=max(work, layer.work))
            for layer in self.layers
        ]
        whole = replace(self, layers=tuple(layers))
        factor = total / max(1, whole.weights)

        def scaled(count: int) -> int:
            return int(count * factor)

        return replace(
            whole,
            layers=tuple(replace(one, weights=scaled(one.weights), experts=scaled(one.experts)) for one in layers),
            input_bytes=scaled(whole.input_bytes),
            output_bytes=scaled(whole.output_bytes),
            other_bytes=scaled(whole.other_bytes),
            quant=quant or self.quant,
            extra={key: scaled(value) if key == LARGEST else value for key, value in self.extra.items()},
        )

    def as_data(self) -> dict[str, t.Any]:
        """Return it as JSON-able data; layers that follow each other and are alike are told once with their count."""
        runs: list[dict[str, t.Any]] = []
        for layer in self.layers:
            row = {key: value for key, value in asdict(layer).items() if value}
            if runs and {key: value for key, value in runs[-1].items() if key != "count"} == row:
                runs[-1]["count"] += 1
            else:
                runs.append({"count": 1, **row})
        return {**{f.name: getattr(self, f.name) for f in fields(self)}, "layers": runs, "extra": dict(self.extra)}


def shape_from(data: t.Mapping[str, t.Any]) -> Shape:
    """Return the Shape that ``as_data`` made; raises BadInput for anything else."""
    try:
        layers: list[Layer] = []
        for row in data["layers"]:
            values = {key: _count(value) for key, value in row.items() if key != "count"}
            count = _count(row["count"])
            if len(layers) + count > MAX_LAYERS:
                raise ValueError(f"more than {MAX_LAYERS} layers")
            layers += [Layer(**values)] * count
        plain: dict[str, t.Any] = {key: value for key, value in data.items() if key not in ("layers", "extra")}
        for one in fields(Shape):
            if one.name in plain and type(plain[one.name]) is not _KINDS[str(one.type)]:
                raise ValueError(f"{one.name} is {plain[one.name]!r}")
        extra = {str(key): _count(value) for key, value in data.get("extra", {}).items()}
        return Shape(**{**plain, "layers": tuple(layers), "extra": extra})
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise BadInput(f"not the shape of a model as gguf_info or hub_listing returns it: {error}") from None


def _count(value: t.Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


_KINDS = {"str": str, "int": int, "bool": bool}


def from_gguf(header: GgufHeader) -> Shape:
    """Return the shape of the GGUF model with this header; see gguf_shape.py."""
    # that file builds on this one
    from ansible.module_utils.llmfleet.memory import gguf_shape

    return gguf_shape.from_gguf(header)
