# River: Go library on PostgreSQL. Sourced by ../run.
title=River
store=PostgreSQL
durability="fsync=on, synchronous_commit=on"
postgres=yes
export BENCH_CONNECTIONS=${BENCH_CONNECTIONS:-64}

install() { go build -o bench . >&2; }
version() { go list -m -f '{{.Version}}' github.com/riverqueue/river | sed 's/^v//'; }
drive() { ./bench; }
