//! Validation of `Task` manifests.

use std::time::Duration;

use rota_proto::limits::TITLE_BYTES;

use super::{Check, Violation};
use crate::{Dependency, Isolation, Task, TaskSpec};

impl Task {
    /// Returns all violations of the validation rules.
    pub fn validate(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut check = Check { path: String::new(), found: &mut found };
        check.metadata(&self.metadata, true);
        check.field("spec").task(&self.spec, self.metadata.name.as_deref());
        found
    }
}

impl Check<'_> {
    /// Checks what a task does. `name` is its own, which it must not depend on.
    pub(super) fn task(&mut self, spec: &TaskSpec, name: Option<&str>) {
        let check = self;
        check.length("title", spec.title.as_deref(), TITLE_BYTES);
        check.length("prompt", spec.prompt.as_deref(), 1024 * 1024);
        check.length("owner", spec.owner.as_deref(), TITLE_BYTES);
        check.at_most_one(&[
            ("agent", spec.agent.is_some()),
            ("agents", !spec.agents.is_empty()),
            ("worker", spec.worker.is_some()),
            ("capabilities", !spec.capabilities.is_empty()),
        ]);
        if let Some(agent) = &spec.agent {
            check.field("agent").dns_name(agent, 63);
        }
        check.field("agents").require(spec.agents.len() <= 32, "must have at most 32 entries");
        for (index, agent) in spec.agents.iter().enumerate() {
            let mut list = check.field("agents");
            list.item(index).dns_name(agent, 63);
            list.item(index).require(!spec.agents[..index].contains(agent), "is a duplicate");
        }
        if let Some(worker) = &spec.worker {
            check.field("worker").dns_name(worker, 63);
        }
        check.capabilities(&spec.capabilities, 32);
        check.dependencies(&spec.depends_on, name);
        check.limits("limits", spec.limits.as_ref());
        check.retry("retry", spec.retry.as_ref());
        check.environment("environment", &spec.environment);
        check.environment("secrets", &spec.secrets);
        for name in spec.secrets.keys().filter(|name| spec.environment.contains_key(*name)) {
            check.field("secrets").field(name).fail("is also set in environment");
        }
        check.workspace("workspace", spec.workspace.as_ref());
        if let Some(from) =
            spec.workspace.as_ref().and_then(|workspace| workspace.git.as_ref()?.ref_from.as_ref())
        {
            check.field("workspace").field("git").field("refFrom").require(
                spec.depends_on.iter().any(|dependency| dependency.task == *from),
                "must be a task of dependsOn",
            );
        }
        check.commands("setup", &spec.setup);
        check.done_when("doneWhen", spec.done_when.as_ref());
        check.runtime("runtime", spec.runtime.as_ref(), false);
        if let Some(names) = &spec.secret_names {
            let mut list = check.field("secretNames");
            list.require(names.len() <= 32, "must have at most 32 entries");
            for (index, name) in names.iter().enumerate() {
                list.item(index).variable(name);
                list.item(index).require(!names[..index].contains(name), "is a duplicate");
            }
        }
        check.duration(
            "ttlAfterFinished",
            spec.ttl_after_finished,
            Duration::ZERO,
            Duration::from_hours(365 * 24),
        );
        let own_pod = spec.isolation == Some(Isolation::Pod);
        if own_pod && (spec.worker.is_some() || !spec.agents.is_empty() || !spec.capabilities.is_empty()) {
            check.field("isolation").fail("Pod requires an agent, not several, a worker or capabilities");
        }
        if let Some(overrides) = &spec.pod_overrides {
            check.field("podOverrides").require(own_pod, "requires isolation Pod");
            check.field("podOverrides").overrides(overrides);
        }
        if let Some(source) = &spec.continue_from {
            check.field("continueFrom").dns_name(source, 63);
        }
        if let Some(thread) = &spec.thread {
            check.field("thread").dns_name(thread, 63);
            check.field("thread").require(spec.continue_from.is_none(), "excludes continueFrom");
        }
        check.field("fork").require(!spec.fork || spec.continue_from.is_some(), "requires continueFrom");
        if let Some(parent) = &spec.parent_task {
            check.field("parentTask").task_id(parent);
        }
    }

    fn dependencies(&mut self, all: &[Dependency], name: Option<&str>) {
        let mut list = self.field("dependsOn");
        list.require(all.len() <= 256, "must have at most 256 entries");
        for (index, dependency) in all.iter().enumerate() {
            let mut item = list.item(index);
            item.field("task").dns_name(&dependency.task, 63);
            if name == Some(dependency.task.as_str()) {
                item.field("task").fail("must not be the task itself");
            }
            if all[..index].iter().any(|before| before.task == dependency.task) {
                item.field("task").fail(format!("duplicate {:?}", dependency.task));
            }
        }
    }
}
