//! Turns the CLI's lines into events, and records the evidence for classifying the outcome. Pure; sends
//! nothing and knows nothing of pipes.

mod todos;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rota_proto::v1::{MessageRole, Severity, event};
use serde_json::Value;

use self::todos::Todos;
use super::blocks::{Block, Content};
use super::events;
use super::lines::{ApiRetry, Assistant, Finished, Init, Message, RateLimit, System};
use super::usage::UsageTotals;

/// Maximum number of files listed in a result.
const MAX_FILES: usize = 1000;
/// Maximum number of denied calls that are counted.
const MAX_DENIED: usize = 1000;

/// A failed model call that the CLI does not retry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: Option<u16>,
    /// The CLI's error code: `authentication_failed`, `rate_limit`, `server_error` …
    pub(super) code: String,
    pub(super) text: String,
}

/// Evidence of a run, from which its outcome is classified.
#[derive(Debug, Default)]
pub(super) struct Record {
    workspace: PathBuf,
    /// The CLI's session id; empty until the first turn starts.
    pub(super) session: String,
    pub(super) result: Option<Finished>,
    pub(super) api_error: Option<ApiError>,
    /// Last retry of a model call, unless a later call succeeded.
    pub(super) retry: Option<ApiRetry>,
    /// The limit that was reached last, unless a later call succeeded.
    pub(super) limit: Option<RateLimit>,
    pub(super) refused: bool,
    /// Number of lines, and of those that were unreadable.
    pub(super) lines: u64,
    pub(super) unreadable: u64,
    /// Whether the model has answered at all.
    pub(super) answered: bool,
    /// The assistant's last message, for a result without a text.
    pub(super) last_message: String,
    pub(super) usage_totals: UsageTotals,
    pub(super) files: BTreeSet<String>,
    /// Tools that were denied, by call: in all turns, by rules, by the policy or by a person.
    denied: BTreeMap<String, String>,
    /// Description of the last tool call.
    step: String,
    todos: Todos,
    /// Files that pending tool calls write, by call id.
    writing: BTreeMap<String, String>,
}

impl Record {
    pub(super) fn new(workspace: &Path) -> Self {
        Self { workspace: workspace.to_owned(), ..Self::default() }
    }

    pub(super) fn system(&mut self, line: System) -> Vec<event::Kind> {
        let message_or = |line: &super::lines::SystemLine, or: &str| line.message().unwrap_or(or).to_owned();
        match line {
            System::Init(init) => self.init(&init),
            System::ApiRetry(retry) => {
                let cause = match (retry.error_status, &retry.error) {
                    (Some(status), Some(code)) => format!("{status} {code}"),
                    (Some(status), None) => status.to_string(),
                    (None, _) => "no connection".to_owned(),
                };
                let text = format!(
                    "model call failed ({cause}); retry {} of {} in {:.1} s",
                    retry.attempt,
                    retry.max_retries,
                    retry.retry_delay_ms / 1000.0
                );
                self.retry = Some(retry);
                vec![events::notice(Severity::Low, "api_retry", text)]
            }
            System::PermissionDenied(denied) => {
                let reason = denied.message.or(denied.decision_reason).unwrap_or_default();
                let text = format!("{} denied: {reason}", denied.tool_name);
                self.deny(&denied.tool_use_id, &denied.tool_name);
                vec![events::notice(Severity::Low, "permission_denied", text)]
            }
            System::ModelFallback(line) => {
                let text = message_or(&line, "the model is overloaded; continuing with the fallback model");
                vec![events::notice(Severity::Medium, "model_fallback", text)]
            }
            System::ModelRefusalNoFallback(line) => {
                self.refused = true;
                let text = message_or(&line, "the model refused to answer");
                vec![events::notice(Severity::Medium, "model_refusal", text)]
            }
            System::CompactBoundary(_) => {
                let text = "conversation summarized: it had grown too long";
                vec![events::notice(Severity::Low, "compacted", text)]
            }
            System::Other => vec![],
        }
    }

    fn init(&mut self, init: &Init) -> Vec<event::Kind> {
        // A turn that starts and never ends is no success, whatever the result of the one before it.
        self.result = None;
        // Neither does what happened to earlier turns explain how this one ends.
        self.api_error = None;
        self.retry = None;
        self.refused = false;
        // Repeated for every turn; reported once.
        if !self.session.is_empty() {
            return vec![];
        }
        self.session.clone_from(&init.session_id);
        let text = format!(
            "Claude Code {} with {} in mode {}, session {}",
            init.claude_code_version, init.model, init.permission_mode, init.session_id
        );
        let mut events = vec![events::notice(Severity::Low, "runtime_started", text)];
        for server in init.mcp_servers.iter().filter(|server| server.status == "failed") {
            let text = format!("MCP server {:?} failed to start; its tools are missing", server.name);
            events.push(events::notice(Severity::Medium, "mcp_server_failed", text));
        }
        events
    }

