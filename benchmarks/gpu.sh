#!/usr/bin/env bash
# The proof on an NVIDIA GPU, in four commands that each end within ten minutes:
#
#   benchmarks/gpu.sh first      versions, build, constants of the model, GPU tests, racecheck
#   benchmarks/gpu.sh ops        all other tests, timings of the ops
#   benchmarks/gpu.sh steps      timings of training steps and of lifting, 90 s of each stage
#   benchmarks/gpu.sh schedule   both stages in full on 1.56 million synthetic poses
#
# A build that is carried (ites/_C*.so, ites/_C_cuda*.so) is taken as it is. Not run on a GPU yet.
#
# A step that fails leaves the others their turn; the summary at the end tells, and the exit status
# is the number of failures. Results go to $OUT, by default benchmarks/results/<device>.
#
# A part stops itself after $LIMIT seconds (default 570): the steps that come last have what is left.
# schedule leaves its run in $OUT as run.tar.part*; with RESUME=<folder with these parts> another
# call goes on from there.
#
# --dry-run after the part: much the same in small on a CPU, to try this script itself.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

part=${1:-}
dry=${2:-}
if [[ ! $part =~ ^(first|ops|steps|schedule)$ ]]; then
    sed -n '2,/^set/{s/^# \{0,1\}//p}' benchmarks/gpu.sh
    exit 2
fi
LIMIT=${LIMIT:-570}
export PYTHON=${PYTHON:-python3} PYTHONPATH=$PWD PYTHONUNBUFFERED=1
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-9.0} MAX_JOBS=${MAX_JOBS:-$(nproc)}
if [ -z "${OUT:-}" ]; then
    OUT=$(mktemp -d)
    where="from benchmarks.machine import *; print(results_folder(pick_device()))"
    [ "$dry" ] || OUT=$("$PYTHON" -c "$where") || exit
fi
OUT=$(realpath -m "$OUT")
log=$OUT/$part.log
summary=$OUT/$part.summary.txt
failures=0

say() { echo "$*" | tee -a "$summary"; }

# step NAME SECONDS COMMAND...: run a command within a time, log it, say how it went.
step() {
    local name=$1 seconds=$2 left=$((LIMIT - SECONDS)) start status
    shift 2
    if [ "$left" -lt 10 ]; then
        say "$(printf '%-24s no time is left' "$name")"
        failures=$((failures + 1))
        return 1
    fi
    [ "$seconds" -le "$left" ] || seconds=$left
    start=$(date +%s)
    printf '\n== %s: %s\n' "$name" "$*" >>"$log"
    timeout --signal=INT --kill-after=20 "$seconds" "$@" >>"$log" 2>&1
    status=$?
    say "$(printf '%-24s status %3d %5d s   %s' "$name" "$status" $(($(date +%s) - start)) \
        "$(tail -n 1 "$log" | cut -c 1-100)")"
    [ "$status" -eq 0 ] || failures=$((failures + 1))
    return "$status"
}

built() { "$PYTHON" -c "import torch, ites._C, ites._C_cuda, ites.kernels"; }

# The kernels of Triton are found as ites.kernels by an installation, or else by a link.
# shellcheck disable=SC2329  # called in the shell of step_build
build() {
    "$PYTHON" -m pip install --no-build-isolation --no-deps --no-index -e . && built && return
    echo "pip failed; building in place"
    "$PYTHON" setup.py build_ext --inplace && ln -sfn ../kernels ites/kernels && built
}

step_build() { step build 200 bash -c "$(declare -f build built); build"; }

step_build_if_missing() { built 2>/dev/null || step_build; }

first() {
    local sanitizer model=()
    step versions 30 "$PYTHON" -m ites doctor
    if [ "$dry" ]; then
        step build 60 "$PYTHON" -c "import torch, ites._C"
    else
        step_build_if_missing
        step constants 60 "$PYTHON" -m benchmarks.speed.constants --json "$OUT/constants.json"
        [ -f "$OUT/constants.json" ] && model=(--constants "$OUT/constants.json")
    fi
    step model 60 "$PYTHON" -m benchmarks.speed.model "${model[@]}"
    step "GPU tests" 90 "$PYTHON" -m pytest -p no:cacheprovider tests/gpu tests/training/test_capture.py
    [ "$dry" ] && return
    step "ops once" 40 "$PYTHON" -m benchmarks.ops.small --device cuda
    if sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer); then
        # Our CUDA kernels alone: racecheck reports Triton's reductions whatever we do.
        for tool in racecheck memcheck; do
            PYTORCH_NO_CUDA_MEMORY_CACHING=1 step "$tool" 45 "$sanitizer" --tool "$tool" \
                --kernel-regex kernel_substring=ites --print-limit 20 --error-exitcode 9 \
                "$PYTHON" -m benchmarks.ops.small --device cuda
        done
    else
        say "compute-sanitizer: not installed"
    fi
    sed -n '/ launches, /p; /^schedule: /p' "$log" | tee -a "$summary"
}

