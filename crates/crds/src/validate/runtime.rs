//! Validation of what agents and tasks share: runtimes, limits, retry policies, workspaces.

use std::path::{Component, Path};
use std::time::Duration;

use rota_proto::claude::Problem;

use rota_proto::limits::MAX_TIMEOUT;

use super::Check;
use crate::{
    DoneWhen, HumanDuration, Limits, RetryPolicy, Runtime, ScriptStep, SetupCache, Workspace,
    WorkspaceCommand, WorkspaceMode,
};

const DAY: Duration = Duration::from_hours(24);
const MAX_COMMANDS: usize = 16;
const MAX_ARGUMENT: usize = 4096;
const MIN_TIMEOUT: Duration = Duration::from_millis(1);

/// Returns the name of a field of the API as manifests have it.
fn camel(field: &str) -> String {
    let mut upper = false;
    let convert = |char: char| {
        let next = if upper { char.to_ascii_uppercase() } else { char };
        upper = char == '_';
        (char != '_').then_some(next)
    };
    field.chars().filter_map(convert).collect()
}

impl Check<'_> {
    pub(super) fn duration(
        &mut self,
        name: &str,
        value: Option<HumanDuration>,
        min: Duration,
        max: Duration,
    ) {
        if let Some(value) = value
            && (value.0 < min || value.0 > max)
        {
            let (min, max) = (HumanDuration(min), HumanDuration(max));
            self.field(name).fail(format!("must be between {min} and {max}, not {value}"));
        }
    }

    pub(super) fn runtime(&mut self, name: &str, runtime: Option<&Runtime>, required: bool) {
        let mut check = self.field(name);
        let Some(runtime) = runtime else { return };
        let set = check.at_most_one(&[
            ("claude", runtime.claude.is_some()),
            ("command", runtime.command.is_some()),
            ("scripted", runtime.scripted.is_some()),
            ("external", runtime.external.is_some()),
        ]);
        if set == 0 && required {
            check.fail("one of claude, command, scripted or external is required");
        }
        if let Some(claude) = &runtime.claude {
            let mut check = check.field("claude");
            for (name, tools) in [
                ("tools", &claude.tools),
                ("allowedTools", &claude.allowed_tools),
                ("disallowedTools", &claude.disallowed_tools),
            ] {
                let mut list = check.field(name);
                list.require(tools.len() <= 256, "must have at most 256 entries");
                for (index, tool) in tools.iter().enumerate() {
                    list.item(index).require(!tool.trim().is_empty(), "must not be empty");
                }
            }
            check.length("systemPrompt", claude.system_prompt.as_deref(), 256 * 1024);
            check.length("appendSystemPrompt", claude.append_system_prompt.as_deref(), 256 * 1024);
            if let Some(Problem { field, index, message }) = claude.to_api().problem() {
                let mut check = check.field(&camel(field));
                match index {
                    Some(index) => check.item(index).fail(message),
                    None => check.fail(message),
                }
            }
        }
        if let Some(command) = &runtime.command {
            let mut check = check.field("command");
            check.at_most_one(&[("argv", !command.argv.is_empty()), ("shell", command.shell.is_some())]);
            if command.argv.first().is_some_and(String::is_empty) {
                check.field("argv").item(0).fail("must not be empty");
            }
            for (index, argument) in command.argv.iter().enumerate() {
                check
                    .field("argv")
                    .item(index)
                    .require(!argument.contains('\0'), "must not contain a NUL byte");
            }
            check.length("stdin", command.stdin.as_deref(), 1024 * 1024);
            for (name, codes) in
                [("retryExitCodes", &command.retry_exit_codes), ("fatalExitCodes", &command.fatal_exit_codes)]
            {
                for (index, code) in codes.iter().enumerate() {
                    check
                        .field(name)
                        .item(index)
                        .require((1..=255).contains(code), "must be between 1 and 255");
                }
            }
        }
        if let Some(scripted) = &runtime.scripted {
            let mut check = check.field("scripted");
            let mut list = check.field("steps");
            list.require(scripted.steps.len() <= 10_000, "must have at most 10000 entries");
            for (index, step) in scripted.steps.iter().enumerate() {
                list.item(index).step(step);
            }
        }
    }

    fn step(&mut self, step: &ScriptStep) {
        let set = self.at_most_one(&[
            ("delay", step.delay.is_some()),
            ("progress", step.progress.is_some()),
            ("output", step.output.is_some()),
            ("message", step.message.is_some()),
            ("succeed", step.succeed.is_some()),
            ("fail", step.fail.is_some()),
            ("hang", step.hang.is_some()),
            ("crash", step.crash.is_some()),
            ("spawnOrphan", step.spawn_orphan.is_some()),
            ("ask", step.ask.is_some()),
            ("usage", step.usage.is_some()),
            ("killWorker", step.kill_worker.is_some()),
            ("jitter", step.jitter.is_some()),
            ("writeFile", step.write_file.is_some()),
            ("remember", step.remember.is_some()),
            ("recall", step.recall.is_some()),
        ]);
        if set == 0 {
            self.fail("must not be empty");
        }
        self.range("progress", step.progress, 0.0, 1.0);
        self.range("crash", step.crash, 1, 64);
        self.duration("delay", step.delay, Duration::ZERO, 7 * DAY);
        self.duration("jitter", step.jitter, Duration::ZERO, 7 * DAY);
        if let Some(fail) = &step.fail {
            let mut check = self.field("fail");
            check.range("probability", fail.probability, 0.0, 1.0);
            check.range("attempts", fail.attempts, 0, 1000);
        }
        if let Some(usage) = &step.usage {
            let mut check = self.field("usage");
            check.range("inputTokens", Some(usage.input_tokens), 0, 1_000_000_000_000);
            check.range("outputTokens", Some(usage.output_tokens), 0, 1_000_000_000_000);
        }
    }

    pub(super) fn limits(&mut self, name: &str, limits: Option<&Limits>) {
        let mut check = self.field(name);
        let Some(limits) = limits else { return };
        check.duration("timeout", limits.timeout, MIN_TIMEOUT, MAX_TIMEOUT);
        check.duration("silenceTimeout", limits.silence_timeout, MIN_TIMEOUT, MAX_TIMEOUT);
        check.duration("queueTimeout", limits.queue_timeout, MIN_TIMEOUT, MAX_TIMEOUT);
        check.duration("cancelGrace", limits.cancel_grace, Duration::ZERO, DAY / 24);
        check.range("maxTurns", limits.max_turns, 0, 100_000);
    }

    pub(super) fn retry(&mut self, name: &str, retry: Option<&RetryPolicy>) {
        let mut check = self.field(name);
        let Some(retry) = retry else { return };
        check.range("maxAttempts", retry.max_attempts, 1, 100);
        check.range("maxWorkerLosses", retry.max_worker_losses, 0, 100);
        check.duration("initialBackoff", retry.initial_backoff, MIN_TIMEOUT, DAY);
        check.duration("maxBackoff", retry.max_backoff, MIN_TIMEOUT, DAY);
        check.field("escalate").require(retry.escalate.len() <= 8, "must have at most 8 entries");
        for (index, model) in retry.escalate.iter().enumerate() {
            let valid = (1..=128).contains(&model.len());
            check.field("escalate").item(index).require(valid, "must have 1 to 128 bytes");
        }
        if let (Some(first), Some(most)) = (retry.initial_backoff, retry.max_backoff)
            && most < first
        {
            check.field("maxBackoff").fail(format!("must not be below initialBackoff ({first}), is {most}"));
        }
    }

    pub(super) fn commands(&mut self, name: &str, commands: &[WorkspaceCommand]) {
        let mut list = self.field(name);
        list.require(commands.len() <= MAX_COMMANDS, "must have at most 16 entries");
        for (index, command) in commands.iter().enumerate() {
            let mut check = list.item(index);
            let program = command.argv.first().is_some_and(|program| !program.is_empty());
            check.field("argv").require(program, "must name a program");
            let has_nul = command.argv.iter().any(|argument| argument.contains('\0'));
            check.field("argv").require(!has_nul, "must not contain a NUL byte");
            let is_long = command.argv.iter().any(|argument| argument.len() > MAX_ARGUMENT);
            check.field("argv").require(!is_long, "must have arguments of at most 4096 bytes");
            check.duration("timeout", command.timeout, MIN_TIMEOUT, DAY);
            for (index, secret) in command.secrets.iter().enumerate() {
                check.field("secrets").item(index).variable(secret);
            }
        }
    }

    pub(super) fn setup_cache(&mut self, name: &str, cache: Option<&SetupCache>) {
        let Some(cache) = cache else { return };
        let mut check = self.field(name);
        check.field("commands").require(!cache.commands.is_empty(), "must not be empty");
        check.commands("commands", &cache.commands);
        let mut list = check.field("keyFiles");
        list.require((1..=16).contains(&cache.key_files.len()), "must have 1 to 16 entries");
        for (index, file) in cache.key_files.iter().enumerate() {
            let is_within = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
            let is_path = (1..=256).contains(&file.len()) && !file.contains('\0');
            list.item(index).require(is_within && is_path, "must be the path of a file within the workspace");
        }
    }

    pub(super) fn done_when(&mut self, name: &str, done_when: Option<&DoneWhen>) {
        let Some(done_when) = done_when else { return };
        let mut check = self.field(name);
        check.field("commands").require(!done_when.commands.is_empty(), "must not be empty");
        check.commands("commands", &done_when.commands);
        check.range("maxRounds", done_when.max_rounds, 0, 20);
        let mut list = check.field("pinnedFiles");
        for (index, glob) in done_when.pinned_files.iter().enumerate() {
            let is_within = Path::new(glob).components().all(|part| matches!(part, Component::Normal(_)));
            let is_glob = !glob.is_empty() && !glob.ends_with('/') && !glob.contains('\0');
            list.item(index).require(is_within && is_glob, "must be a glob within the repository");
        }
    }

    pub(super) fn workspace(&mut self, name: &str, workspace: Option<&Workspace>) {
        let mut check = self.field(name);
        let Some(workspace) = workspace else { return };
        let mode = workspace.mode.unwrap_or(WorkspaceMode::Fresh);
        let path = workspace.path.as_deref();
        match (mode, path) {
            (WorkspaceMode::Fresh, Some(_)) => {
                check.field("path").fail("must not be set for a fresh workspace")
            }
            (WorkspaceMode::InPlace, None) => check.field("path").fail("is required for InPlace"),
            (WorkspaceMode::InPlace, Some(path)) => {
                let mut field = check.field("path");
                field.require(path.starts_with('/'), "must be absolute");
                field.require(!path.split('/').any(|part| part == ".."), "must not contain `..`");
                field.require(!path.contains('\0'), "must not contain a NUL byte");
            }
            (WorkspaceMode::Keep, Some(path)) => check.field("path").dns_name(path, 63),
            _ => {}
        }
        if mode == WorkspaceMode::InPlace {
            check.require(workspace.git.is_none(), "InPlace and git are mutually exclusive");
        } else {
            check.field("shared").require(workspace.shared.is_none(), "is only for InPlace");
        }
        let Some(git) = &workspace.git else { return };
        let mut check = check.field("git");
        check.field("url").require(!git.url.trim().is_empty(), "must not be empty");
        // git would parse it as an option.
        check.field("url").require(!git.url.starts_with('-'), "must not start with '-'");
        let login = git.url.split_once("://").and_then(|(_, rest)| rest.split('/').next()?.split_once('@'));
        check.field("url").require(
            login.is_none_or(|(user, _)| !user.contains(':')),
            "must not contain a password; pass it as a secret",
        );
        if let Some(reference) = &git.reference {
            check.field("ref").require(
                !reference.is_empty()
                    && !reference.starts_with('-')
                    && !reference.contains(char::is_whitespace),
                "must be a branch, tag or commit",
            );
        }
        check.range("depth", git.depth, 0, i32::MAX);
        check.require(
            git.ref_from.is_none() || (git.reference.is_none() && git.depth.unwrap_or_default() == 0),
            "refFrom must not be set with ref or depth",
        );
        if let Some(name) = &git.credentials_from {
            check.field("credentialsFrom").variable(name);
        }
        check.require(
            git.push.is_none() || git.depth.unwrap_or_default() == 0,
            "push needs all commits: it must not be set with depth",
        );
        if let Some(name) = git.push.as_ref().and_then(|push| push.pull_request.as_ref()?.token_from.as_ref())
        {
            check.field("push").field("pullRequest").field("tokenFrom").variable(name);
        }
        let mut sparse = check.field("sparse");
        for (index, folder) in git.sparse.iter().enumerate() {
            let is_within = Path::new(folder).components().all(|part| matches!(part, Component::Normal(_)));
            sparse.item(index).require(
                !folder.is_empty() && is_within,
                "must be the path of a folder within the repository",
            );
        }
    }
}
