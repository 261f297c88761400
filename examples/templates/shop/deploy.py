"""Deploys this version of the shop, or takes it back: deploy.py ACTION PRODUCTION MACHINE SHOP

Actions have the names of parameters of the template deploy-app, which runs them in a clone of the version. PRODUCTION is the directory of the machine; MACHINE
and SHOP are its addresses. An action that has already had its effect succeeds.
"""

import json
import os
import pathlib
import sqlite3
import sys
import tarfile
import urllib.request

TIMEOUT_SECONDS = 120

action, production, machine, shop = sys.argv[1:]
production = pathlib.Path(production)
current, before = production / "current", production / "before"
release = f"releases/{os.environ['VERSION']}"
adds = json.loads(pathlib.Path("version.json").read_text())["adds"]


def fetch(url, data=None):
    return urllib.request.urlopen(url, data, timeout=TIMEOUT_SECONDS).read().decode()


def point(target):
    """Makes a release the current one, and starts its process."""
    current.unlink(missing_ok=True)
    if target:
        current.symlink_to(target)
    fetch(machine, b"")


def columns(database):
    return [name for _, name, *_ in database.execute("PRAGMA table_info(customers)")]


def build():
    artifact = production / f"{os.environ['VERSION']}.tar"
    with tarfile.open(artifact, "w") as tar:
        tar.add("app.py")
        tar.add("version.json")
    result = {"data": {"artifact": str(artifact)}}
    pathlib.Path(os.environ["ROTA_OUTPUT"], "result.json").write_text(json.dumps(result))


def migrate(wanted=True):
    with sqlite3.connect(production / "shop.db") as database:
        if adds and (adds in columns(database)) != wanted:
            change = f"ADD COLUMN {adds} TEXT DEFAULT 'none'" if wanted else f"DROP COLUMN {adds}"
            database.execute(f"ALTER TABLE customers {change}")


def start():
    with tarfile.open(os.environ["ARTIFACT"]) as tar:
        tar.extractall(production / release, filter="data")
    now = os.readlink(current) if current.is_symlink() else ""
    if now != release:
        before.write_text(now)
    point(release)


ACTIONS = {
    "build": build,
    "migrate": migrate,
    "undoMigrate": lambda: migrate(wanted=False),
    "release": start,
    "undoRelease": lambda: point(before.read_text()),
    "smoke": lambda: print(fetch(shop)),
}
ACTIONS[action]()
with open(production / "history", "a") as history:
    history.write(f"{action}\n")
