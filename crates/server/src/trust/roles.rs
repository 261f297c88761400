//! Authorization: which roles may make each call, in one table. Knows nothing of tokens.

use self::Role::{Admin, Anonymous, Developer, Operator, Viewer, Worker};

/// Role of a caller, which its token determines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Anonymous,
    /// A worker that authenticates as itself.
    Worker,
    /// The component that starts workers.
    Operator,
    /// A holder of the viewers' token, or a person of this role, who reads everything and changes nothing.
    Viewer,
    /// A person who gives agents work, and changes neither agents nor the control plane.
    Developer,
    /// A holder of the admin token, or a person of this role.
    Admin,
}

/// Header of responses to viewers: pages show no actions then.
pub(crate) const ROLE_HEADER: &str = "rota-role";

const ALL: &[Role] = &[Anonymous, Worker, Operator, Viewer, Developer, Admin];
/// Not even an admin: a worker's identity bounds what it may claim.
const WORKERS: &[Role] = &[Worker];
/// Mark of a call by the operator of a cluster, which has to do with the tasks of clusters only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OperatorCall;
/// Mark of a call by a viewer, or by a person who is no admin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LimitedCall;

const OPERATORS: &[Role] = &[Operator, Admin];
const ADMINS: &[Role] = &[Admin];
const DEVELOPERS: &[Role] = &[Developer, Admin];
const OPERATORS_AND_DEVELOPERS: &[Role] = &[Operator, Developer, Admin];
const VIEWERS: &[Role] = &[Viewer, Developer, Admin];
const OPERATORS_AND_VIEWERS: &[Role] = &[Operator, Viewer, Developer, Admin];
/// A worker stays in its namespace; who knows the digest of a part knows its content, or was given it.
const WORKERS_AND_DEVELOPERS: &[Role] = &[Worker, Developer, Admin];

