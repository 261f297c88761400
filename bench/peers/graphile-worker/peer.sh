# graphile-worker: Node.js library on PostgreSQL. Sourced by ../run.
title=graphile-worker
store=PostgreSQL
durability="fsync=on, synchronous_commit=on"
postgres=yes
export BENCH_CONNECTIONS=${BENCH_CONNECTIONS:-16}

install() { install_node; }
version() { npm_version graphile-worker; }
drive() { node bench.mjs; }
