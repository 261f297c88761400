# awa: Rust library on PostgreSQL. Sourced by ../run.
title=awa
store=PostgreSQL
durability="fsync=on, synchronous_commit=on"
postgres=yes
export BENCH_CONNECTIONS=${BENCH_CONNECTIONS:-16}

install() { CARGO_TARGET_DIR=$PWD/target cargo build --release --locked --quiet >&2; }
version() { awk '$0 == "name = \"awa\"" {getline; gsub(/"/, "", $3); print $3}' Cargo.lock; }
drive() { target/release/rota-bench-peer-awa; }