/// Roles by path, or by prefix of paths if the entry ends with a slash; the first entry that fits counts. Other calls are for the
/// admin.
const RULES: &[(&str, &[Role])] = &[
    // Probes have no token.
    ("/grpc.health.v1.Health/", ALL),
    // A browser has no token before it has exchanged its code for one.
    ("/rota.v1.AdminService/RedeemSignInCode", ALL),
    // Callers without a token learn where to get one.
    ("/rota.v1.AdminService/GetSignInOptions", ALL),
    ("/rota.worker.v1.WorkerService/Session", WORKERS),
    ("/rota.worker.v1.WorkerService/FetchPreviousResult", WORKERS),
    ("/rota.worker.v1.WorkerService/FetchStepResults", WORKERS),
    ("/rota.worker.v1.WorkerService/KeepArtifacts", WORKERS),
    ("/rota.worker.v1.WorkerService/FetchCheckpoint", WORKERS),
    ("/rota.v1.ArtifactService/FindMissingParts", WORKERS_AND_DEVELOPERS),
    ("/rota.v1.ArtifactService/UploadParts", WORKERS_AND_DEVELOPERS),
    ("/rota.v1.ArtifactService/DownloadParts", WORKERS_AND_DEVELOPERS),
    ("/rota.v1.ArtifactService/FetchArtifacts", VIEWERS),
    ("/rota.v1.ArtifactService/DownloadArtifact", VIEWERS),
    // The operator neither answers the questions of agents nor reads their logs.
    ("/rota.v1.TaskService/CreateTask", OPERATORS_AND_DEVELOPERS),
    ("/rota.v1.TaskService/GetTask", OPERATORS_AND_VIEWERS),
    ("/rota.v1.TaskService/ListTasks", OPERATORS_AND_VIEWERS),
    ("/rota.v1.TaskService/UpdateTask", OPERATORS_AND_DEVELOPERS),
    ("/rota.v1.TaskService/CancelTask", OPERATORS_AND_DEVELOPERS),
    ("/rota.v1.TaskService/ExplainTask", OPERATORS_AND_VIEWERS),
    ("/rota.v1.TaskService/WatchTasks", OPERATORS_AND_VIEWERS),
    ("/rota.v1.TaskService/WatchTask", VIEWERS),
    ("/rota.v1.TaskService/SearchTasks", VIEWERS),
    ("/rota.v1.TaskService/ExportTasks", VIEWERS),
    ("/rota.v1.TaskService/SearchTaskLog", VIEWERS),
    ("/rota.v1.TaskService/DownloadTaskLog", VIEWERS),
    ("/rota.v1.TaskService/ListThreads", VIEWERS),
    // The operator sees agents of its cluster only, but for the numbers of the demand.
    ("/rota.v1.AgentService/ListAgents", OPERATORS_AND_VIEWERS),
    ("/rota.v1.AgentService/UpdateAgent", OPERATORS),
    ("/rota.v1.AgentService/DeleteAgent", OPERATORS),
    ("/rota.v1.AgentService/DrainAgent", OPERATORS),
    ("/rota.v1.AgentService/WatchDemand", OPERATORS_AND_VIEWERS),
    ("/rota.v1.AgentService/ReportWorkerDeath", OPERATORS),
    ("/rota.v1.AgentService/AnnounceWorkers", OPERATORS),
    ("/rota.v1.AgentService/ReportAgent", OPERATORS),
    ("/rota.v1.AgentService/GetAgent", VIEWERS),
    ("/rota.v1.AgentService/WatchAgents", VIEWERS),
    ("/rota.v1.AgentService/ListWorkers", VIEWERS),
    ("/rota.v1.AgentService/ListCapabilities", VIEWERS),
    ("/rota.v1.WorkflowService/CreateWorkflow", OPERATORS_AND_DEVELOPERS),
    ("/rota.v1.WorkflowService/GetWorkflow", OPERATORS_AND_VIEWERS),
    ("/rota.v1.WorkflowService/ListWorkflows", OPERATORS_AND_VIEWERS),
    ("/rota.v1.WorkflowService/WatchWorkflow", OPERATORS_AND_VIEWERS),
    ("/rota.v1.WorkflowService/ExplainWorkflow", OPERATORS_AND_VIEWERS),
    ("/rota.v1.WorkflowService/ListWorkflowSteps", VIEWERS),
    ("/rota.v1.WorkflowService/ListApprovals", VIEWERS),
    ("/rota.v1.WorkflowService/WatchWorkflows", VIEWERS),
    ("/rota.v1.WorkflowService/CancelWorkflow", OPERATORS_AND_DEVELOPERS),
    ("/rota.v1.WorkflowService/PauseWorkflow", OPERATORS_AND_DEVELOPERS),
    ("/rota.v1.WorkflowService/ResumeWorkflow", OPERATORS_AND_DEVELOPERS),
    ("/rota.v1.TemplateService/ListWorkflowTemplates", OPERATORS_AND_VIEWERS),
    ("/rota.v1.TemplateService/GetWorkflowTemplate", VIEWERS),
    ("/rota.v1.TemplateService/UpdateWorkflowTemplate", OPERATORS_AND_DEVELOPERS),
    ("/rota.v1.TemplateService/DeleteWorkflowTemplate", OPERATORS_AND_DEVELOPERS),
    ("/rota.v1.TaskKindService/GetTaskKind", VIEWERS),
    ("/rota.v1.TaskKindService/ListTaskKinds", VIEWERS),
    ("/rota.v1.ScheduleService/GetSchedule", VIEWERS),
    ("/rota.v1.ScheduleService/ListSchedules", OPERATORS_AND_VIEWERS),
    ("/rota.v1.ScheduleService/UpdateSchedule", OPERATORS_AND_DEVELOPERS),
    ("/rota.v1.ScheduleService/DeleteSchedule", OPERATORS_AND_DEVELOPERS),
    ("/rota.v1.ScheduleService/PreviewSchedule", VIEWERS),
    ("/rota.v1.AdminService/GetSystemStatus", OPERATORS_AND_VIEWERS),
    ("/rota.v1.AdminService/WatchSystemStatus", VIEWERS),
    ("/rota.v1.AdminService/GetDatabaseStatus", OPERATORS_AND_VIEWERS),
    ("/rota.v1.AdminService/ListBackgroundTasks", OPERATORS_AND_VIEWERS),
    ("/rota.v1.AdminService/GetLogFilter", VIEWERS),
    ("/rota.v1.AdminService/ListBudgets", VIEWERS),
    ("/rota.v1.AdminService/ListAlerts", VIEWERS),
    ("/rota.v1.AdminService/GetMetricsHistory", VIEWERS),
    ("/rota.v1.AdminService/GetSpending", VIEWERS),
    ("/rota.v1.TaskService/BatchCreateTasks", DEVELOPERS),
    ("/rota.v1.TaskService/RetryTask", DEVELOPERS),
    ("/rota.v1.TaskService/ChangeTasks", DEVELOPERS),
    ("/rota.v1.TaskService/AcknowledgeTask", DEVELOPERS),
    ("/rota.v1.TaskService/SendTaskInput", DEVELOPERS),
    ("/rota.v1.TaskService/AttachTask", DEVELOPERS),
    ("/rota.v1.WorkflowService/DecideStep", DEVELOPERS),
    ("/rota.v1.WorkflowService/ResolveCompensation", DEVELOPERS),
    ("/rota.v1.WorkflowService/SignalWorkflow", DEVELOPERS),
    ("/rota.v1.WorkflowService/AddWorkflowStep", DEVELOPERS),
    ("/rota.v1.WorkflowService/RerunWorkflow", DEVELOPERS),
    ("/rota.v1.WorkflowService/DeleteWorkflow", DEVELOPERS),
    ("/rota.v1.TemplateService/CreateWorkflowTemplate", DEVELOPERS),
    ("/rota.v1.TaskKindService/PutTaskKind", DEVELOPERS),
    ("/rota.v1.TaskKindService/DeleteTaskKind", DEVELOPERS),
    ("/rota.v1.ScheduleService/CreateSchedule", DEVELOPERS),
    ("/rota.v1.ScheduleService/RunSchedule", DEVELOPERS),
    // The code is for the caller's own token.
    ("/rota.v1.AdminService/IssueSignInCode", VIEWERS),
    // So is the session: it has the role of the token.
    ("/rota.v1.AdminService/CreateBrowserSession", VIEWERS),
    ("/rota.v1.AdminService/GetCurrentBrowserSession", VIEWERS),
    ("/rota.v1.AdminService/SignOut", VIEWERS),
    ("/rota.v1.AdminService/GetWebPush", VIEWERS),
    ("/rota.v1.AdminService/SubscribeWebPush", VIEWERS),
    ("/rota.v1.AdminService/UnsubscribeWebPush", VIEWERS),
];

