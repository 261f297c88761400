"""Agent that does, in the repository, what the shipped templates ask a coder for, by searching and replacing where a model would think.

Reads the prompt from standard input.
Work is given to it as lines `write FILE: TEXT` and `replace OLD by NEW`.
"""

import json
import os
import re
import subprocess
import sys

prompt = sys.stdin.read()


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True)


def git(*argv):
    ran = run("git", *argv)
    if ran.returncode != 0:
        sys.exit(f"git {argv}: {ran.stderr}")
    return ran.stdout


def commit(message):
    git("add", "--all")
    git("commit", "--quiet", "--message", message)


def returns(**data):
    with open(os.path.join(os.environ["ROTA_OUTPUT"], "result.json"), "w") as file:
        json.dump({"data": data, "summary": f"did {os.environ['ROTA_TASK_ID']}"}, file)


def added(since):
    lines = git("diff", *since).splitlines()
    return [line[1:].strip() for line in lines if line.startswith("+") and not line.startswith("+++")]


def review_of_deployment():
    since = re.search(r"git diff (\S+ HEAD)`", prompt).group(1).split()
    reasons = [line for line in added(since) if "XXX" in line]
    returns(approved=not reasons, reasons=reasons)


def review():
    since = [re.search(r"git diff (\S+\.\.\.HEAD)`", prompt).group(1)]
    perspective = prompt.rstrip().splitlines()[-1]
    forbidden = re.search(r"forbids (\S+)", perspective)
    word = forbidden.group(1) if forbidden else "XXX"
    findings = [f"{word}: {line}" for line in added(since) if word in line]
    returns(approve=not findings, findings=findings)


def decide():
    reviews = json.loads(next(line for line in prompt.splitlines() if line.startswith("[")))
    findings = [finding for review in reviews for finding in review["findings"]]
    verdict = "reject" if any(not review["approve"] for review in reviews) else "approve"
    returns(verdict=verdict, reasons=findings or [f"{len(reviews)} reviews found nothing"])


def design():
    parts = {"backend": "write api: export", "frontend": "write page: button"}
    parts.update(re.findall(r"^(backend|frontend): (.*)$", prompt, re.MULTILINE))
    returns(title="A feature; $(touch /tmp/never)", summary="It does `this`.", **parts)


def merge():
    if "Give up" in prompt:
        return
    for found in os.environ["COMMITS"].split():
        if run("git", "merge", "--quiet", "--no-edit", found).returncode == 0:
            continue
        for name in git("diff", "--name-only", "--diff-filter=U").split():
            with open(name) as file:
                kept = [line for line in file if not re.match(r"[<=>]{7}", line)]
            with open(name, "w") as file:
                file.writelines(kept)
        commit(f"merge {found}")


def write():
    for name, text in re.findall(r"^write (\S+): (.*)$", prompt, re.MULTILINE):
        with open(name, "w") as file:
            file.write(text + "\n")
        commit(f"write {name}")


def analyse():
    old, new = re.search(r"[Rr]eplace (\S+) by (\S+)", prompt).groups()
    note = re.search(r"note it in \S+", prompt)
    work = f"replace {old} by {new}" + (f" and {note.group()}" if note else "")
    names = git("grep", "--name-only", "--fixed-strings", old).split()
    returns(modules=[{"path": name, "work": work} for name in names])


def refactor():
    name = re.match(r"Refactor (\S+) ", prompt).group(1)
    old, new = re.search(r"replace (\S+) by (\S+)", prompt).groups()
    with open(name) as file:
        text = file.read()
    with open(name, "w") as file:
        file.write(text.replace(old, new))
    for notes in re.findall(r"note it in (\S+)", prompt):
        with open(notes, "a") as file:
            file.write(f"{name}\n")
    commit(f"refactor {name}")


def fix():
    """Makes the first thing that the check misses, one a round."""
    check = ["sh", "-c", re.search(r"pass in this repository: (.*)", prompt).group(1)]
    before = re.search(r"round before: (.*)", prompt)
    report = f"{before.group(1)}, " if before else ""
    missing = re.search(r"missing (\S+)", run(*check).stdout)
    if missing:
        open(missing.group(1), "w").close()
        commit(f"make {missing.group(1)}")
        report += missing.group(1)
    # Claims too much where the prompt asks for that.
    passes = run(*check).returncode == 0 or "Claim success" in prompt
    returns(passes=passes, report=report)


JOBS = {
    "Review the version of this": review_of_deployment,
    "Review the version that": review,
    "Decide whether": decide,
    "Design a feature": design,
    "Build the ": write,
    "Document a feature": write,
    "Merge the": merge,
    "Find the modules": analyse,
    "Refactor ": refactor,
    "Make this command pass": fix,
}
next(job for begin, job in JOBS.items() if prompt.startswith(begin))()
