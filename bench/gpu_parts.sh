#!/bin/sh
# One part of bench/gpu_check.sh, which calls this with its variables set. What a part finds goes to OUT/PART. Ends with 0
# when all was well, 77 when it cannot be done here, 99 when it has to go on in another call; the last line of output says why.
# shellcheck disable=SC2046,SC2086 # lists of words are meant to be split
# shellcheck disable=SC2317 # parts are called by their names
set -eu
part=$1
to=$OUT/$part
bench=$BUILD/bench

# The tuner's choices lie in the folder named; what the user's own cache holds is left alone.
with_cache() { export XDG_CACHE_HOME="$OUT/cache/$1"; }

# NETWORK FRAMES HEIGHT WIDTH of the shape named, and of the first.
shape_of() { sed 's/#.*//' "$SHAPES" | awk -v name="$1" '$1 == name {print $2, $3, $4, $5}'; }
first_shape() { sed 's/#.*//' "$SHAPES" | awk 'NF {print $2, $3, $4, $5; exit}'; }

need_model() {
  [ -e "$MODEL/image_encoder/model.safetensors" ] || "$bench/bench_model" "$CONFIGS" "$MODEL"
}

hashes() { sed -n 's/.*"latents_hash": *"\([0-9a-f]*\)".*/\1/p' "$1"; }

# same_hashes A B: of the samples of two reports.
same_hashes() {
  if [ -n "$(hashes "$to/$1.json")" ] && [ "$(hashes "$to/$1.json")" = "$(hashes "$to/$2.json")" ]; then
    echo "$1, $2: equal bits"
  else
    echo "$1, $2: bits DIFFER"
    return 1
  fi
}

# make NAME OPTIONS...: latents by vdpp; its report is NAME.json.
make() {
  name=$1
  shift
  "$BUILD/vdpp" "$@" -q -y --format latents --output-dir "$to/made" --report "$to/$name.json"
}

# ---- what there is ----

part_machine() {
  "$BUILD/vdpp" --version >"$to/version" 2>&1 || echo "not built yet" >"$to/version"
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit --format=csv,noheader \
    >"$to/smi" || { echo "there is no nvidia-smi"; return 77; }
}

part_build() {
  if [ "$BUILT" = no ]; then
    cmake -G Ninja -B "$BUILD" -DCMAKE_BUILD_TYPE=Release -DVDPP_CUDA=ON -DVDPP_BENCH=ON -DCMAKE_CUDA_ARCHITECTURES=native
    cmake --build "$BUILD"
  fi
  "$BUILD/vdpp" --version >"$to/version"
  "$BUILD/vdpp" doctor | tee "$to/doctor"
  "$BUILD/vdpp" devices
}

# ---- what is right ----

