# pg-boss: Node.js library on PostgreSQL. NOTIFY makes dispatch fast and concurrent creation slow, so both are measured.
# Sourced by ../run.
store=PostgreSQL
durability="fsync=on, synchronous_commit=on"
postgres=yes
variants=(notify polling)
export BENCH_CONNECTIONS=${BENCH_CONNECTIONS:-64}

install() { install_node; }
version() { npm_version pg-boss; }
describe() { title="pg-boss, $1"; }
drive() {
    local notify='' pause=500
    # Without pauses of up to the polling interval, each task would be created right after a poll.
    if [ "$1" = notify ]; then notify=1 pause=0; fi
    BENCH_NOTIFY=$notify BENCH_IDLE_PAUSE=$pause node bench.mjs
}
