#!/usr/bin/env bash
# The GPU gate (tests/gates/cuda.py) on a machine that is lent for minutes, bare, offline, and reached by single commands.
#
#   bash benchmarks/device_session.sh prepare                   here, once: what that machine lacks, into .device/ (ignored by git)
#   bash benchmarks/device_session.sh there TASK CALL [TOTAL]   there, in each command: train TASK for CALL of TOTAL minutes, pack into $OUT
#   bash benchmarks/device_session.sh fetch FOLDER TASK         here, at the end: put together what came back
#
# One lease of 30 minutes, three commands of at most 10; the machine keeps /tmp between them while it is held. Its start, the
# transfers and every command's own start and end (install, export, packing) count, so about 21 minutes are left to train in:
#
#   run(command="bash benchmarks/device_session.sh there cartpole-swingup 6.5 21", carry=[".device"])   also runs tests/test_cuda.py
#   run(command="bash benchmarks/device_session.sh there cartpole-swingup 8 21")
#   run(command="bash benchmarks/device_session.sh there cartpole-swingup 6.5 21")                       the last one judges, too
#
# A call killed in mid-way costs what came after its last checkpoint (5000 agent steps); the same call again goes on from there. A lease
# that ends takes the run with it: weights and optimisers (190 MB) and pictures (1 GB) do not fit through 64 MiB. What comes home
# each time is the model and agent as they stand, in half precision, the log and the record.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

WHEELS=(mujoco dm-env gymnasium Farama-Notifications cloudpickle absl-py lxml PyOpenGL pytest pluggy iniconfig pygments)
GRAPHICS=(libegl1 libglvnd0 libopengl0 libgl1 libglx0 libgles2)
SITE=${SITE:-/tmp/site}

prepare() {
    local python=.venv/bin/python name version
    rm -rf .device && mkdir -p .device/whl .device/gl /tmp/amd64/partial
    for name in "${WHEELS[@]}"; do
        version=$("$python" -c "from importlib.metadata import version; print(version('$name'))")
        "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
            --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
            --platform manylinux2014_x86_64 -d .device/whl "$name==$version"
    done
    # The suite alone: with locomotion, and the dog's meshes, the wheel would weigh 56 MB.
    tar cz --exclude=__pycache__ --exclude='*_test.py' --exclude=dm_control/{locomotion,entities,manipulation,blender,viewer,composer} \
        --exclude=dog_assets --exclude='*.png' -C "$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')" \
        dm_control >.device/dm_control.tgz
    local apt=(-oAPT::Architecture=amd64 -oAPT::Architectures=amd64 -oDir::State::Lists=/tmp/amd64)
    { apt-get "${apt[@]}" -qq update && (cd .device/gl && apt-get "${apt[@]}" -qq download "${GRAPHICS[@]}"); } ||
        echo "no graphics libraries: pictures need what the machine has itself" >&2
    du -ch .device | tail -1
    git ls-files -coz --exclude-standard | xargs -0 du -ch | tail -1
    echo "both together must stay under 64 MiB"
}

there() {
    local task=$1 call=$2 total=${3:-30}
    export PYTHONPATH=$SITE:$PWD MUJOCO_GL=${MUJOCO_GL:-egl} DREAMGYM_RUNS=${DREAMGYM_RUNS:-/tmp/runs} PYTHONUNBUFFERED=1
    [ -d "$SITE/dm_control" ] || install_there
    local record=benchmarks/results/cuda/dreamer-v2-$task-0.json run=$DREAMGYM_RUNS/gpu-$task-0
    if [ ! -e "$DREAMGYM_RUNS/tested" ]; then
        mkdir -p "$DREAMGYM_RUNS"
        python3 -m pytest -q -p no:cacheprovider -m cuda tests/test_noise.py tests/test_cuda.py | tee "$OUT/tests.log" || true
        touch "$DREAMGYM_RUNS/tested"
    fi
    python3 -m tests.gates.cuda "$task" --session "$call" --minutes "$total" --device "${DEVICE:-cuda}"
    cp "$record" "$OUT/record.json"
    gzip -c "$run/metrics.jsonl" >"$OUT/metrics.jsonl.gz"
    [ ! -d "$run/model" ] || pack "$run" # after the random episodes alone there is none
    ls -l "$OUT"
}

install_there() {
    [ -d .device ] || { echo "this machine is a fresh one: name .device in carry" >&2; exit 1; }
    local deb
    for deb in .device/gl/*.deb; do [ ! -e "$deb" ] || dpkg -x "$deb" /; done
    ldconfig
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$SITE" .device/whl/*.whl
    tar xz -C "$SITE" <.device/dm_control.tgz
}

# Model and agent as a tar in parts of 15 MiB: of what comes back, no file may be larger than 16.
pack() {
    local folder
    folder=$(mktemp -d)
    python3 - "$1" "$folder" <<'PYTHON'
import shutil
import sys
from pathlib import Path

import torch

from dreamgym.hub import bundle

run, folder = map(Path, sys.argv[1:])
bundle.save(bundle.load(run / "model"), folder / "model", source={"run": run.name}, dtype=torch.float16)
shutil.copytree(run / "agent", folder / "agent")
PYTHON
    tar cz -C "$folder" model agent | split -b 15M -d - "$OUT/run.tgz."
    rm -r "$folder"
}

fetch() {
    local from=$1 task=$2
    local home=runs/gpu-$task-home
    mkdir -p "$home" benchmarks/results/cuda
    cat "$from"/run.tgz.* | tar xz -C "$home"
    gunzip -c "$from/metrics.jsonl.gz" >"$home/metrics.jsonl"
    cp "$from/record.json" "benchmarks/results/cuda/dreamer-v2-$task-0.json"
    ls "$home"
}

case "${1:-}" in
prepare | there | fetch) "$@" ;;
*) sed -n "2,/^set /{/^set /!p}" benchmarks/device_session.sh >&2 && exit 2 ;;
esac
