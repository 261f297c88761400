//! Resource names (AIP-122): `namespaces/{namespace}`, `…/tasks/{task}`, `…/agents/{agent}`, `…/workers/{worker}`. Owns
//! their shape; which characters the parts may contain is checked elsewhere.

/// Returns `namespaces/{namespace}`.
pub fn namespace(namespace: &str) -> String {
    format!("namespaces/{namespace}")
}

/// Returns `namespaces/{namespace}/tasks/{task}`; `task` is an id or an alias.
pub fn task(namespace: &str, task: impl std::fmt::Display) -> String {
    format!("namespaces/{namespace}/tasks/{task}")
}

/// Returns `namespaces/{namespace}/agents/{agent}`.
pub fn agent(namespace: &str, agent: impl std::fmt::Display) -> String {
    format!("namespaces/{namespace}/agents/{agent}")
}

/// Returns `namespaces/{namespace}/workers/{worker}`.
pub fn worker(namespace: &str, worker: impl std::fmt::Display) -> String {
    format!("namespaces/{namespace}/workers/{worker}")
}

/// Returns the name of a schedule: `namespaces/{namespace}/schedules/{schedule}`.
pub fn schedule(namespace: &str, schedule: impl std::fmt::Display) -> String {
    format!("namespaces/{namespace}/schedules/{schedule}")
}

/// Returns `namespaces/{namespace}/workflows/{workflow}`; `workflow` is an id or an alias.
pub fn workflow(namespace: &str, workflow: impl std::fmt::Display) -> String {
    format!("namespaces/{namespace}/workflows/{workflow}")
}

/// Returns the name of a template: `namespaces/{namespace}/templates/{template}`.
pub fn template(namespace: &str, template: impl std::fmt::Display) -> String {
    format!("namespaces/{namespace}/templates/{template}")
}

/// Returns the name of a kind of tasks: `namespaces/{namespace}/kinds/{kind}`.
pub fn kind(namespace: &str, kind: impl std::fmt::Display) -> String {
    format!("namespaces/{namespace}/kinds/{kind}")
}

/// Returns the name of a worker token's record: `namespaces/{namespace}/workerTokens/{id}`.
pub fn worker_token(namespace: &str, id: impl std::fmt::Display) -> String {
    format!("namespaces/{namespace}/workerTokens/{id}")
}

/// Returns the name of a browser's session: `browserSessions/{id}`.
pub fn browser_session(id: impl std::fmt::Display) -> String {
    format!("browserSessions/{id}")
}

/// Returns the branch that a task pushes to: `rota/{task}`.
pub fn branch(task_id: impl std::fmt::Display) -> String {
    format!("rota/{task_id}")
}

/// Whether a text is the full hash of a commit.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// Whether a name is that of the branch of a task, `rota/{task}`, and one that git takes.
pub fn is_branch(name: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.strip_prefix("rota/").is_some_and(|task| {
        (1..=128).contains(&task.len())
            && task.bytes().all(fine)
            && !task.starts_with('.')
            && !task.ends_with('.')
            && !task.ends_with(".lock")
            && !task.contains("..")
    })
}

/// Returns the namespace of `namespaces/{namespace}`, or `None` for a name of another shape.
pub fn parse_namespace(name: &str) -> Option<&str> {
    name.strip_prefix("namespaces/").filter(|rest| !rest.is_empty() && !rest.contains('/'))
}

/// Splits `namespaces/{namespace}/{collection}/{id}` into namespace and id, or returns `None` for a name of another shape
/// or collection.
pub fn parse<'a>(name: &'a str, collection: &str) -> Option<(&'a str, &'a str)> {
    let mut parts = name.strip_prefix("namespaces/")?.split('/');
    let (namespace, kind, id) = (parts.next()?, parts.next()?, parts.next()?);
    (parts.next().is_none() && kind == collection && !namespace.is_empty() && !id.is_empty())
        .then_some((namespace, id))
}

/// Returns the agent that an entry of `retry.escalate` names; `None` for a model.
pub fn escalated_agent(entry: &str) -> Option<&str> {
    entry.strip_prefix("agent/")
}

/// Returns the last part of a resource name, for display.
pub fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_of_tasks_are_known() {
        for name in ["rota/0191f1c2-aaaa-7bbb-8ccc-1234567890ab", "rota/t1", "rota/a.b_c"] {
            assert!(is_branch(name), "{name}");
        }
        assert!(is_branch(&branch("t1")));
        let long = format!("rota/{}", "a".repeat(129));
        for name in [
            "",
            "rota/",
            "main",
            "release/1",
            "rota/a/b",
            "rota/..",
            "rota/.a",
            "rota/a..b",
            "rota/a.lock",
            "rota/a b",
            "rota/a\n",
            "rota/a:b",
            "rota/ä",
            "refs/heads/rota/a",
            &long,
        ] {
            assert!(!is_branch(name), "{name:?}");
        }
    }

    #[test]
    fn commits_have_full_hashes() {
        for (digits, expected) in [(39, false), (40, true), (41, false), (64, true), (80, false)] {
            assert_eq!(is_commit(&"aB".repeat(40)[..digits]), expected, "{digits}");
        }
        assert!(!is_commit(&"g".repeat(40)) && !is_commit("") && !is_commit(&"ä".repeat(20)));
    }

    #[test]
    fn names_round_trip() {
        assert_eq!(parse(&task("a", "b"), "tasks"), Some(("a", "b")));
        assert_eq!(parse_namespace(&namespace("a")), Some("a"));
        assert_eq!(last(&agent("a", "b")), "b");
    }

    #[test]
    fn names_of_other_shapes_are_rejected() {
        for name in [
            "",
            "tasks/x",
            "namespaces/a/tasks/",
            "namespaces//tasks/x",
            "namespaces/a/agents/x",
            "namespaces/a/tasks/x/y",
        ] {
            assert_eq!(parse(name, "tasks"), None, "{name}");
        }
        assert_eq!(parse_namespace("namespaces/a/b"), None);
    }
}
