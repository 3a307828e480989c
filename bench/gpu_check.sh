#!/bin/sh
# Everything that only a GPU can show, in one command; results go to OUT.
#
#     bench/gpu_check.sh OUT [PART...]     parts: build test runs sanitize speed; all of them when none is named
#
# BUILD names the build folder (build/gpu); PYTHON the one that has torch and diffusers (python3).
# shellcheck disable=SC2317 # parts are called by their names
set -u
out=$1
shift
parts=${*:-build test runs sanitize speed}
build=${BUILD:-build/gpu} python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here" || exit 70
mkdir -p "$out"
result=0

say() { printf 'gpu_check: %s\n' "$*" | tee -a "$out/summary"; }

# keep NAME COMMAND...: its output in OUT/NAME; a failure is noted and the rest goes on.
keep() {
  name=$1
  shift
  if "$@" >"$out/$name" 2>&1; then say "$name: ok"; else say "$name: FAILED ($?)"; result=1; fi
}

part_build() {
  keep configure cmake -G Ninja -B "$build" -DCMAKE_BUILD_TYPE=Release -DVDPP_CUDA=ON -DVDPP_BENCH=ON \
    -DCMAKE_CUDA_ARCHITECTURES=native
  keep build cmake --build "$build"
}

part_test() {
  keep ctest ctest --test-dir "$build" -L gpu --output-on-failure --timeout 300
}

hashes() { sed -n 's/^ *"hash": "\([0-9a-f]*\)".*/\1/p' "$1"; }

# Whatever the mode and the number of stages on the one GPU, a sample has the same bits.
part_runs() {
  common="--latent-shape 1 4 8 16 16 -n 6 --steps 10 -y --format latents -q"
  # shellcheck disable=SC2086 # one word per option
  keep run-one "$build/vdpp" --devices cuda:0 $common --output-dir "$out/one" --report "$out/one.json"
  for mode in pipeline data wrap; do
    # shellcheck disable=SC2086
    keep "run-$mode" "$build/vdpp" --devices cuda:0,cuda:0 $common --parallel "$mode" --output-dir "$out/$mode" \
      --report "$out/$mode.json"
    if [ -n "$(hashes "$out/one.json")" ] && [ "$(hashes "$out/one.json")" = "$(hashes "$out/$mode.json")" ]; then
      say "bits of $mode: equal"
    else
      say "bits of $mode: DIFFER"
      result=1
    fi
  done
}

part_sanitize() {
  command -v compute-sanitizer >/dev/null || { say "compute-sanitizer: not here"; return; }
  for tool in memcheck racecheck; do
    keep "$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 "$build/vdpp" --devices cuda:0 --latent-shape 1 4 2 8 8 \
      --steps 1 -y --format latents -q --output-dir "$out/sanitized"
  done
}

part_speed() {
  keep speed "$python" bench/compare_torch_gpu.py "$build/bench/bench_step" "${MODEL:-/tmp/vdpp-full}" "$out/speed.json" \
    --compile
}

say "commit $(git describe --always --dirty 2>/dev/null), $(date -u +%FT%TZ)"
nvidia-smi >"$out/nvidia-smi" 2>&1 || say "nvidia-smi: FAILED"
for part in $parts; do
  "part_$part"
done
exit $result
