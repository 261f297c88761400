#!/usr/bin/env bash
# Creates a venv and stubs from proto/, then runs the worker. Later runs reuse both.
#
#   examples/python-worker/run.sh AGENT WORKER     join the pool of AGENT
#   examples/python-worker/run.sh --prepare        only create venv and stubs
#
# ROTA_ENDPOINT, ROTA_TOKEN_FILE   the control plane and a worker token (default: the `rota dev` of this machine, and a new token)
# ROTA_PYTHON_DIR                  where venv and stubs are kept (default: ~/.cache/rota/python-worker)
# PYTHON                           the Python to use, 3.10 or newer (default: python3)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
proto=$here/../../proto
made=${ROTA_PYTHON_DIR:-$HOME/.cache/rota/python-worker}
stubs=$made/stubs

if ! cmp -s "$here/requirements.txt" "$made/requirements.txt"; then
    echo "creating a venv in $made" >&2
    "${PYTHON:-python3}" -m venv --clear "$made/venv"
    "$made/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$here/requirements.txt" >&2
    cp "$here/requirements.txt" "$made/requirements.txt"
fi
# Generated on each run: it takes a second, and the protos may have changed. Replaced atomically for workers that are running.
new=$(mktemp -d "$made/stubs.XXXXXX")
files=$(cd "$proto" && find google rota -name '*.proto')
# shellcheck disable=SC2086 # one word a file
(cd "$proto" && "$made/venv/bin/python" -m grpc_tools.protoc -I. \
    --python_out="$new" --grpc_python_out="$new" $files)
rm -rf "$stubs" && mv "$new" "$stubs"
[ "${1:-}" != "--prepare" ] || exit 0
[ $# -eq 2 ] || { echo "usage: run.sh AGENT WORKER" >&2; exit 2; }

# Address of the `rota dev` on this machine, unless the environment sets them.
field() { "$made/venv/bin/python" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$dev" "$1"; }
dev=${ROTA_HOME:-$HOME/.rota}/dev/endpoint.json
ROTA_ENDPOINT=${ROTA_ENDPOINT:-$(field endpoint)}
if [ -n "${ROTA_TOKEN_FILE:-}" ]; then
    ROTA_TOKEN=$(cat "$ROTA_TOKEN_FILE")
else
    # A token for this worker alone; the admin's opens no sessions.
    ROTA_TOKEN=$(rota admin create-worker-token "$1" --worker "$2")
fi
export ROTA_ENDPOINT=${ROTA_ENDPOINT#http://} ROTA_TOKEN PYTHONPATH=$stubs
exec "$made/venv/bin/python" "$here/worker.py" "$@"
