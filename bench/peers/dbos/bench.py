"""The load for DBOS: clients that enqueue workflows, without steps or with some, and a process that runs them.

    bench.py           clients in threads of this process; starts the next two, and prints the samples for measure.py
    bench.py worker    a DBOS application that runs the queue; reports on standard output
    bench.py direct    workflows that start in the process that creates them, without a queue
"""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy
from dbos import DBOS, DBOSClient

URL = os.environ["DATABASE_URL"]
QUEUE = "bench"
# The default is 1 s, which would be the latency.
POLLING_INTERVAL = 0.01
CLIENTS = int(os.environ["BENCH_CLIENTS"])
CONNECTIONS = int(os.environ["BENCH_CONNECTIONS"])
STEPS = int(os.environ["BENCH_STEPS"])


@DBOS.step()
def step(index: int) -> int:
    """A step, whose result is durable before the next one starts."""
    return index


@DBOS.workflow(name="handle")
def handle(timed: bool) -> None:
    """A task; one that is timed reports when its steps have ended."""
    for index in range(STEPS):
        step(index)
    if timed:
        print(time.monotonic_ns(), flush=True)


def launch():
    """Starts DBOS with what its clients expect."""
    DBOS(config={"name": "bench", "system_database_url": URL, "sys_db_pool_size": CONNECTIONS, "log_level": "ERROR",
                 "application_version": "1"})
    DBOS.launch()


def worker():
    """Runs the queue until standard input ends."""
    launch()
    DBOS.register_queue(QUEUE, polling_interval_sec=POLLING_INTERVAL)
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)


def direct():
    """Measures start_workflow."""
    launch()
    begin_settled = settled_count()
    times, start = under_load(lambda: DBOS.start_workflow(handle, False))
    created = time.monotonic()
    wait_until_settled(begin_settled + len(times))
    print(json.dumps(rate(len(times), start, created)), flush=True)
    os._exit(0)


ENGINE = sqlalchemy.create_engine(URL.replace("postgresql://", "postgresql+psycopg://"))
TABLE = "workflow_status" if URL.startswith("sqlite") else "dbos.workflow_status"


def settled_count():
    """Number of workflows whose success is durable."""
    with ENGINE.connect() as connection:
        return connection.execute(sqlalchemy.text(f"select count(*) from {TABLE} where status = 'SUCCESS'")).scalar()


def wait_until_settled(count):
    """Waits for that number; asks rarely, because every question takes time from the others."""
    while settled_count() < count:
        time.sleep(0.02)


def under_load(create):
    """Times in nanoseconds of concurrent calls, and the time at which they began."""
    start = time.monotonic()
    end = start + float(os.environ["BENCH_SECONDS"])

    def client():
        times = []
        while time.monotonic() < end:
            at = time.monotonic_ns()
            create()
            times.append(time.monotonic_ns() - at)
        return times

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [one for done in [pool.submit(client) for _ in range(CLIENTS)] for one in done.result()], start


def rate(tasks, start, created):
    """Tasks under load and their seconds."""
    return {"tasks": tasks, "creating_s": created - start, "settled_s": time.monotonic() - start}


def main():
    process = subprocess.Popen([sys.executable, __file__, "worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    client = DBOSClient(system_database_url=URL, system_database_pool_size=CONNECTIONS)
    options = {"workflow_name": "handle", "queue_name": QUEUE}

    idle = []
    deadline = time.monotonic() + float(os.environ["BENCH_IDLE_SECONDS"])
    while len(idle) < int(os.environ["BENCH_IDLE_TASKS"]) and time.monotonic() < deadline:
        start = time.monotonic_ns()
        client.enqueue(options, True)
        idle.append(int(process.stdout.readline()) - start)
    wait_until_settled(len(idle))

    creation, start = under_load(lambda: client.enqueue(options, False))
    created = time.monotonic()
    wait_until_settled(len(idle) + len(creation))
    load = rate(len(creation), start, created)
    process.stdin.close()
    process.wait()
    alone = subprocess.run([sys.executable, __file__, "direct"], stdout=subprocess.PIPE, check=True, text=True)
    print(json.dumps({"idle_ns": idle, "creation_ns": creation, "load": load, "direct": json.loads(alone.stdout)}))
    os._exit(0)


{"worker": worker, "direct": direct}.get(" ".join(sys.argv[1:]), main)()