/// Returns the roles that may make a call.
pub fn allowed_roles(path: &str) -> &'static [Role] {
    let fits = |entry: &str| if entry.ends_with('/') { path.starts_with(entry) } else { path == entry };
    RULES.iter().find(|(entry, _)| fits(entry)).map_or(ADMINS, |(_, roles)| *roles)
}

/// Whether a call requires no token: nothing large is received for it.
pub(crate) fn is_anonymous(path: &str) -> bool {
    allowed_roles(path).contains(&Anonymous)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// Every call of every service. A new one is added here with its decision.
    const CALLS: &[(&str, &[&str], &[Role])] = &[
        (
            "rota.v1.TaskService",
            &["GetTask", "ListTasks", "ExplainTask", "WatchTasks"],
            OPERATORS_AND_VIEWERS,
        ),
        ("rota.v1.TaskService", &["CreateTask", "UpdateTask", "CancelTask"], OPERATORS_AND_DEVELOPERS),
        (
            "rota.v1.TaskService",
            &["WatchTask", "SearchTasks", "ExportTasks", "SearchTaskLog", "DownloadTaskLog", "ListThreads"],
            VIEWERS,
        ),
        (
            "rota.v1.TaskService",
            &[
                "BatchCreateTasks",
                "RetryTask",
                "AcknowledgeTask",
                "ChangeTasks",
                "SendTaskInput",
                "AttachTask",
            ],
            DEVELOPERS,
        ),
        ("rota.v1.AgentService", &["ListAgents", "WatchDemand"], OPERATORS_AND_VIEWERS),
        ("rota.v1.AgentService", &["GetAgent", "WatchAgents", "ListWorkers", "ListCapabilities"], VIEWERS),
        ("rota.v1.AgentService", &["CreateAgent"], ADMINS),
        (
            "rota.v1.AgentService",
            &[
                "UpdateAgent",
                "DeleteAgent",
                "DrainAgent",
                "ReportWorkerDeath",
                "AnnounceWorkers",
                "ReportAgent",
            ],
            OPERATORS,
        ),
        (
            "rota.v1.AdminService",
            &["GetSystemStatus", "GetDatabaseStatus", "ListBackgroundTasks"],
            OPERATORS_AND_VIEWERS,
        ),
        (
            "rota.v1.AdminService",
            &[
                "WatchSystemStatus",
                "GetLogFilter",
                "ListBudgets",
                "ListAlerts",
                "GetMetricsHistory",
                "GetSpending",
                "IssueSignInCode",
                "CreateBrowserSession",
                "GetCurrentBrowserSession",
                "SignOut",
                "GetWebPush",
                "SubscribeWebPush",
                "UnsubscribeWebPush",
            ],
            VIEWERS,
        ),
        (
            "rota.v1.AdminService",
            &[
                "SetLogFilter",
                "ResetBreaker",
                "SetNamespaceBudget",
                "CorrectSpending",
                "IssueWorkerToken",
                "ListWorkerTokens",
                "RevokeWorkerToken",
                "ListBrowserSessions",
                "RevokeBrowserSession",
                "Prune",
                "RotateKey",
                "RebuildSearchIndex",
                "Backup",
            ],
            ADMINS,
        ),
        (
            "rota.worker.v1.WorkerService",
            &["Session", "FetchPreviousResult", "FetchStepResults", "KeepArtifacts", "FetchCheckpoint"],
            WORKERS,
        ),
        ("rota.v1.ArtifactService", &["FetchArtifacts", "DownloadArtifact"], VIEWERS),
        (
            "rota.v1.WorkflowService",
            &["GetWorkflow", "ListWorkflows", "WatchWorkflow", "ExplainWorkflow"],
            OPERATORS_AND_VIEWERS,
        ),
        (
            "rota.v1.WorkflowService",
            &["CreateWorkflow", "CancelWorkflow", "PauseWorkflow", "ResumeWorkflow"],
            OPERATORS_AND_DEVELOPERS,
        ),
        ("rota.v1.WorkflowService", &["ListWorkflowSteps", "ListApprovals", "WatchWorkflows"], VIEWERS),
        (
            "rota.v1.WorkflowService",
            &[
                "DecideStep",
                "ResolveCompensation",
                "SignalWorkflow",
                "AddWorkflowStep",
                "RerunWorkflow",
                "DeleteWorkflow",
            ],
            DEVELOPERS,
        ),
        ("rota.v1.TemplateService", &["ListWorkflowTemplates"], OPERATORS_AND_VIEWERS),
        (
            "rota.v1.TemplateService",
            &["UpdateWorkflowTemplate", "DeleteWorkflowTemplate"],
            OPERATORS_AND_DEVELOPERS,
        ),
        ("rota.v1.TemplateService", &["GetWorkflowTemplate"], VIEWERS),
        ("rota.v1.TemplateService", &["CreateWorkflowTemplate"], DEVELOPERS),
        ("rota.v1.TaskKindService", &["GetTaskKind", "ListTaskKinds"], VIEWERS),
        ("rota.v1.TaskKindService", &["PutTaskKind", "DeleteTaskKind"], DEVELOPERS),
        ("rota.v1.ScheduleService", &["GetSchedule", "PreviewSchedule"], VIEWERS),
        ("rota.v1.ScheduleService", &["ListSchedules"], OPERATORS_AND_VIEWERS),
        ("rota.v1.ScheduleService", &["UpdateSchedule", "DeleteSchedule"], OPERATORS_AND_DEVELOPERS),
        ("rota.v1.ScheduleService", &["CreateSchedule", "RunSchedule"], DEVELOPERS),
        (
            "rota.v1.ArtifactService",
            &["FindMissingParts", "UploadParts", "DownloadParts"],
            WORKERS_AND_DEVELOPERS,
        ),
        ("rota.v1.AdminService", &["RedeemSignInCode", "GetSignInOptions"], ALL),
        ("grpc.health.v1.Health", &["Check", "Watch"], ALL),
    ];

    #[test]
    fn every_call_has_its_roles() {
        let mut calls = 0;
        for set in [rota_proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET] {
            for file in prost_types::FileDescriptorSet::decode(set).unwrap().file {
                for service in &file.service {
                    let name = format!("{}.{}", file.package(), service.name());
                    for method in &service.method {
                        let roles = CALLS.iter().find(|(service, methods, _)| {
                            *service == name && methods.contains(&method.name())
                        });
                        let (.., roles) =
                            roles.unwrap_or_else(|| panic!("{name}/{} has no entry", method.name()));
                        for role in ALL {
                            let allowed = allowed_roles(&format!("/{name}/{}", method.name())).contains(role);
                            assert_eq!(allowed, roles.contains(role), "{role:?} {name}/{}", method.name());
                        }
                        calls += 1;
                    }
                }
            }
        }
        assert_eq!(calls, CALLS.iter().map(|(_, methods, _)| methods.len()).sum::<usize>());
    }

    /// An answer may change what an agent allows. Those of developers may not: their handler refuses them.
    #[test]
    fn who_answers_may_change_agents() {
        let of = |call: &str| allowed_roles(&format!("/rota.v1.{call}"));
        for call in ["TaskService/SendTaskInput", "TaskService/AttachTask"] {
            let all = of(call).iter().filter(|role| **role != Developer);
            assert!(all.into_iter().all(|role| of("AgentService/UpdateAgent").contains(role)), "{call}");
        }
    }

    #[test]
    fn unlisted_calls_require_admin() {
        for path in [
            "/rota.worker.v1.WorkerService/SessionOfAnother",
            "/rota.v1.TaskService",
            "/rota.v1.TaskService/",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "//rota.worker.v1.WorkerService/Session",
            "/",
        ] {
            assert_eq!(allowed_roles(path), ADMINS, "{path}");
        }
    }
}
