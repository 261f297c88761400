//! Converts the types that agents and tasks share.

use rota_proto::v1::{self, runtime, script_step};

use super::{duration, structure};
use crate::{
    ClaudeRuntime, CommandRuntime, DoneWhen, Limits, PullRequest, RetryPolicy, Runtime, ScriptFailure,
    ScriptStep, ScriptedRuntime, Usd, Workspace, WorkspaceCommand,
};

impl Runtime {
    pub fn to_api(&self) -> v1::Runtime {
        let kind = None
            .or_else(|| self.claude.as_ref().map(|claude| runtime::Kind::Claude(claude.to_api())))
            .or_else(|| self.command.as_ref().map(|command| runtime::Kind::Command(command.to_api())))
            .or_else(|| self.scripted.as_ref().map(|scripted| runtime::Kind::Scripted(scripted.to_api())))
            .or_else(|| {
                let options = structure(&self.external.as_ref()?.options);
                Some(runtime::Kind::External(v1::ExternalRuntime { options }))
            });
        v1::Runtime { kind }
    }
}

impl ClaudeRuntime {
    pub(crate) fn to_api(&self) -> v1::ClaudeRuntime {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        v1::ClaudeRuntime {
            model: text(&self.model),
            fallback_model: text(&self.fallback_model),
            tools: self.tools.clone(),
            allowed_tools: self.allowed_tools.clone(),
            disallowed_tools: self.disallowed_tools.clone(),
            permission_mode: self.permission_mode.map(|mode| mode.as_str().to_owned()).unwrap_or_default(),
            system_prompt: text(&self.system_prompt),
            append_system_prompt: text(&self.append_system_prompt),
            mcp_servers: structure(&self.mcp_servers),
            json_schema: structure(&self.json_schema),
            permission_policy: self.permission_policy.map_or(0, |value| value.to_api().into()),
            program: text(&self.program),
            setting_sources: self.setting_sources.iter().map(|source| source.as_str().to_owned()).collect(),
            project_hooks: self.project_hooks.unwrap_or_default(),
            project_mcp_servers: self.project_mcp_servers.unwrap_or_default(),
            settings: structure(&self.settings),
            agents: structure(&self.agents),
            add_dirs: self.add_dirs.clone(),
            effort: self.effort.map(|effort| effort.as_str().to_owned()).unwrap_or_default(),
            betas: self.betas.clone(),
            extra_args: self.extra_args.clone(),
            plugin_dirs: self.plugin_dirs.clone(),
            fail_on_denied_tools: self.fail_on_denied_tools.unwrap_or_default(),
        }
    }
}

impl CommandRuntime {
    fn to_api(&self) -> v1::CommandRuntime {
        v1::CommandRuntime {
            argv: self.argv.clone(),
            shell: self.shell.clone().unwrap_or_default(),
            stdin: self.stdin.clone(),
            retry_exit_codes: self.retry_exit_codes.clone(),
            fatal_exit_codes: self.fatal_exit_codes.clone(),
        }
    }
}

impl ScriptedRuntime {
    fn to_api(&self) -> v1::ScriptedRuntime {
        v1::ScriptedRuntime {
            steps: self.steps.iter().map(ScriptStep::to_api).collect(),
            seed: self.seed.unwrap_or_default(),
        }
    }
}

impl ScriptStep {
    fn to_api(&self) -> v1::ScriptStep {
        use script_step::Kind;
        let kind = None
            .or_else(|| duration(self.delay).map(Kind::Delay))
            .or_else(|| self.progress.map(Kind::Progress))
            .or_else(|| self.output.clone().map(Kind::Output))
            .or_else(|| self.message.clone().map(Kind::Message))
            .or_else(|| self.succeed.clone().map(Kind::Succeed))
            .or_else(|| self.fail.as_ref().map(|fail| Kind::Fail(fail.to_api())))
            .or_else(|| self.hang.map(Kind::Hang))
            .or_else(|| self.crash.map(Kind::Crash))
            .or_else(|| self.spawn_orphan.map(Kind::SpawnOrphan))
            .or_else(|| self.ask.clone().map(Kind::Ask))
            .or_else(|| {
                let usage = self.usage.as_ref()?;
                Some(Kind::Usage(v1::ScriptUsage {
                    input_tokens: usage.input_tokens,
                    output_tokens: usage.output_tokens,
                    cost_micro_usd: micro(usage.cost_usd),
                }))
            })
            .or_else(|| self.kill_worker.map(Kind::KillWorker))
            .or_else(|| duration(self.jitter).map(Kind::Jitter))
            .or_else(|| {
                let file = self.write_file.as_ref()?;
                Some(Kind::WriteFile(v1::ScriptFile { path: file.path.clone(), text: file.text.clone() }))
            })
            .or_else(|| self.remember.clone().map(Kind::Remember))
            .or_else(|| self.recall.map(Kind::Recall));
        v1::ScriptStep { kind }
    }
}