ops() {
    local where=(--out "$OUT") options=()
    if [ "$dry" ]; then
        step tests 300 "$PYTHON" -m pytest tests/ops/test_backends.py
        step "ops once" 120 "$PYTHON" -m benchmarks.ops.small --device cpu
        step timings 300 "$PYTHON" -m benchmarks.ops.run --device cpu --quick -k "so3_exp" "${where[@]}"
    else
        step_build_if_missing
        "$PYTHON" -c "import xdist" 2>/dev/null && options=(-n 8)
        OMP_NUM_THREADS=2 step tests 200 "$PYTHON" -m pytest -p no:cacheprovider "${options[@]}" tests
        step "ops once" 60 "$PYTHON" -m benchmarks.ops.small --device cuda
        step timings 200 "$PYTHON" -m benchmarks.ops.run --device cuda --seconds 0.05 \
            --compiled-batches "" "${where[@]}"
        # What torch.compile makes of it takes long to make: it has the time that is left.
        LIMIT=$((LIMIT - 20)) step "with torch.compile" 300 "$PYTHON" -m benchmarks.ops.run \
            --device cuda --seconds 0.05 --compiled-batches 65536,1048576 -k compile --merge \
            "${where[@]}"
    fi
    step plots 60 "$PYTHON" -m benchmarks.ops.plot "$OUT/ops.json"
    sed -n '/ x eager /p; / rows, /p; /  slower: /p' "$log" | tail -n 80 | tee -a "$summary"
}

steps() {
    local small=(--device cuda) rates=(--device cuda --seconds 90)
    if [ "$dry" ]; then
        small=(--device cpu --rounds 1)
        rates=(--device cpu --seconds 1 --precision float32)
    else
        step_build_if_missing
    fi
    step "rates" 210 "$PYTHON" -m benchmarks.speed.schedule "${rates[@]}" --json "$OUT/rates.json"
    # First without torch.compile of the baseline, whose compilation may outlast its time.
    step "training steps" 100 "$PYTHON" -m benchmarks.speed.training --no-compile "${small[@]}" \
        --json "$OUT/steps.json"
    step lifting 60 "$PYTHON" -m benchmarks.speed.lifting "${small[@]}" --json "$OUT/lifting.json"
    [ "$dry" ] || step "with torch.compile" 240 "$PYTHON" -m benchmarks.speed.training --compile \
        --json "$OUT/steps_compile.json"
    sed -n '/batch/p; / ms /p; /poses\/s/p; /one pose/p; /failed/p; /^schedule/p' "$log" | tee -a "$summary"
}

schedule() {
    local run=$OUT/run store poses=1560000 options=(--precision tf32)
    if [ "$dry" ]; then
        poses=4000
        options=(--device cpu --set teacher.width=16 --set teacher.blocks=1 --set teacher.epochs=2)
        options+=(--set student.width=8 --set student.blocks=1 --set student.epochs=1)
    else
        step_build_if_missing
    fi
    store=${TMPDIR:-/tmp}/ites-synthetic-$poses.h5
    [ -f "$store" ] || step "synthetic poses" 240 "$PYTHON" -m ites prepare synthetic \
        --poses "$poses" --test-subjects 0 --out "$store"
    [ "${RESUME:-}" ] && mkdir -p "$run" && cat "$RESUME"/run.tar.part* | tar -x -C "$OUT"
    if [ -f "$run/settings.toml" ]; then
        options=(--resume "$run")
    else
        options+=(--out "$run")
    fi
    # Packing the run takes the last seconds.
    LIMIT=$((LIMIT - 20)) step train 600 "$PYTHON" -m ites train --data "$store" \
        "${options[@]}"
    [ -d "$run" ] && tar -c -C "$OUT" run | split -b 15M - "$OUT/run.tar.part" && rm -r "$run"
    sed -n '/^teacher: /p; /^student: /p; /^continue /p' "$log" | tee -a "$summary"
}

mkdir -p "$OUT"
: >"$log"
: >"$summary"
say "$part, $(date -u '+%Y-%m-%d %H:%M') UTC, commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
[ "$dry" ] || say "$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader)"
case $part in
first) first ;;
ops) ops ;;
steps) steps ;;
schedule) schedule ;;
esac
say "$failures failed, $SECONDS s; log $log"
exit "$failures"
