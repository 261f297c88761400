# Restate: one node of its server from npm, with its own log and RocksDB, and its Node.js SDK. Sourced by ../run.
title=Restate
store="own log"
steps=yes
durability="log synced before a call is accepted (default)"

install() { install_node; }
version() { npm_version @restatedev/restate-server; }

drive() {
    BENCH_INGRESS=http://127.0.0.1:$(free_port)
    BENCH_ADMIN=http://127.0.0.1:$(free_port)
    # As in production, the SDK does not log each call.
    export BENCH_INGRESS BENCH_ADMIN NODE_ENV=production RESTATE_LOGGING=ERROR
    RESTATE_INGRESS__BIND_ADDRESS=${BENCH_INGRESS#http://} RESTATE_ADMIN__BIND_ADDRESS=${BENCH_ADMIN#http://} \
        RESTATE_DISABLE_TELEMETRY=true RESTATE_BIND_ADDRESS=127.0.0.1:$(free_port) \
        node_modules/@restatedev/restate-server-linux-x64/bin/restate-server --base-dir "$BENCH_FOLDER/store" \
        --node-name bench --no-logo >"$BENCH_FOLDER/server.log" 2>&1 &
    server=$!
    wait_for curl --silent --fail "$BENCH_ADMIN/health"
    wait_for curl --silent --fail "$BENCH_INGRESS/restate/health"
    node bench.mjs
}
