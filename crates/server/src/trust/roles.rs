//! Authorization: which role each call requires, in one table. Knows nothing of tokens.

/// Role of a caller. Each role includes the rights of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Anonymous,
    /// A worker that authenticates as its pod.
    Worker,
    /// The component that starts workers.
    Operator,
    /// A holder of the admin token.
    Admin,
}

/// Required role by path, or by prefix of paths if the entry ends with a slash. Other calls require the admin.
const REQUIRED_ROLES: &[(&str, Role)] = &[
    // Probes have no token.
    ("/grpc.health.v1.Health/", Role::Anonymous),
    ("/rota.worker.v1.WorkerService/Session", Role::Worker),
    ("/rota.worker.v1.WorkerService/FetchPreviousResult", Role::Worker),
    ("/rota.v1.TaskService/", Role::Operator),
    ("/rota.v1.AgentService/", Role::Operator),
    ("/rota.v1.AdminService/GetSystemStatus", Role::Operator),
    ("/rota.v1.AdminService/ListBackgroundTasks", Role::Operator),
];

/// Returns the role that a call requires.
pub(crate) fn required_role(path: &str) -> Role {
    let fits = |entry: &str| if entry.ends_with('/') { path.starts_with(entry) } else { path == entry };
    REQUIRED_ROLES.iter().find(|(entry, _)| fits(entry)).map_or(Role::Admin, |(_, role)| *role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unlisted_calls_require_admin() {
        for (path, role) in [
            ("/grpc.health.v1.Health/Check", Role::Anonymous),
            ("/rota.worker.v1.WorkerService/Session", Role::Worker),
            ("/rota.worker.v1.WorkerService/SessionOfAnother", Role::Admin),
            ("/rota.v1.AgentService/AnnounceWorkers", Role::Operator),
            ("/rota.v1.TaskService", Role::Admin),
            ("/rota.v1.AdminService/GetSystemStatus", Role::Operator),
            ("/rota.v1.AdminService/SetLogFilter", Role::Admin),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Role::Admin),
            ("//rota.worker.v1.WorkerService/Session", Role::Admin),
            ("/", Role::Admin),
        ] {
            assert_eq!(required_role(path), role, "{path}");
        }
        assert!(Role::Worker < Role::Operator && Role::Operator < Role::Admin);
    }
}
