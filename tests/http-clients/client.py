"""Creates a task, waits for it and reads its result, with the client that openapi-python-client makes from the document."""

import os
import sys

from rota_client.api.task import create_task, get_task, watch_task
from rota_client.client import AuthenticatedClient
from rota_client.models.google_rpc_status import GoogleRpcStatus
from rota_client.models.task import Task
from rota_client.models.task_state import TaskState

client = AuthenticatedClient(
    base_url=os.environ["ROTA_ENDPOINT"],
    token=os.environ["ROTA_TOKEN"],
    timeout=120,
    raise_on_unexpected_status=True,
)
spec = {"target": {"agent": "shell"}, "runtime": {"command": {"shell": "echo hello from Python"}}}
created = create_task.sync("default", client=client, body=Task.from_dict({"spec": spec}), idempotency_key_header="python")
assert isinstance(created, Task), created
# The same key creates no second task.
again = create_task.sync("default", client=client, body=Task.from_dict({"spec": spec}), idempotency_key_header="python")
assert isinstance(again, Task) and again.name == created.name, again

name = created.name.split("/")[-1]
# A stream ends with its task. Its lines are no single document, so that they are read by hand.
arguments = watch_task._get_kwargs("default", name)
with client.get_httpx_client().stream(**arguments, headers={"Accept": "application/x-ndjson"}) as stream:
    entries = [line for line in stream.iter_lines() if line]
assert entries, "the log is empty"

task = get_task.sync("default", name, client=client)
assert isinstance(task, Task), task
assert task.status.state == TaskState.TASK_STATE_SUCCEEDED, task.status
assert "hello from Python" in task.status.result.text, task.status.result

# Errors have the form of the document, too.
missing = get_task.sync("default", "no-such-task", client=client)
assert isinstance(missing, GoogleRpcStatus) and missing.code == 5, missing
print("Python: created, watched and read", created.name, file=sys.stderr)
