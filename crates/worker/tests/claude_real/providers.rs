//! Providers of the model besides Anthropic's API: which address the CLI calls, and with which credential. A server of this test
//! refuses every call, also as the proxy that the CLI asks for the addresses of the real providers.

use std::sync::Arc;

use parking_lot::Mutex;
use rota_proto::v1::{Failure, FailureClass};
use rota_telemetry::{OnExit, spawn};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::case::Case;

const REGION: &str = "us-east5";
const TOKEN: &str = "made-for-this-test";
const REFUSAL: &str = r#"{"type":"error","error":{"type":"permission_error","message":"refused"}}"#;

/// A call, without its body.
#[derive(Debug, Clone)]
struct Call {
    /// Method and path, or the address for which a proxy is asked.
    line: String,
    authorization: String,
    api_key: String,
}

/// A server of this machine that refuses calls of models, and remembers them.
struct Refusing {
    address: String,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Refusing {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of this machine");
        let address = listener.local_addr().expect("it is bound").to_string();
        let calls = Arc::<Mutex<Vec<Call>>>::default();
        let seen = Arc::clone(&calls);
        spawn("test.refusing", OnExit::Done, async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                spawn("test.refused", OnExit::Done, async move {
                    let _ = answer(stream, &seen).await;
                });
            }
        });
        Self { address, calls }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Runs an attempt with these variables alone, which fails. Returns why, and its calls.
    async fn refuse(&self, case: &mut Case, environment: &[(&str, &str)]) -> (Failure, Vec<Call>) {
        let is_of_anthropic = |name: &str| name.starts_with("ANTHROPIC_");
        case.environment.retain(|name, _| !is_of_anthropic(name));
        case.environment.insert("CLAUDE_CODE_MAX_RETRIES".to_owned(), "0".to_owned());
        for (name, value) in environment {
            case.environment.insert((*name).to_owned(), (*value).to_owned());
        }
        let (failure, _) = case.fails(&json!([{"text": "never"}])).await;
        assert_eq!(case.model.counts().requests, 0);
        (failure, std::mem::take(&mut *self.calls.lock()))
    }

    /// Does so, and returns the calls of models with a path of this kind. The credential was refused.
    async fn called(
        &self,
        environment: &[(&str, &str)],
        is_model: impl Fn(&str) -> bool,
        credential: &str,
    ) -> Vec<Call> {
        let (failure, calls) = self.refuse(&mut Case::new().await, environment).await;
        let of_models: Vec<_> = calls.iter().filter(|call| is_model(&call.line)).cloned().collect();
        assert!(!of_models.is_empty(), "{calls:#?} {failure:?}");
        assert_eq!(failure.class(), FailureClass::Auth, "{failure:?}");
        assert!(failure.hint.contains(credential), "{failure:?}");
        of_models
    }

    /// Asserts that the CLI calls an address where no variable names another.
    async fn calls_host(&self, case: &mut Case, environment: &[(&str, &str)], host: &str) {
        let url = self.url();
        let proxied = [("HTTPS_PROXY", url.as_str()), ("NO_PROXY", "127.0.0.1")];
        let environment: Vec<_> = environment.iter().copied().chain(proxied).collect();
        let (_, calls) = self.refuse(case, &environment).await;
        assert!(calls.iter().any(|call| call.line == format!("CONNECT {host}:443")), "{calls:#?}");
    }
}

