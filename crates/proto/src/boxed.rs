//! Fields whose messages are on the heap, for the generator and for estimates of the memory of messages. Knows no message.

pub(crate) const FIELDS: &[&str] = &[
    // Larger than what is sent most: unboxed, each message of a session would take the size of the largest.
    ".rota.worker.v1.SessionResponse.kind.assign",
    ".rota.worker.v1.SessionResponse.kind.welcome",
    ".rota.worker.v1.SessionResponse.kind.input",
    ".rota.worker.v1.SessionResponse.kind.cancel",
    ".rota.worker.v1.SessionRequest.kind.hello",
    ".rota.worker.v1.SessionRequest.kind.result",
    // Rare, and a failure is the error of many calls.
    ".rota.v1.Failure.limit",
    ".rota.v1.Failure.retry_after",
    // A step with a task is many times as large as one that waits.
    ".rota.v1.WorkflowStep.kind.task",
    ".rota.v1.WorkflowStep.compensate",
    ".rota.v1.WorkflowStep.kind.workflow",
    ".rota.v1.WorkflowStep.kind.merge",
    ".rota.v1.OnConflict.kind.task",
    // Templates are what schedules name as a rule.
    ".rota.v1.ScheduledWorkflow.spec",
    // Large or rare, and tasks are moved around a lot.
    ".rota.v1.Task.spec",
    ".rota.v1.Task.status",
    ".rota.v1.Task.step",
    ".rota.v1.TaskSpec.ttl_after_finished",
    ".rota.v1.TaskSpec.result_schema",
];
