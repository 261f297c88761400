//! Calls by pages of other origins: those of the list, and with a token only.

use anyhow::Result;
use http::{HeaderMap, Method, StatusCode};
use rota_testkit::{Backend, Cluster, Setup};

const TOKEN: &str = "open sesame";
const APP: &str = "https://app.example";
const CALLS: [&str; 2] = ["api/v1/namespaces/default/tasks", "rota.v1.TaskService/ListTasks"];
/// Headers of responses that pages read: the etag of a record, how a call of gRPC-Web has ended, the role, and what to do about a refusal.
const EXPOSED: [&str; 7] = [
    "etag",
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "rota-role",
    "retry-after",
    "www-authenticate",
];

async fn cluster(cors_origins: Vec<String>) -> Result<Cluster> {
    Cluster::start_with(Setup { token: Some(TOKEN.to_owned()), cors_origins, ..Setup::new(Backend::Memory) })
        .await
}

/// Asks as a browser does before a page's call.
async fn ask(cluster: &Cluster, path: &str, origin: &str) -> Result<(StatusCode, HeaderMap)> {
    let url = format!("http://{}/{path}", cluster.addr());
    let asked = reqwest::Client::new().request(Method::OPTIONS, url).header("origin", origin);
    let asked = asked.header("access-control-request-method", "POST");
    let asked = asked.header("access-control-request-headers", "authorization,content-type,x-grpc-web");
    let answer = asked.send().await?;
    Ok((answer.status(), answer.headers().clone()))
}

fn allowed(headers: &HeaderMap) -> Option<&str> {
    headers.get("access-control-allow-origin").and_then(|origin| origin.to_str().ok())
}

#[tokio::test]
async fn listed_origins_call_with_a_token() -> Result<()> {
    let cluster = cluster(vec![APP.to_owned(), "http://localhost:3000".to_owned()]).await?;
    for path in CALLS {
        let (status, headers) = ask(&cluster, path, APP).await?;
        assert_eq!((status, allowed(&headers)), (StatusCode::OK, Some(APP)), "{path}");
        let named = headers["access-control-allow-headers"].to_str()?;
        assert!(["authorization", "content-type", "x-grpc-web"].iter().all(|name| named.contains(name)));
        // Without this, browsers send no cookie and show no response to a call with one.
        assert!(!headers.contains_key("access-control-allow-credentials"));
        assert!(headers["vary"].to_str()?.contains("origin"));
        let (_, other) = ask(&cluster, path, "https://evil.example").await?;
        assert_eq!(allowed(&other), None);
    }
    let http = reqwest::Client::new();
    let list = http.get(format!("http://{}/{}", cluster.addr(), CALLS[0])).bearer_auth(TOKEN);
    let listed = list.header("origin", APP).send().await?;
    assert_eq!((listed.status(), allowed(listed.headers())), (StatusCode::OK, Some(APP)));
    // A page sees why a call was refused.
    let refused = http.get(format!("http://{}/{}", cluster.addr(), CALLS[0])).header("origin", APP);
    let refused = refused.send().await?;
    assert_eq!((refused.status(), allowed(refused.headers())), (StatusCode::UNAUTHORIZED, Some(APP)));
    let web = http.post(format!("http://{}/{}", cluster.addr(), CALLS[1])).bearer_auth(TOKEN);
    let web = web.header("origin", APP).header("content-type", "application/grpc-web+proto");
    let web = web.body([&[0, 0, 0, 0, 20, 0x0a, 18][..], b"namespaces/default"].concat()).send().await?;
    assert_eq!((web.status(), allowed(web.headers())), (StatusCode::OK, Some(APP)));
    let agent = serde_json::json!({ "spec": { "runtime": { "command": {} } } });
    let made = http.post(format!("http://{}/api/v1/namespaces/default/agents?agentId=one", cluster.addr()));
    let made = made.bearer_auth(TOKEN).header("origin", APP).json(&agent).send().await?;
    assert!(made.headers().contains_key("etag"), "{made:?}");
    for headers in [made.headers(), web.headers()] {
        let exposed = headers["access-control-expose-headers"].to_str()?;
        let exposed: Vec<_> = exposed.split(',').map(str::trim).collect();
        for name in EXPOSED {
            assert!(exposed.contains(&name), "{name}: {exposed:?}");
        }
    }
    assert!(String::from_utf8_lossy(&web.bytes().await?).contains("grpc-status:0"));
    Ok(())
}

/// Pages of a listed origin on the same host: the browser sends them the cookie, too.
#[tokio::test]
async fn listed_origins_have_no_use_of_cookies() -> Result<()> {
    let cluster = cluster(vec!["http://127.0.0.1:3000".to_owned()]).await?;
    let base = format!("http://{}/api/v1", cluster.addr());
    let http = reqwest::Client::new();
    let made = http.post(format!("{base}/browserSessions")).bearer_auth(TOKEN);
    let made = made.json(&serde_json::json!({})).send().await?;
    let cookie = made.headers()["set-cookie"].to_str()?.split(';').next().unwrap_or_default().to_owned();
    let list = http.get(format!("{base}/namespaces/default/tasks")).header("cookie", &cookie);
    let list = list.header("origin", "http://127.0.0.1:3000").header("sec-fetch-site", "same-site");
    assert_eq!(list.send().await?.status(), StatusCode::FORBIDDEN);
    Ok(())
}

#[tokio::test]
async fn no_origin_is_allowed_by_default() -> Result<()> {
    let cluster = cluster(Vec::new()).await?;
    for path in CALLS {
        assert_eq!(allowed(&ask(&cluster, path, APP).await?.1), None);
    }
    Ok(())
}
