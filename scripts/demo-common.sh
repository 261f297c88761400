# Shared by the scripts that need a `rota dev` of their own, to be sourced by bash: builds programs, starts a private `rota dev`, and
# ends and removes everything when the script ends.
#
# ROTA_BIN   path of a built `rota` (default: built here)
set -euo pipefail
# Bash 5.2 would expand `&` in a replacement.
shopt -u patsub_replacement 2>/dev/null || true

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
log() { printf '%s\n' "$*" >&2; }

# built PACKAGE PROGRAM: builds a program of this workspace and prints its path.
#
# Builds without optimizations, since a first run is mostly building. `rota bench` measures speed.
built() {
    # The program contains the control centre if that is built first, which needs Node.
    if [ ! -d console/dist ] && command -v npm >/dev/null; then
        scripts/console >&2 || log "the control centre was not built; everything else works without it"
    fi
    cargo build --locked --package "$1" --bin "$2" >&2
    printf '%s/%s\n' "$(cd "${CARGO_TARGET_DIR:-target}/debug" && pwd -P)" "$2"
}

place=$(mktemp -d "${TMPDIR:-/tmp}/rota-demo.XXXXXX")
place=$(cd "$place" && pwd -P)
# A private home: other `rota dev` processes and the user's configuration have no effect.
export ROTA_HOME=$place/home ROTA_CONFIG=$place/config.toml
unset ROTA_ENDPOINT ROTA_TOKEN ROTA_TOKEN_FILE ROTA_CA ROTA_NAMESPACE ROTA_DEV_CONFIG
: >"$ROTA_CONFIG"

# Processes to end, the latest first.
running=()

finish() {
    status=$?
    trap - EXIT
    # Another Ctrl-C kills them.
    trap 'for pid in "${running[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done' INT TERM
    for ((index = ${#running[@]} - 1; index >= 0; index--)); do
        pid=${running[index]}
        # `rota dev` ends its workers, and they end their programs.
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

# start LOG PROGRAM...: starts a program in its own process group, so that Ctrl-C reaches only this script, which then ends
# the program gracefully.
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
        if ! kill -0 "${running[${#running[@]} - 1]}" 2>/dev/null || [ "$tries" -gt 3000 ]; then
            log "error: $what did not start; its output:"
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

# endpoint: prints the address of the `rota dev` that was started.
endpoint() {
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["endpoint"])' "$ROTA_HOME/dev/endpoint.json"
}

# filled FILE NAME VALUE...: prints a manifest with each @NAME@ replaced. Values are in single quotes there, in which YAML has
# one special character.
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
