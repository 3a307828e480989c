#!/bin/sh
# Everything that bench/gpu_check.sh needs on a machine that has an NVIDIA GPU and none of our packages:
#
#     bench/gpu_bundle.sh BUILD FOLDER [WHEEL...]
#
# BUILD is a finished build with code for that GPU (-DVDPP_CUDA=ON -DVDPP_BENCH=ON -DCMAKE_CUDA_ARCHITECTURES=90-real). FOLDER
# becomes a small copy of this tree with a build in it, packed in build.tar.gz: our programs, and the libraries of Debian that
# they need. glibc and NVIDIA's libraries are the machine's own: the toolkit's, or those of its Python packages. On that machine
#
#     FOLDER/bench/gpu_check.sh OUT
#
# unpacks and runs it. Wheels of Python packages that the machine lacks go to FOLDER/wheels; beside torch and transformers these
# are, for PyTorch's half of the comparison, diffusers 0.36.0 and importlib_metadata.
set -eu
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 64; }
build=$(cd "$1" && pwd)
mkdir -p "$2"
folder=$(cd "$2" && pwd)
shift 2
cd "$(dirname "$0")/.."
stage=$(mktemp -d)
trap 'rm -r "$stage"' EXIT

programs() {
  echo "$build/vdpp"
  for name in step compare table model handoff; do echo "$build/bench/bench_$name"; done
  find "$build/tests/cuda" -name 'test_gpu_*' -type f -perm -u+x
}

# Libraries that come with glibc, and NVIDIA's, are not taken along.
needed_libraries() {
  ldd "$@" | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | sort -u |
    grep -Ev '/(libc|libm|libdl|libpthread|librt|libresolv|ld-linux[^/]*)\.so|/lib(cublas|cudnn|cuda|nvrtc)[^/]*$'
}

# Programs lie in bin; in their old places are links to build/run, which finds them and their libraries.
link_program() { # PROGRAM PLACE RUN
  strip -o "$stage/build/bin/$(basename "$1")" "$1"
  ln -s "$3" "$stage/build/$2$(basename "$1")"
}

mkdir -p "$stage/build/bin" "$stage/build/lib" "$stage/build/bench" "$stage/build/tests"
for program in $(programs); do
  case $program in
    */bench_*) link_program "$program" bench/ ../run ;;
    */test_*) link_program "$program" tests/ ../run ;;
    *) link_program "$program" "" run ;;
  esac
done
# shellcheck disable=SC2046 # paths of ours hold no blanks
for library in $(needed_libraries $(programs) "$build/lib/vdpp_cuda.so"); do
  cp -L "$library" "$stage/build/lib/"
done
strip -o "$stage/build/lib/vdpp_cuda.so" "$build/lib/vdpp_cuda.so"
cp bench/gpu_run.sh "$stage/build/run"

mkdir -p "$folder/bench"
cp bench/gpu_*.sh bench/gpu_*.py bench/gpu_*.txt bench/compare_torch_gpu.py "$folder/bench/"
tar -czf "$folder/build.tar.gz" -C "$stage" build
git archive HEAD samples/model samples/images tests/golden | tar -xf - -C "$folder"
[ $# = 0 ] || { mkdir -p "$folder/wheels"; cp "$@" "$folder/wheels/"; }
"$build/vdpp" --version >"$folder/VERSION"
du -sh "$folder"
