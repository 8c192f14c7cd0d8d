"""The scripts that put Python and llama.cpp's converter into a `full` image (POSIX sh, Debian or Ubuntu underneath).

They are text here, because a module travels to its host as Python only; the build writes them into its context.
"""

from __future__ import annotations

TORCH = "2.13.0+cpu"
"""PyTorch without GPU libraries, which would be 3 GB more. PyPI does not have these builds."""

PYTHON_ROOT = "/opt/python"
"""Virtual environment of the image, the same path in the stage that makes it."""

PYTHON = """\
#!/bin/sh
# python.sh TORCH REQUIREMENTS WHEELS: a Python with what the converter needs; gathers it with its libraries into
# /out/python, where nothing else of the system is
set -eu
torch=$1 requirements=$2 wheels=$3
root=/opt/python out=/out/python
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
apt-get update && apt-get install -y --no-install-recommends python3 python3-venv

# llama.cpp's own list for this commit, but with the PyTorch that was chosen; gguf lies beside the converter
mkdir /tmp/requirements
cp "$requirements"/*.txt /tmp/requirements
sed -i -e '/^torch\\b/d' -e '/^gguf\\b/d' -e '/^--\\(extra-\\)\\{0,1\\}index-url/d' /tmp/requirements/*.txt
python3 -m venv "$root"
PIP_CONFIG_FILE=/run/llmfleet/pip.conf "$root/bin/pip" install --no-compile --only-binary=:all: \\
  --find-links "$wheels" "torch==$torch" -r /tmp/requirements/requirements-convert_hf_to_gguf.txt
"$root/bin/pip" uninstall -y -q pip setuptools wheel 2> /dev/null || true
# what is only for compiling against PyTorch and for testing
for folder in "$root"/lib/python3*/site-packages; do
  rm -rf "$folder/torch/include" "$folder/torch/share" "$folder/torch/test" "$folder"/torch/lib/*.a
  find "$folder/torch/bin" -type f ! -name torch_shm_manager -delete
  find "$folder" -type d -name tests -prune -exec rm -rf {} +
done

version=$(basename "$(readlink -f /usr/bin/python3)")
mkdir -p "$out/usr/bin" "$out/usr/lib" "$out${root%/*}"
cp -a /usr/bin/python3 "/usr/bin/$version" "$out/usr/bin/"
cp -a "/usr/lib/$version" "$out/usr/lib/"
[ ! -d /usr/lib/python3 ] || cp -a /usr/lib/python3 "$out/usr/lib/"
rm -rf "$out/usr/lib/$version/test" "$out/usr/lib/$version/ensurepip" "$out/usr/lib/$version/config"-*
cp -a "$root" "$out$root"
# libraries of the system that any of it loads, under the paths the loader looks at
find "$out" -name '*.so*' -type f -print0 | xargs -0 ldd "/usr/bin/$version" 2> /dev/null \\
  | grep -oE '/[^ :()]+' | sort -u | grep -E '^/(usr/)?lib' | grep -v "^$out" > /tmp/libraries
while read -r library; do
  mkdir -p "$out${library%/*}"
  cp -L "$library" "$out$library"
done < /tmp/libraries
# Compiled now, as the image cannot be written to; unchecked, so that the dates of the files do not matter
find "$out" -name __pycache__ -type d -prune -exec rm -rf {} +
"/usr/bin/$version" -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$out" "$out/usr/lib/$version" \\
  "$out$root/lib" > /dev/null || true
# equal content must be an equal layer
find "$out" -exec touch -h -d @0 {} +
du -sh "$out"
"""

CONVERTER = """\
#!/bin/sh
# converter.sh SOURCE: llama.cpp's converter into /out/converter, tried with the Python of this image alone
set -eu
source=$1
app=/out/converter/app
mkdir -p "$app"
for part in convert_hf_to_gguf.py convert_lora_to_gguf.py conversion; do
  [ ! -e "$source/$part" ] || cp -R "$source/$part" "$app"
done
mkdir -p "$app/gguf-py"
cp -R "$source/gguf-py/gguf" "$app/gguf-py"
python3 -m compileall -q --invalidation-mode unchecked-hash -s /out/converter "$app" > /dev/null || true
find /out/converter -exec touch -h -d @0 {} +

mkdir /try
cp -a /out/python/. /out/converter/. /try/
mkdir -p /try/tmp /try/dev
# PyTorch reads it when it is loaded
cp -a /dev/urandom /dev/null /try/dev/
chroot /try /opt/python/bin/python3 -c 'import numpy, safetensors, sentencepiece, torch, transformers
print("torch", torch.__version__, "transformers", transformers.__version__)'
chroot /try /opt/python/bin/python3 /app/convert_hf_to_gguf.py --help > /dev/null
rm -rf /try
"""
