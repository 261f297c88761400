//! Values that no attempt may print, besides the secrets that it is given: the worker's own credentials, and tokens in
//! the settings of the task. Knows nothing of redaction.

use std::path::{Path, PathBuf};

use rota_proto::credential::has_credential;
use rota_proto::v1::{ClaudeRuntime, runtime};
use rota_proto::worker::v1::Assign;
use rota_telemetry::redact::is_common_word;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::runtimes::structs;

/// Maximum size of a token.
const MAX_TOKEN_BYTES: u64 = 64 << 10;
/// Variables with the headers of requests to a collector of spans and metrics.
const HEADER_VARS: [&str; 3] =
    ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_METRICS_HEADERS"];

/// The worker's token for the control plane.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) value: Option<SecretString>,
    pub(super) file: Option<PathBuf>,
}

impl Token {
    async fn read(&self) -> Option<String> {
        match &self.file {
            Some(path) => read(path).await,
            None => self.value.as_ref().map(|token| token.expose_secret().to_owned()),
        }
    }
}

/// Returns all values of an attempt that are redacted.
pub(super) async fn values<'a>(
    token: &Token,
    secrets: impl Iterator<Item = &'a String>,
    assign: &Assign,
) -> Vec<String> {
    let mut values: Vec<_> = secrets.cloned().collect();
    values.extend(token.read().await);
    let headers = HEADER_VARS.into_iter().filter_map(rota_telemetry::env::var);
    headers.for_each(|headers| of_headers(&headers, &mut values));
    let Some(spec) = &assign.spec else { return values };
    // They belong among the secrets, and are not always there.
    let open = spec.environment.iter().filter(|(name, _)| has_credential(name));
    open.for_each(|(_, value)| add_credentials(value, &mut values));
    if let Some(runtime::Kind::Claude(claude)) =
        spec.runtime.as_ref().and_then(|runtime| runtime.kind.as_ref())
    {
        of_claude(claude, &mut values);
    }
    if let Some(source) = spec.workspace.as_ref().and_then(|workspace| workspace.git.as_ref()) {
        values.extend(of_url(&source.url));
    }
    values
}

/// Names of secrets whose value is an ordinary word, which results are not cleared of.
pub(super) fn common_words<'a>(secrets: impl IntoIterator<Item = (&'a String, &'a String)>) -> Vec<&'a str> {
    secrets.into_iter().filter(|(_, value)| is_common_word(value)).map(|(name, _)| name.as_str()).collect()
}

async fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await.ok()?;
    file.take(MAX_TOKEN_BYTES).read_to_string(&mut text).await.ok()?;
    Some(text)
}

/// Adds the values of `name=value,name=value`.
fn of_headers(headers: &str, values: &mut Vec<String>) {
    for (_, value) in headers.split(',').filter_map(|header| header.split_once('=')) {
        add_credentials(&value.replace("%20", " "), values);
    }
}

/// Adds the tokens in settings of Claude Code: of MCP servers, also of subagents, and credentials among its variables.
fn of_claude(claude: &ClaudeRuntime, values: &mut Vec<String>) {
    if let Some(servers) = &claude.mcp_servers {
        of_mcp_servers(&structs::to_json(servers), values);
    }
    let agents = claude.agents.as_ref().map(structs::to_json).unwrap_or_default();
    for servers in agents.as_object().into_iter().flatten().filter_map(|(_, agent)| agent.get("mcpServers")) {
        // One object, or a list of names and objects.
        let single = std::slice::from_ref(servers);
        let each = servers.as_array().map_or(single, Vec::as_slice);
        each.iter().for_each(|servers| of_mcp_servers(servers, values));
    }
    let settings = claude.settings.as_ref().map(structs::to_json).unwrap_or_default();
    let variables = settings.get("env").and_then(Value::as_object).into_iter().flatten();
    for (_, value) in variables.filter(|(name, _)| has_credential(name)) {
        value.as_str().into_iter().for_each(|value| add_credentials(value, values));
    }
}

/// Adds the environments and headers of MCP servers.
fn of_mcp_servers(servers: &Value, values: &mut Vec<String>) {
    let servers = servers.as_object().into_iter().flatten().filter_map(|(_, server)| server.as_object());
    for server in servers {
        let settings =
            ["env", "headers"].into_iter().filter_map(|name| server.get(name)?.as_object()).flatten();
        for value in settings.filter_map(|(_, value)| value.as_str()) {
            // Paths, addresses and words are settings.
            if !(value.starts_with('/') || value.starts_with("http") || is_common_word(value)) {
                add_credentials(value, values);
            }
        }
    }
}

/// Adds a value, and for `Bearer TOKEN` the token alone.
fn add_credentials(value: &str, values: &mut Vec<String>) {
    values.push(value.to_owned());
    if let Some((_, last)) = value.trim().rsplit_once(' ') {
        values.push(last.to_owned());
    }
}

/// Returns a token that is the user of a URL. Passwords have a shape of their own.
fn of_url(url: &str) -> Option<String> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let (info, _) = rest.split('/').next()?.rsplit_once('@')?;
    let user = info.split(':').next()?;
    (!is_common_word(user)).then(|| user.to_owned())
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{GitSource, Runtime, TaskSpec, Workspace};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn credentials_in_settings_are_declared() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "worker-token\n").unwrap();
        let token = Token { value: None, file: Some(file.path().to_owned()) };
        let servers = json!({"x": {"env": {"KEY": "mcp-key-1", "MODE": "production", "DIR": "/var/lib"},
            "headers": {"Authorization": "Bearer mcp-token-2"}}});
        let server = |token: &str| json!({"s": {"env": {"TOKEN": token}}});
        let agents = json!({"a": {"mcpServers": server("agent-4")}, "b": {"mcpServers": ["named", server("agent-5")]}});
        let claude = ClaudeRuntime {
            mcp_servers: structs::from_json(servers),
            agents: structs::from_json(agents),
            settings: structs::from_json(json!({"env": {"ANTHROPIC_AUTH_TOKEN": "auth-6", "MODE": "x"}})),
            ..ClaudeRuntime::default()
        };
        let git = GitSource { url: "https://token-3@git.example/x".to_owned(), ..GitSource::default() };
        let spec = TaskSpec {
            runtime: Some(Runtime { kind: Some(runtime::Kind::Claude(claude)) }),
            workspace: Some(Workspace { git: Some(git), ..Workspace::default() }),
            ..TaskSpec::default()
        };
        let assign = Assign { spec: Some(spec), ..Assign::default() };
        let found = values(&token, ["of-agent".to_owned()].iter(), &assign).await;
        assert_eq!(
            found,
            [
                "of-agent",
                "worker-token\n",
                "mcp-key-1",
                "Bearer mcp-token-2",
                "mcp-token-2",
                "agent-4",
                "agent-5",
                "auth-6",
                "token-3"
            ]
        );
        let mut headers = Vec::new();
        of_headers("x-key=abc,authorization=Bearer%20def", &mut headers);
        assert_eq!(headers, ["abc", "Bearer def", "def"]);
    }
}