impl ScriptFailure {
    fn to_api(&self) -> v1::ScriptFailure {
        v1::ScriptFailure {
            class: self.class.map(crate::FailureClass::script_word).unwrap_or_default(),
            message: self.message.clone().unwrap_or_default(),
            probability: self.probability,
            attempts: self.attempts.unwrap_or_default(),
        }
    }
}

fn micro(usd: Option<Usd>) -> i64 {
    usd.map_or(0, |usd| usd.micro)
}

impl Limits {
    pub fn to_api(&self) -> v1::Limits {
        v1::Limits {
            timeout: duration(self.timeout),
            silence_timeout: duration(self.silence_timeout),
            queue_timeout: duration(self.queue_timeout),
            cancel_grace: duration(self.cancel_grace),
            max_turns: self.max_turns.unwrap_or_default(),
            budget_micro_usd: micro(self.budget_usd),
        }
    }
}

impl RetryPolicy {
    pub fn to_api(&self) -> v1::RetryPolicy {
        v1::RetryPolicy {
            max_attempts: self.max_attempts.unwrap_or_default(),
            max_worker_losses: self.max_worker_losses,
            initial_backoff: duration(self.initial_backoff),
            max_backoff: duration(self.max_backoff),
            escalate: self.escalate.clone(),
        }
    }
}

impl WorkspaceCommand {
    pub fn to_api(&self) -> v1::WorkspaceCommand {
        v1::WorkspaceCommand {
            argv: self.argv.clone(),
            timeout: duration(self.timeout),
            secrets: self.secrets.clone(),
        }
    }
}

impl DoneWhen {
    pub fn to_api(&self) -> v1::DoneWhen {
        v1::DoneWhen {
            commands: self.commands.iter().map(WorkspaceCommand::to_api).collect(),
            max_rounds: self.max_rounds,
            pinned_files: self.pinned_files.clone(),
        }
    }
}

impl PullRequest {
    pub fn to_api(&self) -> v1::PullRequest {
        v1::PullRequest {
            provider: self.provider.map_or(0, |value| value.to_api().into()),
            base: self.base.clone().unwrap_or_default(),
            draft: self.draft.unwrap_or_default(),
            title: self.title.clone().unwrap_or_default(),
            body: self.body.clone().unwrap_or_default(),
            labels: self.labels.clone(),
            reviewers: self.reviewers.clone(),
            token_from: self.token_from.clone().unwrap_or_default(),
            api_url: self.api_url.clone().unwrap_or_default(),
        }
    }
}

impl Workspace {
    pub fn to_api(&self) -> v1::Workspace {
        v1::Workspace {
            mode: self.mode.map_or(0, |value| value.to_api().into()),
            path: self.path.clone().unwrap_or_default(),
            git: self.git.as_ref().map(|git| v1::GitSource {
                url: git.url.clone(),
                r#ref: git.reference.clone().unwrap_or_default(),
                depth: git.depth.unwrap_or_default(),
                sparse: git.sparse.clone(),
                ref_from: git.ref_from.clone().unwrap_or_default(),
                credentials_from: git.credentials_from.clone().unwrap_or_default(),
                push: git.push.as_ref().map(|push| v1::Push {
                    workflow_files: push.workflow_files.map_or(0, |value| value.to_api().into()),
                    workflow_paths: push.workflow_paths.clone(),
                    pull_request: push.pull_request.as_ref().map(PullRequest::to_api),
                }),
            }),
            cleanup: self.cleanup.map_or(0, |value| value.to_api().into()),
            keep_files: self.keep_files.clone(),
            shared: self.shared.unwrap_or_default(),
        }
    }
}
