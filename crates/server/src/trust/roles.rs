//! Which role may make which call: the one table. Knows nothing of tokens.

/// What a caller is. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Whoever can reach the server.
    Anybody,
    /// A worker's pod.
    Worker,
    /// What starts workers.
    Operator,
    /// Whoever holds the token.
    Admin,
}

/// The least role for a call, or for all whose path begins so. What is not listed is for admins.
const LEAST: &[(&str, Role)] = &[
    // Probes have no token.
    ("/grpc.health.v1.Health/", Role::Anybody),
    ("/rota.worker.v1.WorkerService/Session", Role::Worker),
    ("/rota.v1.TaskService/", Role::Operator),
    ("/rota.v1.AgentService/", Role::Operator),
    ("/rota.v1.AdminService/GetSystemStatus", Role::Operator),
    ("/rota.v1.AdminService/ListLoops", Role::Operator),
];

/// The least role for a call.
pub(crate) fn least(path: &str) -> Role {
    let fits = |entry: &str| if entry.ends_with('/') { path.starts_with(entry) } else { path == entry };
    LEAST.iter().find(|(entry, _)| fits(entry)).map_or(Role::Admin, |(_, role)| *role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_thought_of_is_for_admins() {
        for (path, role) in [
            ("/grpc.health.v1.Health/Check", Role::Anybody),
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
            assert_eq!(least(path), role, "{path}");
        }
        assert!(Role::Worker < Role::Operator && Role::Operator < Role::Admin);
    }
}
