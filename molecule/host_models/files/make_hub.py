"""Write the repositories that the stand-in hub serves: a model with two types of weights, and another one."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tests")]

import ansible.module_utils  # noqa: E402

ansible.module_utils.__path__.append(str(ROOT / "module_utils"))

import gguf_models  # noqa: E402
from ansible.module_utils.llmfleet import tiny_gguf  # noqa: E402

hub = Path(sys.argv[1])

# of several chunks each; what stands in them does not matter, as nobody serves them
large = hub / "org" / "large"
large.mkdir(parents=True, exist_ok=True)
for name, architecture in (("Q8_0", "llama"), ("Q4_0", "qwen2")):
    gguf_models.write(gguf_models.MODELS[architecture](), large / f"large-{name}.gguf")

small = hub / "org" / "small"
small.mkdir(parents=True, exist_ok=True)
with open(small / "small-F32.gguf", "wb") as stream:
    tiny_gguf.write(stream)
