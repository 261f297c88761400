//! What a task may set of the runtime `claude`. The trust in a repository is not among it.

use rota_proto::v1::{self, runtime::Kind};

use super::{Forbidden, forbid_unless_all};

/// Trust in a repository, and arguments of the CLI, are matters of the agent's owner whatever tasks may set: tasks are written by
/// more people, and by agents.
pub(super) fn agent_only(agent: Option<&Kind>, task: &v1::ClaudeRuntime) -> Result<(), Forbidden> {
    let nothing = v1::ClaudeRuntime::default();
    let agent = if let Some(Kind::Claude(agent)) = agent { agent } else { &nothing };
    let field = match task.changes_of_agent_only(agent) {
        None => return Ok(()),
        Some("setting_sources") => "runtime.claude.setting_sources",
        Some("project_hooks") => "runtime.claude.project_hooks",
        Some("project_mcp_servers") => "runtime.claude.project_mcp_servers",
        Some(_) => "runtime.claude.extra_args",
    };
    Err(Forbidden { field, needed: None })
}

/// Checks what gives a task other powers than its agent has.
pub(super) fn check(agent: &v1::ClaudeRuntime, task: &v1::ClaudeRuntime) -> Result<(), Forbidden> {
    let v1::ClaudeRuntime {
        model,
        fallback_model,
        tools,
        allowed_tools,
        disallowed_tools,
        permission_mode,
        system_prompt,
        append_system_prompt,
        mcp_servers,
        json_schema,
        permission_policy,
        program,
        // Refused before.
        setting_sources: _,
        project_hooks: _,
        project_mcp_servers: _,
        extra_args: _,
        settings,
        agents,
        add_dirs,
        effort,
        betas,
        plugin_dirs,
        // More care than the agent asks for.
        fail_on_denied_tools: _,
    } = task;
    let replaced = |own: &str, base: &str| !own.is_empty() && !base.is_empty() && own != base;
    // The model is a matter of cost, which limits bound.
    forbid_unless_all("runtime.claude.model", replaced(model, &agent.model))?;
    let fallback = replaced(fallback_model, &agent.fallback_model);
    forbid_unless_all("runtime.claude.fallback_model", fallback)?;
    let schema = json_schema.is_some() && agent.json_schema.is_some();
    forbid_unless_all("runtime.claude.json_schema", schema)?;
    // Fewer tools, never more: no list means all of them.
    let more = !agent.tools.is_empty() && tools.iter().any(|tool| !agent.tools.contains(tool));
    forbid_unless_all("runtime.claude.tools", more)?;
    let denied = disallowed_tools;
    let fewer = !denied.is_empty() && agent.disallowed_tools.iter().any(|tool| !denied.contains(tool));
    forbid_unless_all("runtime.claude.disallowed_tools", fewer)?;
    let allowed = allowed_tools.iter().any(|tool| !agent.allowed_tools.contains(tool));
    forbid_unless_all("runtime.claude.allowed_tools", allowed)?;
    let differs = |own: &str, base: &str| !own.is_empty() && own != base;
    let mode = differs(permission_mode, &agent.permission_mode);
    forbid_unless_all("runtime.claude.permission_mode", mode)?;
    let policy = *permission_policy != 0 && *permission_policy != agent.permission_policy;
    forbid_unless_all("runtime.claude.permission_policy", policy)?;
    let system = differs(system_prompt, &agent.system_prompt);
    forbid_unless_all("runtime.claude.system_prompt", system)?;
    let appended = differs(append_system_prompt, &agent.append_system_prompt);
    forbid_unless_all("runtime.claude.append_system_prompt", appended)?;
    let servers = mcp_servers.is_some() && *mcp_servers != agent.mcp_servers;
    forbid_unless_all("runtime.claude.mcp_servers", servers)?;
    forbid_unless_all("runtime.claude.program", differs(program, &agent.program))?;
    // As the model, a matter of cost.
    forbid_unless_all("runtime.claude.effort", replaced(effort, &agent.effort))?;
    // What follows gives powers: settings allow tools and run hooks, and plugins have code.
    let settings = settings.is_some() && *settings != agent.settings;
    forbid_unless_all("runtime.claude.settings", settings)?;
    let agents = agents.is_some() && *agents != agent.agents;
    forbid_unless_all("runtime.claude.agents", agents)?;
    let other = |own: &[String], base: &[String]| !own.is_empty() && own != base;
    forbid_unless_all("runtime.claude.add_dirs", other(add_dirs, &agent.add_dirs))?;
    forbid_unless_all("runtime.claude.betas", other(betas, &agent.betas))?;
    forbid_unless_all("runtime.claude.plugin_dirs", other(plugin_dirs, &agent.plugin_dirs))
}
