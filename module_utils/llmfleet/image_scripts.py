"""The shell scripts that a build of the llama.cpp image runs in its stages (POSIX sh, Debian or Ubuntu underneath).

They are text here, because a module travels to its host as Python only; the build writes them into its context.
"""

from __future__ import annotations

STUBS = "/opt/llmfleet/stubs"
"""Folder of the toolchain stage with the library that stands in for the GPU's driver while linking and trying."""

CUDA_ROOT = "/usr/local/cuda"

CUDA_WHEELS = """\
#!/bin/sh
# cuda_wheels.sh WHEELS ROOT: a CUDA toolkit out of NVIDIA's wheels, as nvcc and CMake's FindCUDAToolkit expect one
set -eu
wheels=$1 root=$2
scratch=$(mktemp -d)
cd "$scratch"
for wheel in "$wheels"/*.whl; do
  cmake -E tar xf "$wheel" # a wheel is a zip file
done
mv nvidia/cu* "$root"
cd /
rm -rf "$scratch"
ln -s lib "$root/lib64"
# the wheels have libraries under their full name only; the linker asks for the plain one
for library in "$root"/lib/lib*.so.*; do
  name=${library##*/}
  ln -sf "$name" "$root/lib/${name%%.so*}.so"
done
# A stand-in for the driver's library: every entry point that cuda.h names, each answering that it is a stub (34).
mkdir -p "$root/lib/stubs"
{
  grep -oE '\\bcu[A-Z][A-Za-z0-9]*(_v[0-9]+)?(_ptsz|_ptds)?[[:space:]]*\\(' "$root/include/cuda.h" | tr -d ' (\\t'
  grep -E '^[[:space:]]*#[[:space:]]*define[[:space:]]+cu[A-Z]' "$root/include/cuda.h" \\
    | grep -oE 'cu[A-Z][A-Za-z0-9]*(_v[0-9]+)'
} | sort -u | sed 's/.*/int &(void) { return 34; }/' > "$root/lib/stubs/stub.c"
cc -shared -fPIC -w -Wl,-soname,libcuda.so.1 -o "$root/lib/stubs/libcuda.so" "$root/lib/stubs/stub.c"
"$root/bin/nvcc" --version
"""

GATHER = """\
#!/bin/sh
# gather.sh [--uid N] [--driver yes] [--sdk FOLDERS] [--load LIBRARIES]... [--data PATH]... PROGRAM...
# Puts what the programs in /build/bin need of the system into /out/libs and what was compiled into /out/app, and runs
# the first program from there. Two folders, because they become two layers of the image, and the first one stays the
# same, byte for byte, when only llama.cpp has moved on.
# --driver: libraries of a driver join the image when a container starts; --sdk: folders of libraries, with colons
# between them; --load: libraries (a pattern) that are opened at run time; --data: files that are.
set -eu
stubs=/opt/llmfleet/stubs
sdk='' driver='' load='' uid=0
libs=/out/libs app=/out/app/app
mkdir -p "$libs/etc" "$libs/tmp" "$app"
chmod 1777 "$libs/tmp"
take() {
  mkdir -p "$libs${1%/*}"
  cp -RL "$1" "$libs$1"
}
while [ $# -gt 0 ]; do
  case $1 in
    --uid) uid=$2 ;;
    --driver) driver=$2 ;;
    --sdk) sdk=$2 ;;
    --load) load="$load $2" ;;
    --data) [ ! -e "$2" ] || take "$2" ;;
    *) break ;;
  esac
  shift 2
done
echo "llama:x:$uid:$uid::/tmp:/app/$1" > "$libs/etc/passwd"
echo "llama:x:$uid:" > "$libs/etc/group"

cd /build/bin
cp "$@" "$app"
for library in $load; do # unquoted, it is a pattern
  [ ! -e "$library" ] || echo "$library"
done > /tmp/loaded
# shellcheck disable=SC2046 # their names have no spaces
LD_LIBRARY_PATH="$stubs${sdk:+:$sdk}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" ldd "$@" $(cat /tmp/loaded) > /tmp/needed
if grep 'not found' /tmp/needed > /tmp/missing; then
  echo "error: the programs need libraries that the toolchain lacks: $(sort -u /tmp/missing | xargs)" >&2
  exit 1
fi
for library in $(cat /tmp/loaded) $(sed 's/^[^[:space:]].*//' /tmp/needed | grep -oE '/[^ ]+' | sort -u); do
  case $library in
    /build/*) cp -L "$library" "$app" ;;
    "$stubs"/*) ;;
    *) take "$library" ;;
  esac
done
strip "$app"/*
find /src -maxdepth 1 -name 'LICENSE*' -type f -exec cp {} "$app" ';'

if [ -n "$driver" ]; then
  # The driver's libraries need these, whether or not the programs do;
  libc=$(grep -oE '/[^ ]*/libc\\.so\\.6' /tmp/needed | sort -u | head -n 1)
  for name in libdl.so.2 libm.so.6 libpthread.so.0 librt.so.1; do
    [ ! -e "${libc%/*}/$name" ] || take "${libc%/*}/$name"
  done
  # the NVIDIA container toolkit puts them where Debian has libraries, if it finds this file, and runs ldconfig.
  [ ! -e /etc/debian_version ] || take /etc/debian_version
  triplet=$(basename "${libc%/*}")
  mkdir -p "$libs/etc/ld.so.conf.d" "$libs/usr/lib/$triplet"
  echo 'include /etc/ld.so.conf.d/*.conf' > "$libs/etc/ld.so.conf"
  {
    echo "/usr/lib/$triplet"
    find "$libs" -name '*.so*' -not -path "$libs/etc/*" -printf '/%P\\n' | sed 's,/[^/]*$,,'
  } | sort -u > "$libs/etc/ld.so.conf.d/llmfleet.conf"
  ldconfig -r "$libs"
  rm -rf "$libs/var"
fi
# equal content must be an equal layer
find /out -exec touch -h -d @0 {} +

# Only what is in the image is there now: a library that was forgotten fails the build, not the first start. The path
# is given because the loader finds $ORIGIN through /proc, which is not there.
mkdir /try
cp -al "$libs/." "/out/app/." /try/
[ ! -e "$stubs" ] || cp -L "$stubs"/*.so* /try/app/
loader=$(grep -oE '/[^ ]*/ld-linux[^ ]*' /tmp/needed | sort -u | head -n 1)
for program in "$@"; do
  if ! chroot /try "$loader" --library-path /app --list "/app/$program" > /tmp/listed 2>&1 ||
    grep -q 'not found' /tmp/listed; then
    cat /tmp/listed >&2
    echo "error: $program would not start in the image, because a library is missing there" >&2
    exit 1
  fi
done
status=0
chroot /try "$loader" --library-path /app "/app/$1" --version || status=$?
case $status in
  0) ;;
  132) echo "$1 uses instructions that this processor does not have" ;; # the hosts it is for may have them
  *)
    echo "error: $1 does not run in the image (exit status $status)" >&2
    exit 1
    ;;
esac
rm -rf /try
du -sh "$libs" "$app"
"""