/// Answers the only request of a connection: tokens are made, and all else is refused.
async fn answer(stream: TcpStream, seen: &Mutex<Vec<Call>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let header = |name: &str| {
        let value = head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        });
        value.unwrap_or_default()
    };
    let length = header("content-length").parse().unwrap_or(0);
    tokio::io::copy(&mut (&mut stream).take(length), &mut tokio::io::sink()).await?;
    let line = head.lines().next().unwrap_or_default();
    let line = line.strip_suffix(" HTTP/1.1").unwrap_or(line).to_owned();
    let (status, body) = match line.starts_with("POST /token") {
        true => {
            let token = json!({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"});
            ("200 OK", token.to_string())
        }
        false => ("403 Forbidden", REFUSAL.to_owned()),
    };
    seen.lock().push(Call { line, authorization: header("authorization"), api_key: header("x-api-key") });
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn is_of_bedrock(line: &str) -> bool {
    line.starts_with("POST /model/") && line.ends_with("/invoke-with-response-stream")
}

#[tokio::test]
async fn bedrock_gets_tokens_and_signed_requests() {
    let server = Refusing::start().await;
    let url = server.url();
    let base = [
        ("CLAUDE_CODE_USE_BEDROCK", "1"),
        ("AWS_REGION", "us-east-1"),
        ("ANTHROPIC_BEDROCK_BASE_URL", url.as_str()),
    ];
    let with = |more: &[(&'static str, &'static str)]| base.iter().chain(more).copied().collect::<Vec<_>>();
    let bearer = with(&[("AWS_BEARER_TOKEN_BEDROCK", TOKEN)]);
    let calls = server.called(&bearer, is_of_bedrock, "AWS_BEARER_TOKEN_BEDROCK").await;
    assert!(calls.iter().all(|call| call.authorization == format!("Bearer {TOKEN}")), "{calls:#?}");

    let keys = with(&[
        ("AWS_ACCESS_KEY_ID", "AKIATEST"),
        ("AWS_SECRET_ACCESS_KEY", TOKEN),
        ("AWS_SESSION_TOKEN", TOKEN),
    ]);
    let calls = server.called(&keys, is_of_bedrock, "AWS_ACCESS_KEY_ID").await;
    let is_signed = |call: &Call| {
        let rest = call.authorization.strip_prefix("AWS4-HMAC-SHA256 Credential=AKIATEST/");
        rest.is_some_and(|rest| rest.contains("/us-east-1/bedrock/aws4_request"))
    };
    assert!(calls.iter().all(is_signed), "{calls:#?}");
    assert!(calls.iter().all(|call| !call.authorization.contains(TOKEN)), "{calls:#?}");

    let own = [base[0], ("AWS_REGION", "eu-west-1"), ("AWS_BEARER_TOKEN_BEDROCK", TOKEN)];
    let host = "bedrock-runtime.eu-west-1.amazonaws.com";
    server.calls_host(&mut Case::new().await, &own, host).await;
}

/// With the credentials of a workload, whose file names where tokens are made: those of a service account are always asked for at Google.
#[tokio::test]
async fn vertex_gets_tokens_of_its_credentials() {
    let server = Refusing::start().await;
    let url = server.url();
    let folder = tempfile::tempdir().unwrap();
    let (subject, file) = (folder.path().join("subject"), folder.path().join("credentials.json"));
    std::fs::write(&subject, "subject").unwrap();
    let credentials = json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{url}/token"),
        "credential_source": {"file": subject},
    });
    std::fs::write(&file, credentials.to_string()).unwrap();
    let own = [
        ("CLAUDE_CODE_USE_VERTEX", "1"),
        ("ANTHROPIC_VERTEX_PROJECT_ID", "project"),
        ("CLOUD_ML_REGION", REGION),
        ("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().unwrap()),
    ];
    let with_url: Vec<_> = own.into_iter().chain([("ANTHROPIC_VERTEX_BASE_URL", url.as_str())]).collect();
    let path = format!("POST /projects/project/locations/{REGION}/publishers/anthropic/models/");
    let is_model = |line: &str| line.starts_with(&path) && line.ends_with(":streamRawPredict");
    let calls = server.called(&with_url, is_model, "GOOGLE_APPLICATION_CREDENTIALS").await;
    assert!(calls.iter().all(|call| call.authorization == format!("Bearer {TOKEN}")), "{calls:#?}");

    let host = format!("{REGION}-aiplatform.googleapis.com");
    server.calls_host(&mut Case::new().await, &own, &host).await;
}

#[tokio::test]
async fn foundry_gets_its_key() {
    let server = Refusing::start().await;
    let url = format!("{}/anthropic", server.url());
    let own = [("CLAUDE_CODE_USE_FOUNDRY", "1"), ("ANTHROPIC_FOUNDRY_API_KEY", TOKEN)];
    let with_url: Vec<_> = own.into_iter().chain([("ANTHROPIC_FOUNDRY_BASE_URL", url.as_str())]).collect();
    let is_model = |line: &str| line.starts_with("POST /anthropic/v1/messages");
    let calls = server.called(&with_url, is_model, "ANTHROPIC_FOUNDRY_API_KEY").await;
    assert!(calls.iter().all(|call| call.api_key == TOKEN), "{calls:#?}");

    let of_resource: Vec<_> = own.into_iter().chain([("ANTHROPIC_FOUNDRY_RESOURCE", "mine")]).collect();
    server.calls_host(&mut Case::new().await, &of_resource, "mine.services.ai.azure.com").await;
}
