# A PostgreSQL cluster of its own for one round: on a Unix socket only, durable, in the folder of the round. Sourced by ../run.
# PostgreSQL refuses to run as root, so root runs it as the user `postgres`, which Debian's package creates.

postgres_pid=

# Starts a cluster in a folder and sets DATABASE_URL.
postgres_start() {
    local folder=$1 as=() programs
    programs=$(postgres_programs)
    mkdir "$folder"
    if [ "$(id -u)" = 0 ]; then
        as=(env --chdir=/ setpriv --reuid=postgres --regid=postgres --init-groups)
        chown postgres "$folder"
    fi
    chmod 700 "$folder"
    "${as[@]}" "$programs/initdb" --pgdata="$folder/data" --username=bench --auth=trust --encoding=UTF8 --locale=C >"$folder/initdb.log"
    "${as[@]}" "$programs/postgres" -D "$folder/data" -k "$folder" -c listen_addresses= \
        -c fsync=on -c synchronous_commit=on -c full_page_writes=on \
        -c max_connections=200 -c shared_buffers=512MB -c max_wal_size=4GB >"$folder/postgres.log" 2>&1 &
    postgres_pid=$!
    for _ in {1..200}; do
        if "$programs/pg_isready" --quiet --host="$folder" --username=bench --dbname=postgres; then
            "$programs/createdb" --host="$folder" --username=bench bench
            export DATABASE_URL="postgresql://bench@localhost/bench?host=$folder"
            return
        fi
        sleep 0.05
    done
    cat "$folder/postgres.log" >&2
    return 1
}

# Stops the cluster, if one runs. Its process is the one that env and setpriv have become.
postgres_stop() {
    [ -n "$postgres_pid" ] || return 0
    kill -INT "$postgres_pid" 2>/dev/null || true
    wait "$postgres_pid" || true
    postgres_pid=
}

postgres_version() {
    "$(postgres_programs)/postgres" --version | awk '{print $3}'
}

postgres_programs() {
    local folder
    for folder in /usr/lib/postgresql/15/bin $(pg_config --bindir 2>/dev/null); do
        if [ -x "$folder/postgres" ]; then
            echo "$folder"
            return
        fi
    done
    echo "error: PostgreSQL is missing. Install Debian's package postgresql-15" >&2
    return 1
}
