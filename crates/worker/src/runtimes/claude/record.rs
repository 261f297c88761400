//! Turns the CLI's lines into events, and remembers what the end will be judged by. Pure; answers
//! nothing and knows nothing of pipes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rota_proto::v1::{MessageRole, Severity, event};
use serde_json::Value;

use super::events;
use super::lines::{ApiRetry, Assistant, Block, Content, Finished, Init, Message, System};
use super::usage::Tally;

/// Most files named in a result.
const FILES: usize = 1000;

/// A model call that failed for good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: Option<u16>,
    /// The CLI's own word for it: `authentication_failed`, `rate_limit`, `server_error` …
    pub(super) word: String,
    pub(super) text: String,
}

/// What is known of a run.
#[derive(Debug, Default)]
pub(super) struct Record {
    workspace: PathBuf,
    /// The CLI's session; empty until it tells.
    pub(super) session: String,
    pub(super) result: Option<Finished>,
    pub(super) api_error: Option<ApiError>,
    pub(super) retry: Option<ApiRetry>,
    pub(super) refused: bool,
    /// Lines of any kind, and those that could not be read.
    pub(super) lines: u64,
    pub(super) unreadable: u64,
    /// The assistant's last words, for where a result has none.
    pub(super) last_words: String,
    pub(super) tally: Tally,
    pub(super) files: BTreeSet<String>,
    /// What is being done now.
    pub(super) step: String,
    /// Files that running calls would make.
    writing: BTreeMap<String, String>,
}

impl Record {
    pub(super) fn new(workspace: &Path) -> Self {
        Self { workspace: workspace.to_owned(), ..Self::default() }
    }

    pub(super) fn system(&mut self, line: System) -> Vec<event::Kind> {
        let said = |note: &super::lines::Note, or: &str| note.sentence().unwrap_or(or).to_owned();
        match line {
            System::Init(init) => self.init(&init),
            System::ApiRetry(retry) => {
                let cause = match (retry.error_status, &retry.error) {
                    (Some(status), Some(word)) => format!("{status} {word}"),
                    (Some(status), None) => status.to_string(),
                    (None, _) => "no connection".to_owned(),
                };
                let text = format!(
                    "a model call failed ({cause}); retry {} of {} in {:.1} s",
                    retry.attempt,
                    retry.max_retries,
                    retry.retry_delay_ms / 1000.0
                );
                self.retry = Some(retry);
                vec![events::notice(Severity::Low, "api_retry", text)]
            }
            System::PermissionDenied(denied) => {
                let why = denied.message.or(denied.decision_reason).unwrap_or_default();
                let text = format!("{} was denied: {why}", denied.tool_name);
                vec![events::notice(Severity::Low, "permission_denied", text)]
            }
            System::ModelFallback(note) => {
                let text = said(&note, "the model is overloaded; going on with the fallback model");
                vec![events::notice(Severity::Medium, "model_fallback", text)]
            }
            System::ModelRefusalNoFallback(note) => {
                self.refused = true;
                let text = said(&note, "the model refused to answer");
                vec![events::notice(Severity::Medium, "model_refusal", text)]
            }
            System::CompactBoundary(_) => {
                let text = "the conversation grew too long and was summarized";
                vec![events::notice(Severity::Low, "compacted", text)]
            }
            System::Other => vec![],
        }
    }

    fn init(&mut self, init: &Init) -> Vec<event::Kind> {
        // A turn that begins and never ends is no success, whatever the one before it was.
        self.result = None;
        // Comes with every turn; told once.
        if !self.session.is_empty() {
            return vec![];
        }
        self.session.clone_from(&init.session_id);
        let text = format!(
            "Claude Code {} with {} in mode {}, session {}",
            init.claude_code_version, init.model, init.permission_mode, init.session_id
        );
        let mut told = vec![events::notice(Severity::Low, "runtime_started", text)];
        for server in init.mcp_servers.iter().filter(|server| server.status == "failed") {
            let text = format!("the MCP server {:?} did not start; its tools are missing", server.name);
            told.push(events::notice(Severity::Medium, "mcp_server_failed", text));
        }
        told
    }

    pub(super) fn assistant(&mut self, line: &Assistant) -> Vec<event::Kind> {
        if line.is_api_error_message {
            let text = line.message.content.text();
            let error = ApiError {
                status: line.api_error_status,
                word: line.error.clone().unwrap_or_default(),
                text: text.clone(),
            };
            self.api_error = Some(error);
            return vec![events::notice(Severity::Medium, "api_error", text)];
        }
        let mut told = vec![];
        let blocks = match &line.message.content {
            Content::Blocks(blocks) => blocks.as_slice(),
            Content::Text(text) => {
                self.say(text, line.parent_tool_use_id.is_some(), &mut told);
                &[]
            }
        };
        for block in blocks {
            match block {
                Block::Text { text } => self.say(text, line.parent_tool_use_id.is_some(), &mut told),
                Block::Thinking { thinking } if line.parent_tool_use_id.is_none() && !thinking.is_empty() => {
                    told.push(events::message(MessageRole::Thinking, thinking));
                }
                Block::ToolUse { id, name, input } => {
                    told.push(events::call(id, name, input));
                    self.step = step(name, input);
                    told.push(events::step(&self.step));
                    if let Some(file) = self.written(name, input) {
                        self.writing.insert(id.clone(), file);
                    }
                }
                _ => {}
            }
        }
        told
    }

    /// What a subagent says reaches the log as its caller's tool result.
    fn say(&mut self, text: &str, subagent: bool, told: &mut Vec<event::Kind>) {
        if !subagent && !text.is_empty() {
            text.clone_into(&mut self.last_words);
            told.push(events::message(MessageRole::Assistant, text));
        }
    }

    pub(super) fn user(&mut self, message: &Message) -> Vec<event::Kind> {
        let Content::Blocks(blocks) = &message.content else { return vec![] };
        let mut told = vec![];
        for block in blocks {
            let Block::ToolResult { tool_use_id, content, is_error } = block else { continue };
            let is_error = is_error.unwrap_or(false);
            let output = content.as_ref().map(Content::text).unwrap_or_default();
            told.push(events::result(tool_use_id, &output, is_error));
            if let Some(file) = self.writing.remove(tool_use_id)
                && !is_error
                && self.files.len() < FILES
            {
                self.files.insert(file);
            }
        }
        told
    }

    pub(super) fn result(&mut self, line: Finished) -> Vec<event::Kind> {
        self.tally.add(&line);
        self.refused |= line.stop_reason.as_deref() == Some("refusal");
        self.result = Some(line);
        self.tally.usage().map(event::Kind::Usage).into_iter().collect()
    }

    /// The file within the workspace that a call would write.
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

/// A word on what a call does.
fn step(tool: &str, input: &Value) -> String {
    let detail = ["description", "file_path", "pattern", "url", "query", "command", "skill"]
        .iter()
        .find_map(|field| input.get(field)?.as_str())
        .and_then(|text| text.lines().next())
        .unwrap_or_default();
    if detail.is_empty() { tool.to_owned() } else { format!("{tool}: {detail}") }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
