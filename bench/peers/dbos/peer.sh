# DBOS: Python library on PostgreSQL or SQLite. Sourced by ../run.
variants=(postgres sqlite)
steps=yes
export BENCH_CONNECTIONS=${BENCH_CONNECTIONS:-32}

install() { once_per requirements.txt install_python; }
version() { sed -n 's/^dbos==\([^ ]*\).*/\1/p' requirements.txt; }

install_python() {
    rm -rf venv
    python3 -m venv venv
    venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: --no-deps -r requirements.txt
}

describe() {
    postgres=no
    case $1 in
        postgres)
            title="DBOS on PostgreSQL" store=PostgreSQL durability="fsync=on, synchronous_commit=on"
            postgres=yes
            ;;
        sqlite)
            # What its SQLAlchemy engine leaves at the defaults of SQLite.
            title="DBOS on SQLite" store=SQLite durability="journal_mode=DELETE, synchronous=FULL (default)"
            ;;
    esac
}

drive() {
    if [ "$1" = sqlite ]; then export DATABASE_URL=sqlite:///$BENCH_FOLDER/dbos.sqlite; fi
    venv/bin/python bench.py
}
