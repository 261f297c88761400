//! The API over HTTP and JSON, with a plain HTTP client.

use anyhow::{Context, Result};
use reqwest::{Method, StatusCode};
use rota_proto::v1::{TaskState, script_step::Kind as Step};
use rota_testkit::{Backend, Cluster, Setup, history, tasks};
use serde_json::{Value, json};

const WORD: &str = "open sesame";
const TASKS: &str = "/api/v1/namespaces/default/tasks";

/// Caller of a control plane that requires a token.
struct Caller {
    base: String,
    http: reqwest::Client,
}

impl Caller {
    fn new(cluster: &Cluster) -> Result<Self> {
        Ok(Self {
            base: format!("http://{}", cluster.addr()),
            http: reqwest::Client::builder().no_proxy().build()?,
        })
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(WORD)
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, Value)> {
        answer(self.request(Method::GET, path)).await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<(StatusCode, Value)> {
        answer(self.request(Method::POST, path).json(body)).await
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<(StatusCode, Value)> {
    let response = request.send().await?;
    let status = response.status();
    let text = response.text().await?;
    Ok((status, serde_json::from_str(&text).with_context(|| format!("{status}: {text}"))?))
}

fn reason(error: &Value) -> &str {
    error["details"][0]["reason"].as_str().unwrap_or_default()
}

async fn cluster() -> Result<(Cluster, Caller)> {
    let cluster =
        Cluster::start_with(Setup { token: Some(WORD.to_owned()), ..Setup::new(Backend::Memory) }).await?;
    let caller = Caller::new(&cluster)?;
    Ok((cluster, caller))
}

#[tokio::test]
async fn task_runs_over_http() -> Result<()> {
    let (cluster, caller) = cluster().await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &["code"]).await?;
    let _worker = cluster.worker("echo", "one", 2)?;
    let steps = [Step::Output("hello\n\u{2028}".into()), Step::Succeed("done".into())];
    let task = serde_json::to_value(tasks::scripted("echo", steps))?;
    let create = || caller.request(Method::POST, TASKS).header("Idempotency-Key", "once").json(&task);
    let (status, made) = answer(create()).await?;
    assert_eq!(status, StatusCode::OK, "{made}");
    let name = made["name"].as_str().context("a name")?;
    // The key makes the call repeatable.
    assert_eq!(answer(create()).await?.1["name"], made["name"]);

    // Lines until the task has ended.
    let watched = caller.request(Method::GET, &format!("/api/v1/{name}:watch")).send().await?;
    assert_eq!(watched.headers()["content-type"], "application/x-ndjson");
    let lines = watched.text().await?;
    let lines: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let last = &lines.last().context("a line")?["task"];
    assert_eq!(last["status"]["state"], "TASK_STATE_SUCCEEDED", "{last}");
    assert_eq!(last["status"]["result"]["text"], "done");

    // Events, from a position, and from the last one that was received.
    let events = async |after: Option<&str>| -> Result<String> {
        let mut request = caller.request(Method::GET, &format!("/api/v1/{name}:watch"));
        request = request.header("accept", "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = request.send().await?;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Ok(response.text().await?)
    };
    let all = events(None).await?;
    assert!(all.ends_with("event: end\ndata: {}\n\n"), "{all}");
    let ids: Vec<_> = all.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    let rest = events(ids.last().copied()).await?;
    assert!(rest.len() < all.len() && rest.ends_with("event: end\ndata: {}\n\n"), "{rest}");
    // A browser that reconnects repeats the query of its first request.
    let again = caller.request(Method::GET, &format!("/api/v1/{name}:watch?afterLogSeq=0"));
    let again = again.header("accept", "text/event-stream");
    let again = again.header("last-event-id", ids.last().copied().context("an id")?).send().await?;
    assert_eq!(again.text().await?, rest);

    let (status, listed) =
        caller.get(&format!("{TASKS}?filter.states=TASK_STATE_SUCCEEDED&page_size=10")).await?;
    assert_eq!((status, listed["tasks"].as_array().map(Vec::len)), (StatusCode::OK, Some(1)), "{listed}");
    let (_, none) = caller.get(&format!("{TASKS}?filter.labels[team]=web&pageSize=10")).await?;
    assert_eq!(none, json!({}));
    history::check(cluster.client(), true).await?.check()
}

#[tokio::test]
async fn changes_and_cancellations_work_over_http() -> Result<()> {
    let (_cluster, caller) = cluster().await?;
    let (_, made) = caller.post(TASKS, &serde_json::to_value(tasks::task("missing"))?).await?;
    let path = format!("/api/v1/{}", made["name"].as_str().context("a name")?);
    let change = caller.request(Method::PATCH, &format!("{path}?updateMask=priority,labels"));
    let (status, changed) =
        answer(change.json(&json!({ "priority": 9, "labels": { "rota.test/a": "b" } }))).await?;
    assert_eq!((status, &changed["priority"]), (StatusCode::OK, &json!(9)), "{changed}");
    let (_, found) = caller.get(&format!("{TASKS}?filter.labels[rota.test/a]=b")).await?;
    assert_eq!(found["tasks"].as_array().map(Vec::len), Some(1), "{found}");
    let (status, explained) = caller.get(&format!("{path}:explain")).await?;
    assert_eq!(status, StatusCode::OK);
    assert!(explained["causes"].is_array(), "{explained}");
    let (status, cancelled) = caller.post(&format!("{path}:cancel"), &json!({ "reason": "test" })).await?;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(cancelled["status"]["state"], TaskState::Cancelled.as_str_name());
    // The body may be left away.
    let again = caller.request(Method::POST, &format!("{path}:cancel")).send().await?;
    assert_eq!(again.status(), StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn errors_have_status_and_reason() -> Result<()> {
    let (_cluster, caller) = cluster().await?;
    let (status, error) = caller.get(&format!("{TASKS}/nothing")).await?;
    assert_eq!(
        (status, &error["code"], reason(&error)),
        (StatusCode::NOT_FOUND, &json!(5), "TASK_NOT_FOUND")
    );
    let (status, error) = caller.get("/api/v1/nothing").await?;
    assert_eq!((status, reason(&error)), (StatusCode::NOT_FOUND, "PATH_UNKNOWN"));
    let refused = caller.request(Method::DELETE, TASKS).send().await?;
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(refused.headers()["allow"], "POST, GET");
    assert_eq!(refused.headers()["cache-control"], "no-store");
    assert_eq!(refused.headers()["x-content-type-options"], "nosniff");
    let plain = caller.request(Method::POST, TASKS).body("{}");
    let (status, error) = answer(plain).await?;
    assert_eq!((status, reason(&error)), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "MEDIA_TYPE_UNSUPPORTED"));
    let json_post = |body: String| {
        caller.request(Method::POST, TASKS).header("content-type", "application/json").body(body)
    };
    for (body, text) in [
        ("{".to_owned(), "no valid JSON"),
        ("[]".to_owned(), "invalid"),
        (r#"{"spec": {"promt": "x"}}"#.to_owned(), "promt"),
        (r#"{"priority": "high"}"#.to_owned(), "invalid"),
        ("[".repeat(100_000), "no valid JSON"),
    ] {
        let (status, error) = answer(json_post(body)).await?;
        assert_eq!((status, reason(&error)), (StatusCode::BAD_REQUEST, "REQUEST_INVALID"), "{error}");
        assert!(error["message"].as_str().unwrap_or_default().contains(text), "{error}");
    }
    for query in
        ["unknown=1", "pageSize=1&pageSize=2", "pageSize=many", "filter=x", "filter.labels=x", "pageSize.x=1"]
    {
        let (status, error) = caller.get(&format!("{TASKS}?{query}")).await?;
        assert_eq!((status, reason(&error)), (StatusCode::BAD_REQUEST, "REQUEST_INVALID"), "{query} {error}");
    }
    // Each detail names its type: the JSON form of `Any`.
    let (status, error) = answer(json_post(r#"{"alias": "x"}"#.to_owned())).await?;
    assert_eq!((status, reason(&error)), (StatusCode::BAD_REQUEST, "INVALID_FIELD"), "{error}");
    let details = error["details"].as_array().into_iter().flatten();
    let types: Vec<_> = details.map(|detail| detail["@type"].as_str().unwrap_or_default()).collect();
    let expected = ["ErrorInfo", "BadRequest"].map(|name| format!("type.googleapis.com/google.rpc.{name}"));
    assert_eq!(types, expected, "{error}");
    assert_eq!(error["details"][1]["fieldViolations"][0]["field"], "task.spec", "{error}");
    let (status, error) = answer(json_post(format!("\"{}\"", "x".repeat(9 << 20)))).await?;
    assert_eq!((status, reason(&error)), (StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE"));
    Ok(())
}

#[tokio::test]
async fn callers_without_token_are_refused_unread() -> Result<()> {
    let (cluster, _) = cluster().await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}{TASKS}", cluster.addr());
    // The body never ends: an answer means that it was not read.
    let endless = reqwest::Body::wrap_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let refused = http.post(&url).header("content-type", "application/json").body(endless).send().await?;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    assert_eq!(reason(&serde_json::from_str(&refused.text().await?)?), "TOKEN_REQUIRED");
    // The description of the API is no secret.
    let document = http.get(format!("http://{}/api/v1/openapi.json", cluster.addr())).send().await?;
    assert_eq!(document.json::<Value>().await?["openapi"], "3.1.1");
    Ok(())
}

#[tokio::test]
async fn pages_from_elsewhere_are_refused() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let caller = Caller::new(&cluster)?;
    let url = format!("{}{TASKS}", caller.base);
    assert_eq!(caller.http.get(&url).send().await?.status(), StatusCode::OK);
    let strange = caller.http.get(&url).header("origin", "http://elsewhere.test").send().await?;
    assert_eq!(strange.status(), StatusCode::FORBIDDEN);
    let rebound = caller.http.get(&url).header("host", "elsewhere.test").send().await?;
    assert_eq!(rebound.status(), StatusCode::FORBIDDEN);
    Ok(())
}

/// A link has a code in place of the token: it is exchanged once, without a token.
#[tokio::test]
async fn sign_in_codes_are_redeemed_once() -> Result<()> {
    let (_cluster, caller) = cluster().await?;
    let issue = format!("{}/api/v1/system:issueSignInCode", caller.base);
    let (status, error) = answer(caller.http.post(&issue).json(&json!({}))).await?;
    assert_eq!((status, reason(&error)), (StatusCode::UNAUTHORIZED, "TOKEN_REQUIRED"));
    let (_, issued) = caller.post("/api/v1/system:issueSignInCode", &json!({})).await?;
    let code = json!({ "code": issued["code"] });
    let redeem = || caller.http.post(format!("{}/api/v1/system:redeemSignInCode", caller.base)).json(&code);
    assert_eq!(answer(redeem()).await?, (StatusCode::OK, json!({ "token": WORD })));
    let (status, error) = answer(redeem()).await?;
    assert_eq!((status, reason(&error)), (StatusCode::UNAUTHORIZED, "SIGN_IN_CODE_INVALID"));
    Ok(())
}
