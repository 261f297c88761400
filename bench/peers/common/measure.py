#!/usr/bin/env python3
"""Turns the samples of one round into one line of results.

    measure.py fsync FOLDER                      latency of a durable write of 4 KiB on that disk, as JSON
    measure.py line NAME=VALUE... <samples       the line of a peer; each NAME=VALUE becomes a field of it
    measure.py rota NAME=VALUE... <report        the line of Rota, from the output of `rota bench dispatch -o json` or `workflow`

Samples are what a peer's program prints, one JSON object:

    idle_ns      times from the call that creates a task to the start of its handler, or with steps to the end of the last one,
                 one task at a time
    creation_ns  times of the calls that create a task, under load
    load         {tasks, creating_s, settled_s}: number of tasks under load, seconds until the last was created, and
                 until the completion of all of them was durable
    bulk         the same for tasks created in batches, with the size of a batch; null if the peer has no such call
    direct       the same for tasks that start in the process that creates them; only DBOS has that
"""

import json
import os
import sys
import time

WRITES = 200


def quantiles(samples):
    """p50 and p99 in milliseconds of nanoseconds."""
    ordered = sorted(samples)
    at = lambda share: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6, 3)
    return {"p50_ms": at(0.5), "p99_ms": at(0.99), "count": len(ordered)}


def fsync(folder):
    """Appends and syncs blocks, as `rota bench dispatch` does."""
    path = os.path.join(folder, "fsync")
    times = []
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for _ in range(WRITES):
        start = time.perf_counter_ns()
        os.write(file, b"\7" * 4096)
        os.fdatasync(file)
        times.append(time.perf_counter_ns() - start)
    os.close(file)
    os.remove(path)
    return quantiles(times)


def rates(load):
    """Tasks per second of {tasks, creating_s, settled_s}."""
    if not load:
        return None
    tasks = load["tasks"]
    return {"completed_per_s": round(tasks / load["settled_s"], 1), "created_per_s": round(tasks / load["creating_s"], 1),
            "tasks": tasks, **({"batch": load["batch"]} if "batch" in load else {})}


def of_peer(samples):
    """Values of a peer's samples."""
    load = rates(samples["load"])
    return {"completed_per_s": load["completed_per_s"], "created_per_s": load["created_per_s"],
            "creation": quantiles(samples["creation_ns"]), "dispatch_idle": quantiles(samples["idle_ns"]),
            "bulk": rates(samples.get("bulk")), "direct": rates(samples.get("direct"))}


def of_rota(report):
    """The same values of a round of Rota."""
    if not report["optimized"]:
        sys.exit("error: this rota was built without optimizations")
    one = report["rounds"][0]
    if report["benchmark"] == "workflow":
        one = {**one["short"], "fsync": one["fsync"], "dispatch_idle": one["short"]["last_step_idle"]}
    # Earlier builds do not measure them.
    batches = one.get("batches")
    bulk = batches and {"completed_per_s": round(batches["completed_per_second"], 1),
                        "created_per_s": round(batches["created_per_second"], 1),
                        "tasks": batches["tasks"], "batch": batches["batch"]}
    return {"fsync": one["fsync"], "completed_per_s": round(one["completed_per_second"], 1),
            "created_per_s": round(one["created_per_second"], 1), "creation": one["creation"],
            "dispatch_idle": one["dispatch_idle"], "bulk": bulk, "direct": None}


def main():
    command, *arguments = sys.argv[1:] or [""]
    if command == "fsync":
        print(json.dumps(fsync(arguments[0])))
        return
    if command not in ("line", "rota"):
        sys.exit(__doc__)
    fields = dict(argument.split("=", 1) for argument in arguments)
    if "fsync" in fields:
        fields["fsync"] = json.loads(fields["fsync"])
    # The program's logs, if any, come before its samples.
    text = sys.stdin.read().strip()
    values = of_peer(json.loads(text.splitlines()[-1])) if command == "line" else of_rota(json.loads(text))
    load_average = os.getloadavg()[0]
    print(json.dumps({**fields, "processors": os.cpu_count(), "load_average": round(load_average, 2), **values}))


main()