    pub(super) fn assistant(&mut self, line: &Assistant) -> Vec<event::Kind> {
        if line.is_api_error_message {
            let text = line.message.content.text();
            let error = ApiError {
                status: line.api_error_status,
                code: line.error.clone().unwrap_or_default(),
                text: text.clone(),
            };
            self.api_error = Some(error);
            return vec![events::notice(Severity::Medium, "api_error", text)];
        }
        self.retry = None;
        self.limit = None;
        self.answered = true;
        let mut events = vec![];
        let blocks = match &line.message.content {
            Content::Blocks(blocks) => blocks.as_slice(),
            Content::Text(text) => {
                self.record_message(text, line.parent_tool_use_id.is_some(), &mut events);
                &[]
            }
            Content::Other(_) => &[],
        };
        for block in blocks {
            match block {
                Block::Text { text } => {
                    self.record_message(text, line.parent_tool_use_id.is_some(), &mut events)
                }
                Block::Thinking { thinking } if line.parent_tool_use_id.is_none() && !thinking.is_empty() => {
                    events.push(events::message(MessageRole::Thinking, thinking));
                }
                Block::ToolUse { id, name, input } => {
                    events.push(events::call(id, name, input, line.parent_tool_use_id.as_deref()));
                    self.step = step(name, input);
                    if line.parent_tool_use_id.is_none() {
                        self.todos.call(id, name, input);
                    }
                    // A list is more than the tool that is used for one of its items.
                    if self.todos.progress().is_none() {
                        events.push(self.progress());
                    }
                    if let Some(file) = self.written(name, input) {
                        self.writing.insert(id.clone(), file);
                    }
                }
                _ => {}
            }
        }
        events
    }

    /// Returns the progress by the agent's to-do list, or else by its last tool call, of which no fraction is known.
    pub(super) fn progress(&self) -> event::Kind {
        match self.todos.progress() {
            Some((fraction, step)) => events::progress(fraction, &step),
            None if self.step.is_empty() => events::progress(0.0, "working"),
            None => events::progress(0.0, &self.step),
        }
    }

    /// Records a message, unless it is a subagent's, which the log has as the result of the calling tool.
    fn record_message(&mut self, text: &str, subagent: bool, events: &mut Vec<event::Kind>) {
        if !subagent && !text.is_empty() {
            text.clone_into(&mut self.last_message);
            events.push(events::message(MessageRole::Assistant, text));
        }
    }

    pub(super) fn user(&mut self, message: &Message) -> Vec<event::Kind> {
        let Content::Blocks(blocks) = &message.content else { return vec![] };
        let mut events = vec![];
        for block in blocks {
            let Block::ToolResult { tool_use_id, content, is_error } = block else { continue };
            let is_error = is_error.unwrap_or(false);
            let output = content.as_ref().map(Content::text).unwrap_or_default();
            events.push(events::result(tool_use_id, &output, is_error));
            if self.todos.result(tool_use_id, &output, is_error) {
                events.push(self.progress());
            }
            if let Some(file) = self.writing.remove(tool_use_id)
                && !is_error
                && self.files.len() < MAX_FILES
            {
                self.files.insert(file);
            }
        }
        events
    }

    pub(super) fn result(&mut self, line: Finished) -> Vec<event::Kind> {
        self.usage_totals.add(&line);
        self.refused |= line.stop_reason.as_deref() == Some("refusal");
        for denial in &line.permission_denials {
            self.deny(&denial.tool_use_id, &denial.tool_name);
        }
        let denied = self.denied_tools().map(|tools| {
            let text = format!("tool calls denied: {tools}; the result may be incomplete");
            events::notice(Severity::Medium, "tools_denied", text)
        });
        self.result = Some(line);
        self.usage_totals.usage().map(event::Kind::Usage).into_iter().chain(denied).collect()
    }

    pub(super) fn rate_limit(&mut self, limit: &RateLimit) -> Vec<event::Kind> {
        self.limit = Some(limit).filter(|limit| limit.status == "rejected").cloned();
        let Some(limit) = &self.limit else { return vec![] };
        let name =
            if limit.rate_limit_type.is_empty() { "the account's limit" } else { &limit.rate_limit_type };
        vec![events::notice(Severity::Low, "rate_limit", format!("{name} is reached"))]
    }

    fn deny(&mut self, call: &str, tool: &str) {
        if self.denied.len() < MAX_DENIED {
            self.denied.insert(call.to_owned(), tool.to_owned());
        }
    }

    /// Returns the tools that were denied with the number of their calls, as text. Its result may be that of an agent that could
    /// not do its work.
    pub(super) fn denied_tools(&self) -> Option<String> {
        let mut tools: BTreeMap<&str, usize> = BTreeMap::new();
        for tool in self.denied.values() {
            *tools.entry(tool).or_default() += 1;
        }
        let counts: Vec<_> = tools.iter().map(|(tool, count)| format!("{tool} ({count})")).collect();
        (!counts.is_empty()).then(|| counts.join(", "))
    }

    /// Returns the file within the workspace that a call writes.
    fn written(&self, tool: &str, input: &Value) -> Option<String> {
        let field = match tool {
            "Write" | "Edit" | "MultiEdit" => "file_path",
            "NotebookEdit" => "notebook_path",
            _ => return None,
        };
        let path = Path::new(input.get(field)?.as_str()?);
        let path = if path.is_absolute() { path.strip_prefix(&self.workspace).ok()? } else { path };
        Some(path.to_string_lossy().into_owned())
    }
}

/// Describes a tool call for the progress event.
fn step(tool: &str, input: &Value) -> String {
    let detail = ["description", "file_path", "pattern", "url", "query", "command", "skill"]
        .iter()
        .find_map(|field| input.get(field)?.as_str())
        .and_then(|text| text.lines().next())
        .unwrap_or_default();
    if detail.is_empty() { tool.to_owned() } else { format!("{tool}: {detail}") }
}

#[cfg(test)]
mod tests;
