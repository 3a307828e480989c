#!/bin/sh
# Everything that only a GPU can show, in one command:
#
#     bench/gpu_check.sh OUT [PART...]
#
# A call takes 9 minutes at most. It does the parts that have not finished in OUT yet, in order, and ends with 75 while some
# are left: call it again. Parts that are named are done again, whatever they were. When none is left, it ends with 0 if all
# passed and with 1 if some failed. OUT/summary.md says how it went, goals and all; OUT/results/ can be committed below
# bench/results.
#
# Variables: BUILD   folder of a finished build; without it build/gpu is made, and in a bundle (gpu_bundle.sh) build is there
#            MODEL   folder for a model with random weights, written when it is not there (4.5 GB; /tmp/vdpp-random-model)
#            PYTHON  one that has torch, transformers and diffusers (python3)
#            CONFIGS, GOLDEN, SHAPES, COMPARE, STEPS, LIMIT   smaller ones, to try the script itself
set -u
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 64; }
[ $# -ge 1 ] || usage
mkdir -p "$1" || exit 73
OUT=$(cd "$1" && pwd)
shift
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
BUILD=${BUILD:+$(absolute "$BUILD")}
MODEL=$(absolute "${MODEL:-/tmp/vdpp-random-model}")
cd "$(dirname "$0")/.." || exit 70

[ ! -e build.tar.gz ] || [ -e build/run ] || tar -xzf build.tar.gz || exit 74
if [ -n "$BUILD" ]; then BUILT=yes; elif [ -e build/run ]; then BUILT=yes BUILD=build; else BUILT=no BUILD=build/gpu; fi
PYTHON=${PYTHON:-python3}
CONFIGS=${CONFIGS:-tests/golden/configs/full}
GOLDEN=${GOLDEN:-tiny odd real last}
SHAPES=${SHAPES:-bench/gpu_shapes.txt}
COMPARE=${COMPARE:-2 32 32}
STEPS=${STEPS:-20}
LIMIT=${LIMIT:-540}
DEADLINE=$(($(date +%s) + LIMIT))
export OUT BUILT BUILD PYTHON MODEL CONFIGS GOLDEN SHAPES COMPARE STEPS DEADLINE

names=$(sed 's/#.*//' "$SHAPES" | awk 'NF {print $1}')
parts="machine build test compare-golden compare-fp32 compare-fp16 compare-bf16 stages sanitize forwards tune table program"
for name in $names; do parts="$parts torch-$name"; done

finish() { # PART RESULT
  echo "$2" >"$OUT/$1/result"
  echo "$1: $2"
}

reason() { grep . "$OUT/$1/log" | tail -n 1; } # PART

# Not 0: it has to go on in another call.
run_part() {
  budget=$((DEADLINE - $(date +%s)))
  [ "$budget" -ge 10 ] || return 1
  mkdir -p "$OUT/$1"
  rm -f "$OUT/$1/result"
  timeout -k 10 "$budget" sh bench/gpu_parts.sh "$1" >"$OUT/$1/log" 2>&1
  code=$?
  case $code in
    0) finish "$1" passed ;;
    77) finish "$1" "skipped: $(reason "$1")" ;;
    99) return 1 ;;
    124 | 137) [ "$budget" -ge $((LIMIT - 10)) ] || return 1; finish "$1" "failed: cut off after $budget s" ;;
    *) finish "$1" "failed ($code): $(reason "$1")" ;;
  esac
}

for part in "$@"; do
  case " $parts " in
    *" $part "*) rm -f "$OUT/$part/result" ;;
    *) echo "no part '$part'; there are: $parts" >&2; exit 64 ;;
  esac
done
# shellcheck disable=SC2086 # a list of words
[ $# -gt 0 ] || set -- $parts
for part in "$@"; do
  [ -e "$OUT/$part/result" ] || run_part "$part" || break
done

left=0
for part in $parts; do [ -e "$OUT/$part/result" ] || left=$((left + 1)); done
# shellcheck disable=SC2086
"$PYTHON" bench/gpu_report.py "$OUT" "$SHAPES" $parts || exit 70
if [ "$left" -gt 0 ]; then
  echo "$left parts are left: call it again"
  exit 75
fi
! grep -q ^failed "$OUT"/*/result
