# What scripts/demo and scripts/demo-claude share: building, a `rota dev` of their own, and ending all
# of it. To be sourced by bash, with nothing of it left running or behind when the script ends.
#
# ROTA_BIN   a `rota` that is built already; otherwise it is built here
set -euo pipefail
# Bash 5.2 would give a meaning to the `&` of a path.
shopt -u patsub_replacement 2>/dev/null || true

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
say() { printf '%s\n' "$*" >&2; }

# built PACKAGE PROGRAM: builds a program of this workspace and prints its path.
#
# It is the unoptimised build: that takes a fraction of the time of the optimised one, and a first run
# is mostly building. For what is done here it is quick enough; speed is measured by `rota bench`.
built() {
    cargo build --locked --package "$1" --bin "$2" >&2
    printf '%s/%s\n' "$(cd "${CARGO_TARGET_DIR:-target}/debug" && pwd -P)" "$2"
}

place=$(mktemp -d "${TMPDIR:-/tmp}/rota-demo.XXXXXX")
place=$(cd "$place" && pwd -P)
# A home of its own: no other `rota dev` of this user is found or disturbed, and no configuration counts.
export ROTA_HOME=$place/home ROTA_CONFIG=$place/config.toml
unset ROTA_ENDPOINT ROTA_TOKEN ROTA_TOKEN_FILE ROTA_CA ROTA_NAMESPACE ROTA_DEV_CONFIG
: >"$ROTA_CONFIG"

# Processes to end, the last one first.
running=()

finish() {
    status=$?
    trap - EXIT
    # Ctrl-C while they end: no more waiting.
    trap 'for pid in "${running[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done' INT TERM
    for ((index = ${#running[@]} - 1; index >= 0; index--)); do
        pid=${running[index]}
        # `rota dev` ends its workers first, and they what they run.
        if kill -TERM "$pid" 2>/dev/null; then
            wait "$pid" 2>/dev/null || true
        fi
    done
    rm -rf "$place"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start LOG PROGRAM...: starts a program in a process group of its own, so that Ctrl-C reaches this
# script alone, which then ends the program in order.
start() {
    local log=$1
    shift
    set -m
    "$@" >"$log" 2>&1 </dev/null &
    running+=($!)
    set +m
}

# until_ready WHAT LOG COMMAND...: waits until a command succeeds, or the program started last has ended.
until_ready() {
    local what=$1 log=$2
    shift 2
    local tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if ! kill -0 "${running[${#running[@]} - 1]}" 2>/dev/null || [ "$tries" -gt 600 ]; then
            say "error: $what did not start; this is what it said:"
            cat "$log" >&2
            exit 1
        fi
        sleep 0.1
    done
}

# start_dev ARGUMENTS...: starts `rota dev` on a free port of this machine, and waits until it answers.
start_dev() {
    start "$place/dev.log" "$rota" dev --listen 127.0.0.1:0 --data-dir "$place/data" "$@"
    until_ready "rota dev" "$place/dev.log" test -e "$ROTA_HOME/dev/endpoint.json"
    until_ready "rota dev" "$place/dev.log" "$rota" agents
}

# filled FILE NAME VALUE...: prints a manifest with each @NAME@ replaced. The values stand in single
# quotes there, in which YAML knows one special character.
filled() {
    local text name value
    text=$(<"$1")
    shift
    while [ $# -gt 0 ]; do
        name=$1 value=${2//\'/\'\'}
        text=${text//@$name@/$value}
        shift 2
    done
    printf '%s\n' "$text"
}
