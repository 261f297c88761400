"""A third-party worker that counts the words of prompts. worker.py AGENT WORKER; ROTA_ENDPOINT (host:port) and ROTA_TOKEN."""
import os, queue, signal, sys, threading, time, uuid, grpc
from rota.worker.v1 import worker_pb2, worker_pb2_grpc
def work(attempt):  # the work itself: replace it with your own
    words = attempt.spec.prompt.split()
    for number, word in enumerate(words, 1):
        if attempt.stop.wait(0.05): return {"cancelled": {"by": "interrupt"}}
        attempt.report(progress={"fraction": number / len(words), "step": word})
    return {"succeeded": {"text": f"{len(words)} words"}}

instance, lock, leaving, pace = str(uuid.uuid4()), threading.Lock(), threading.Event(), 1.0
held, out = {}, queue.SimpleQueue()  # attempts until their result is durable; outgoing messages

class Attempt:
    def __init__(self, assign):
        self.id, self.spec = {"task_id": assign.task_id, "fence": assign.fence}, assign.spec
        self.sent, self.stop = [], threading.Event()  # kept for retransmission in the next session
        out.put({"accept": self.id})
        threading.Thread(target=self.run, daemon=True).start()
    def run(self):
        try: outcome = work(self)
        except Exception as error: outcome = {"failed": {"class": "FAILURE_CLASS_AGENT", "message": repr(error)}}
        self.send({"result": self.id | {"last_attempt_seq": len(self.sent)} | outcome})
    def report(self, **event):  # events are numbered from 1
        self.send({"report": self.id | {"first_attempt_seq": len(self.sent) + 1, "events": [event]}})
    def send(self, message):
        with lock: self.sent.append(message), out.put(message)

def requests(mine):  # outgoing messages or heartbeats; ends after a drain, with the last attempt
    while held or not leaving.is_set() or not mine.empty():
        try: yield worker_pb2.SessionRequest(**mine.get(timeout=pace))
        except queue.Empty: yield worker_pb2.SessionRequest(heartbeat={})

def forget(one):  # the result is durable, or the attempt was superseded
    if attempt := held.pop((one.task_id, one.fence), None): attempt.stop.set()

channel = grpc.insecure_channel(os.environ["ROTA_ENDPOINT"], [("grpc.max_reconnect_backoff_ms", 2000)])
signal.signal(signal.SIGTERM, lambda *_: (leaving.set(), out.put({"draining": {"reason": "SIGTERM"}})))
while held or not leaving.is_set():  # version 1: never assigned a task with results that it would have to fetch
    (mine := queue.SimpleQueue()).put({"hello": {"protocol_version": 1, "namespace": "default", "agent": sys.argv[1],
        "worker": sys.argv[2], "instance": instance, "slots": 2, "running": [attempt.id for attempt in held.values()]}})
    try:
        call = worker_pb2_grpc.WorkerServiceStub(channel).Session
        for answer in call(requests(mine), metadata=[("authorization", "Bearer " + os.environ["ROTA_TOKEN"])]):
            message = getattr(answer, kind := answer.WhichOneof("kind"))
            with lock:
                if kind == "welcome":
                    out, pace = mine, message.heartbeat_interval.ToMilliseconds() / 1000
                    for one in message.resume:
                        if one.abandon: forget(one)
                        else: [out.put(sent) for sent in held[one.task_id, one.fence].sent[one.continue_after:]]
                elif kind == "assign" and (key := (message.task_id, message.fence)) not in held:  # a repeated one is ignored
                    if leaving.is_set(): out.put({"reject": {"task_id": key[0], "fence": key[1], "reason": "draining"}})
                    else: held[key] = Attempt(message)
                elif kind == "cancel" and (one := held.get((message.task_id, message.fence))): one.stop.set()
                elif kind == "result_ack" or kind == "report_ack" and message.stale: forget(message)
                elif kind == "drain": leaving.set()
    except grpc.RpcError as error:
        if error.code().name in "INVALID_ARGUMENT UNAUTHENTICATED FAILED_PRECONDITION": sys.exit(error.details())
        time.sleep(1)
