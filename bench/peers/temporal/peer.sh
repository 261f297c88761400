# Temporal: the development server of its command line, on a SQLite file, and its Go SDK. Sourced by ../run.
title="Temporal, development server"
store=SQLite
steps=yes
durability="journal_mode=WAL, synchronous=FULL"

install() {
    go build -o bench . >&2
    go build -o temporal github.com/temporalio/cli/cmd/temporal >&2
}

version() { go list -m -f '{{.Version}}' go.temporal.io/server | sed 's/^v//'; }

drive() {
    BENCH_ADDRESS=127.0.0.1:$(free_port)
    export BENCH_ADDRESS
    ./temporal server start-dev --headless --ip 127.0.0.1 --port "${BENCH_ADDRESS#*:}" --log-level error \
        --db-filename "$BENCH_FOLDER/temporal.sqlite" --sqlite-pragma journal_mode=WAL --sqlite-pragma synchronous=FULL \
        --dynamic-config-value system.enableEagerWorkflowStart=true >"$BENCH_FOLDER/server.log" 2>&1 &
    server=$!
    wait_for ./temporal operator cluster health --address "$BENCH_ADDRESS"
    ./bench
}