# A bundle has no ctest.
run_tests() {
  if [ -e "$BUILD/CTestTestfile.cmake" ]; then
    ctest --test-dir "$BUILD" -L gpu -j 4 --output-on-failure --timeout 300
    return
  fi
  failed=0
  for test in "$BUILD"/tests/*; do
    code=0
    timeout 300 "$test" || code=$?
    case $code in
      0) echo "$test: passed" ;;
      77) echo "$test: ***Skipped" ;;
      *) echo "$test: FAILED ($code)"; failed=1 ;;
    esac
  done
  return $failed
}

part_test() {
  code=0
  run_tests >"$to/output" 2>&1 || code=$?
  cat "$to/output"
  [ $code = 0 ] || { grep -i 'failed' "$to/output" || :; return 1; }
  ! grep -q '\*\*\*Skipped' "$to/output" || { echo "there is no GPU for the tests"; return 77; }
}

# compare NAME MODEL TYPE: every network, whole and by operation. The VAE encodes in fp32 only.
compare() {
  over=0
  for network in step condition decode encode clip; do
    [ "$network$3" = encodefp32 ] || [ $network != encode ] || continue
    "$bench/bench_compare" "$2" $network "$3" $COMPARE >"$to/$1-$network-$3.json" || over=1
    tail -n 1 "$to/$1-$network-$3.json"
  done
  return $over
}

part_compare_golden() {
  wrong=0
  for config in $GOLDEN; do
    "$bench/bench_model" "tests/golden/configs/$config" "$to/model"
    for dtype in fp32 fp16 bf16; do
      compare "$config" "$to/model" "$dtype" || wrong=1
    done
  done
  rm -r "$to/model"
  return $wrong
}

compare_random() {
  need_model
  compare random "$MODEL" "$1"
}
part_compare_fp32() { compare_random fp32; }
part_compare_fp16() { compare_random fp16; }
part_compare_bf16() { compare_random bf16; }

# Whatever the mode and the number of stages on the one GPU, a sample has the same bits, and again the same.
part_stages() {
  with_cache none
  common="-m samples/model --latent-shape 1 4 4 8 8 -n 4 --steps 6"
  make one --devices cuda:0 $common
  make again --devices cuda:0 $common
  same_hashes one again
  for mode in pipeline data wrap; do
    make $mode --devices cuda:0,cuda:0 $common --parallel $mode
    make $mode-staged --devices cuda:0,cuda:0 $common --parallel $mode --p2p off
    same_hashes one $mode
    same_hashes one $mode-staged
  done
}

# sanitize TOOL PROGRAM...: 77 when the tool gets nowhere.
sanitize() {
  tool=$1 log=$to/$1-$(basename "$2") code=0
  shift
  compute-sanitizer --tool "$tool" --report-api-errors no --target-processes all --error-exitcode 1 "$@" >"$log" 2>&1 || code=$?
  grep SUMMARY "$log" || { echo "compute-sanitizer does not start: $(tail -n 1 "$log")"; return 77; }
  [ $code = 0 ]
}

# Our own kernels by themselves under each tool, and one short run under memcheck: NVIDIA's kernels have races that they know of.
part_sanitize() {
  command -v compute-sanitizer || { echo "compute-sanitizer is not here"; return 77; }
  with_cache none
  find -L "$BUILD/tests" -name 'test_gpu_kernels_*' -type f -perm -1 >"$to/programs"
  while read -r test; do
    for tool in memcheck racecheck synccheck; do sanitize $tool "$test" </dev/null; done
  done <"$to/programs"
  sanitize memcheck "$BUILD/vdpp" -m samples/model --devices cuda:0 --latent-shape 1 4 2 8 8 --steps 1 -q -y --format latents \
    --output-dir "$to/made"
}

# ---- how fast ----

# Untuned.
part_forwards() {
  need_model
  with_cache none
  sed 's/#.*//' "$SHAPES" | awk NF >"$to/shapes"
  while read -r name shape; do
    set -- $shape
    "$bench/bench_step" "$MODEL" "$1" fp16 "$2" "$3" "$4" 7 cuda >"$to/$name.json" </dev/null
    echo "$name: $(cat "$to/$name.json")"
  done <"$to/shapes"
}

# Everything that a video of the first shape runs. Cut off, it goes on in the next call.
part_tune() {
  need_model
  with_cache tuned
  set -- $(first_shape)
  code=0 seconds=$((DEADLINE - $(date +%s) - 15))
  [ $seconds -gt 0 ] || return 99
  timeout $seconds "$BUILD/vdpp" tune -m "$MODEL" -i samples/images/ball.png --frames "$2" \
    -H $(($3 * 8)) -W $(($4 * 8)) --guidance 3:3 --steps 2 --devices cuda:0 >>"$to/trials" 2>&1 || code=$?
  [ $code != 124 ] || return 99
  tail -n 1 "$to/trials"
  return $code
}

part_table() {
  need_model
  with_cache tuned
  set -- $(first_shape)
  "$bench/bench_table" "$MODEL" "$1" fp16 "$2" "$3" "$4" cuda >"$to/table.json"
}

# Whole runs: loading, and stages on one GPU against one; in turns, so that both find the files in memory.
part_program() {
  need_model
  with_cache tuned
  set -- $(first_shape)
  shift
  "$bench/bench_handoff" "$MODEL" "$@" cuda >"$to/handoff.json"
  common="-m $MODEL --latent-shape 2 4 $* -n 6 --guidance 3:3 --steps $STEPS"
  make warm --devices cuda:0 -m "$MODEL" --latent-shape 2 4 "$@" -n 1 --guidance 3:3 --steps 1
  for round in 1 2; do
    make one-$round --devices cuda:0 $common
    make two-$round --devices cuda:0,cuda:0 $common
  done
  same_hashes one-1 one-2
  same_hashes one-1 two-1
  same_hashes one-1 two-2
}

# A bundle may bring Python packages along.
part_torch() {
  need_model
  with_cache tuned
  for wheel in wheels/*.whl; do
    [ ! -e "$wheel" ] || "$PYTHON" -m zipfile -e "$wheel" "$OUT/packages"
  done
  export PYTHONPATH="$OUT/packages${PYTHONPATH:+:$PYTHONPATH}"
  "$PYTHON" bench/compare_torch_gpu.py "$bench/bench_step" "$MODEL" "$to/result.json" $(shape_of "$1")
}

case $part in
  torch-*) part_torch "${part#torch-}" ;;
  *) "part_$(echo "$part" | tr - _)" ;;
esac
