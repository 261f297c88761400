//! Browsers that sign in at the issuer of people: the code flow, what it refuses, and the session that it leads to.

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use jsonwebtoken::Algorithm;
use reqwest::header::{COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::{Response, redirect};
use rota_testkit::identity_provider::IdentityProvider;
use rota_testkit::{Backend, Cluster, Setup, tasks};
use serde_json::{Value, json};
use url::Url;

use super::people::LIST;

const PAGE: &str = "https://rota.example";
const FLOW: &str = "__Host-rota-sign-in";
const SESSION: &str = "__Host-rota-session";

/// A browser that knows the control plane as [`PAGE`], where a proxy ends TLS.
struct Browser<'a> {
    cluster: &'a Cluster,
    http: reqwest::Client,
    cookies: Vec<(String, String)>,
}

impl<'a> Browser<'a> {
    fn new(cluster: &'a Cluster) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().redirect(redirect::Policy::none()).build()?;
        Ok(Self { cluster, http, cookies: Vec::new() })
    }

    async fn send(&mut self, method: Method, path: &str, body: Option<Value>) -> Result<Response> {
        let is_post = method == Method::POST;
        let request = self.http.request(method, format!("http://{}{path}", self.cluster.addr()));
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = request.header(HOST, "rota.example").header(COOKIE, cookies.join("; "));
        let request = request.header("sec-fetch-site", "same-origin").header("user-agent", "Browser/1");
        let request = if is_post { request.header(ORIGIN, PAGE) } else { request };
        let request = if let Some(body) = body { request.json(&body) } else { request };
        let answer = request.send().await?;
        for set in answer.headers().get_all(SET_COOKIE) {
            let set = set.to_str()?;
            assert!(set.contains("HttpOnly") && set.contains("Secure"), "{set}");
            let (name, rest) = set.split_once('=').context("a cookie")?;
            self.cookies.retain(|(known, _)| known != name);
            let value = rest.split(';').next().unwrap_or_default();
            if !set.contains("Max-Age=0") {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(answer)
    }

    /// Follows a redirection of the control plane.
    async fn location(&mut self, path: &str) -> Result<String> {
        let answer = self.send(Method::GET, path, None).await?;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{path}");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        Ok(answer.headers()[LOCATION].to_str()?.to_owned())
    }

    /// Visits the issuer, and returns the address that it sends the browser back to.
    async fn at_issuer(&mut self, start: &str) -> Result<Url> {
        let issuer = self.location(start).await?;
        let answer = self.http.get(&issuer).send().await?;
        assert_eq!(answer.status(), StatusCode::FOUND, "{issuer}");
        Ok(answer.headers()[LOCATION].to_str()?.parse()?)
    }

    /// Comes back to an address, and returns the next one.
    async fn come_back(&mut self, back: &Url) -> Result<String> {
        assert!(back.as_str().starts_with(&format!("{PAGE}/sign-in/callback?")), "{back}");
        self.location(&format!("{}?{}", back.path(), back.query().unwrap_or_default())).await
    }

    async fn sign_in(&mut self) -> Result<String> {
        let back = self.at_issuer("/sign-in").await?;
        self.come_back(&back).await
    }

    fn has(&self, name: &str) -> bool {
        self.cookies.iter().any(|(known, _)| known == name)
    }

    async fn reason(&mut self, method: Method, path: &str, body: Option<Value>) -> Result<String> {
        let answer = self.send(method, path, body).await?;
        if answer.status().is_success() {
            return Ok("permitted".to_owned());
        }
        let error: Value = answer.json().await?;
        Ok(error["details"][0]["reason"].as_str().unwrap_or_default().to_owned())
    }
}

async fn start(algorithm: Algorithm, secret: Option<&str>) -> Result<(IdentityProvider, Cluster)> {
    let provider = IdentityProvider::start(algorithm, secret).await?;
    let secret = if secret.is_some() { "client_secret_file = 'secret'" } else { "" };
    let people = provider.people(&format!("url = '{PAGE}'\nname = 'Example'\n{secret}"), LIST)?;
    let setup =
        Setup { token: Some("open sesame".to_owned()), people: Some(people), ..Setup::new(Backend::Memory) };
    Ok((provider, Cluster::start_with(setup).await?))
}

#[tokio::test]
async fn browser_signs_in_at_its_issuer() -> Result<()> {
    for (algorithm, secret) in [(Algorithm::RS256, Some("a secret: of ours")), (Algorithm::ES256, None)] {
        let (provider, cluster) = start(algorithm, secret).await?;
        provider.behave(|next| next.person = json!({ "sub": "cat", "name": "Cat", "groups": ["squad"] }));
        let mut browser = Browser::new(&cluster)?;
        let options: Value = browser.send(Method::GET, "/api/v1/signInOptions", None).await?.json().await?;
        assert_eq!((&options["name"], &options["browserPath"]), (&json!("Example"), &json!("/sign-in")));
        assert_eq!(options["issuer"], provider.url());

        let back = browser.at_issuer("/sign-in?to=/tasks%3Fview=board").await?;
        assert!(browser.has(FLOW) && !browser.has(SESSION));
        assert_eq!(browser.come_back(&back).await?, "/tasks?view=board");
        assert!(!browser.has(FLOW) && browser.has(SESSION));

        let current = browser.send(Method::GET, "/api/v1/browserSessions/current", None).await?;
        let current: Value = current.json().await?;
        assert_eq!((&current["person"], &current["subject"]), (&json!("Cat"), &json!("cat")));
        assert_eq!((&current["role"], &current["userAgent"]), (&json!("developer"), &json!("Browser/1")));
        let task = Some(serde_json::to_value(tasks::task("missing"))?);
        for (namespace, expected) in [("team", "permitted"), ("default", "NAMESPACE_FORBIDDEN")] {
            let path = format!("/api/v1/namespaces/{namespace}/tasks");
            assert_eq!(browser.reason(Method::POST, &path, task.clone()).await?, expected);
            assert_eq!(browser.reason(Method::GET, &path, None).await?, expected);
        }
        let listed = cluster.client().all_browser_sessions().await?;
        assert_eq!(listed.iter().map(|session| session.person.as_str()).collect::<Vec<_>>(), ["Cat"]);

        // The code works once, also with the cookie of before.
        browser.cookies.push((FLOW.to_owned(), "00".to_owned()));
        assert_eq!(browser.come_back(&back).await?, "/#refused=expired");

        let out =
            browser.send(Method::POST, "/api/v1/browserSessions/current:signOut", Some(json!({}))).await?;
        assert_eq!(out.status(), StatusCode::OK);
        assert!(!browser.has(SESSION) && cluster.client().all_browser_sessions().await?.is_empty());
        assert_eq!(
            browser.reason(Method::GET, "/api/v1/namespaces/team/tasks", None).await?,
            "TOKEN_REQUIRED"
        );
    }
    Ok(())
}

#[tokio::test]
async fn browser_signs_in_below_a_base_path() -> Result<()> {
    let provider = IdentityProvider::start(Algorithm::ES256, None).await?;
    let people = provider.people(&format!("url = '{PAGE}/team/rota'"), LIST)?;
    let setup = Setup {
        token: Some("open sesame".to_owned()),
        people: Some(people),
        base_path: "/team/rota".parse()?,
        ..Setup::new(Backend::Memory)
    };
    let cluster = Cluster::start_with(setup).await?;
    provider.behave(|next| next.person = json!({ "sub": "cat", "name": "Cat", "groups": ["squad"] }));
    let mut browser = Browser::new(&cluster)?;
    let path = "/team/rota/api/v1/signInOptions";
    let options: Value = browser.send(Method::GET, path, None).await?.json().await?;
    let start = options["browserPath"].as_str().context("no path")?.to_owned();
    assert_eq!(start, "/team/rota/sign-in");
    // A proxy may leave the base path as it is, or remove it. What is elsewhere on the host is no target.
    for (removed, wanted, target) in [
        ("", "/team/rota/tasks", "/team/rota/tasks"),
        ("/team/rota", "/team/rota/tasks", "/team/rota/tasks"),
        ("", "/other", "/team/rota/"),
        ("", "/team/rota/../other", "/team/rota/"),
    ] {
        let start = start.strip_prefix(removed).context("another path")?;
        let back = browser.at_issuer(&format!("{start}?to={wanted}")).await?;
        assert_eq!(back.path(), "/team/rota/sign-in/callback");
        let path = back.path().strip_prefix(removed).context("another path")?;
        let path = format!("{path}?{}", back.query().unwrap_or_default());
        assert_eq!(browser.location(&path).await?, target);
        assert!(browser.has("__Host-rota-session.team.rota") && !browser.has(SESSION));
        assert_eq!(browser.location(&path).await?, "/team/rota/#refused=expired");
    }
    for path in ["/team/rota/api/v1/browserSessions/current", "/api/v1/browserSessions/current"] {
        let current: Value = browser.send(Method::GET, path, None).await?.json().await?;
        assert_eq!(current["person"], "Cat", "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn sign_ins_that_do_not_belong_together_are_refused() -> Result<()> {
    let (provider, cluster) = start(Algorithm::ES256, None).await?;
    let (mut one, mut two) = (Browser::new(&cluster)?, Browser::new(&cluster)?);
    let back = one.at_issuer("/sign-in").await?;
    // A link of another person's sign-in, in a browser that has begun none and in one that has.
    assert_eq!(two.come_back(&back).await?, "/#refused=expired");
    two.at_issuer("/sign-in").await?;
    assert_eq!(two.come_back(&back).await?, "/#refused=state");
    assert!(!two.has(SESSION) && !two.has(FLOW));

    let mut other = back.clone();
    let state = "of another";
    let pairs: Vec<_> = back.query_pairs().into_owned().collect();
    other.query_pairs_mut().clear().extend_pairs(
        pairs
            .iter()
            .map(|(name, value)| (name.as_str(), if name == "state" { state } else { value.as_str() })),
    );
    let flow = one.cookies.clone();
    assert_eq!(one.come_back(&other).await?, "/#refused=state");
    one.cookies = flow.clone();
    one.cookies[0].1.replace_range(0..1, if flow[0].1.starts_with('A') { "B" } else { "A" });
    assert_eq!(one.come_back(&back).await?, "/#refused=expired");

    provider.behave(|next| next.nonce = Some("of another".to_owned()));
    assert_eq!(Browser::new(&cluster)?.sign_in().await?, "/#refused=nonce");
    provider.behave(|next| next.nonce = None);
    one.cookies.clone_from(&flow);
    assert_eq!(one.come_back(&back).await?, "/");
    // Each comes back once.
    one.cookies.extend(flow);
    assert_eq!(one.come_back(&back).await?, "/#refused=expired");
    Ok(())
}

#[tokio::test]
async fn codes_that_are_guessed_reach_the_issuer_once() -> Result<()> {
    let (_provider, cluster) = start(Algorithm::ES256, None).await?;
    let mut browser = Browser::new(&cluster)?;
    let mut back = browser.at_issuer("/sign-in").await?;
    let state = back.query_pairs().find(|(name, _)| name == "state").context("no state")?.1.into_owned();
    back.query_pairs_mut().clear().append_pair("state", &state).append_pair("code", "junk");
    let flow = browser.cookies.clone();
    assert_eq!(browser.come_back(&back).await?, "/#refused=issuer");
    browser.cookies = flow;
    assert_eq!(browser.come_back(&back).await?, "/#refused=expired");
    Ok(())
}

#[tokio::test]
async fn people_whom_the_issuer_or_the_list_refuses_get_no_session() -> Result<()> {
    let (provider, cluster) = start(Algorithm::RS256, None).await?;
    let attempt = async || {
        let mut browser = Browser::new(&cluster)?;
        let next = browser.sign_in().await?;
        anyhow::Ok((next, browser.has(SESSION)))
    };
    provider.behave(|next| next.lifetime = -3600);
    assert_eq!(attempt().await?, ("/#refused=issuer".to_owned(), false));
    provider.behave(|next| (next.lifetime, next.denies) = (3600, true));
    assert_eq!(attempt().await?, ("/#refused=denied".to_owned(), false));
    provider.behave(|next| (next.denies, next.person) = (false, json!({ "sub": "mallory" })));
    assert_eq!(attempt().await?, ("/#refused=unlisted".to_owned(), false));
    provider.behave(|next| next.person = json!({ "sub": "ada", "aud": "another client" }));
    assert_eq!(attempt().await?, ("/#refused=issuer".to_owned(), false));
    provider.behave(|next| next.person = json!({ "sub": "ada" }));
    assert_eq!(attempt().await?, ("/".to_owned(), true));
    Ok(())
}

#[tokio::test]
async fn browsers_are_sent_to_the_address_of_the_page() -> Result<()> {
    let (provider, cluster) = start(Algorithm::ES256, None).await?;
    let browser = Browser::new(&cluster)?;
    let elsewhere = format!("http://{}/sign-in?to=//evil.example", cluster.addr());
    let answer = browser.http.get(elsewhere).send().await?;
    assert_eq!(answer.headers()[LOCATION], format!("{PAGE}/sign-in?to=%2F&again=1"));
    assert!(!answer.headers().contains_key(SET_COOKIE));
    // A proxy that passes another host on does not send it in circles.
    let again = format!("http://{}/sign-in?to=%2F&again=1", cluster.addr());
    let answer = browser.http.get(again).send().await?;
    assert!(answer.headers()[LOCATION].to_str()?.starts_with(provider.url()), "{answer:?}");
    // Nothing but a page is asked for in this way.
    let posted = browser.http.post(format!("http://{}/sign-in", cluster.addr())).send().await?;
    assert_ne!(posted.status(), StatusCode::SEE_OTHER);
    Ok(())
}
