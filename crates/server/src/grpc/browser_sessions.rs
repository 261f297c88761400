//! Sessions of browsers: beginning, listing and ending them. Their records are documents of the store; cookies are in headers.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::USER_AGENT;
use rota_proto::{names as n, v1};
use rota_store::{Command, Refused};
use tokio::sync::Mutex;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::answers::page;
use crate::barrier::Barriers;
use crate::clock::now;
use crate::notify::WebPush;
use crate::store_client::{StoreClient, no_reply};
use crate::trust::auth::bearer_token;
use crate::trust::browser_sessions::{BrowserSession, BrowserSessions, NewSession};
use crate::trust::cookies::{Cookies, SessionCookie};
use crate::trust::people::{Person, PersonCall, not_listed};
use crate::trust::roles::Role;
use crate::wire::status::{error, invalid, refused, store};
use crate::wire::{names, time};

pub(crate) struct BrowserSessionAdmin {
    pub(crate) store: StoreClient,
    pub(crate) sessions: Arc<BrowserSessions>,
    pub(crate) barriers: Barriers,
    pub(crate) lifetime: Duration,
    /// Push messages to browsers, if the control plane sends any.
    pub(crate) web_push: Option<Arc<WebPush>>,
    /// Held while a session is created, so that the next one sees it.
    pub(crate) creating: Mutex<()>,
    pub(crate) cookies: Cookies,
}

impl BrowserSessionAdmin {
    pub(super) async fn create(
        &self,
        request: &Request<v1::CreateBrowserSessionRequest>,
    ) -> Result<Response<v1::BrowserSession>, Status> {
        let headers = request.metadata().as_ref();
        let user_agent = user_agent(headers);
        let token = bearer_token(headers).unwrap_or_default();
        let person = request.extensions().get::<PersonCall>().filter(|_| !token.is_empty());
        let _creating = self.creating.lock().await;
        let begun = match person {
            Some(call) => self.sessions.begin_for(&call.person, call.token_expires, user_agent, now()),
            None => self.sessions.begin(token, user_agent, now()),
        };
        let begun = begun.ok_or_else(|| error("TOKEN_REQUIRED", "there is no token to sign in with"))?;
        let (session, value) = self.finish(begun).await?;
        let cookie = self.cookies.of(headers).set(&value, self.lifetime);
        with_cookie(to_wire(&session), &cookie)
    }

    /// Creates a session for a person who comes back from their issuer. Returns the header of its cookie.
    pub(crate) async fn sign_in(
        &self,
        person: &Person,
        headers: &HeaderMap,
        cookie: &SessionCookie,
    ) -> Result<String, Status> {
        let _creating = self.creating.lock().await;
        let begun = self.sessions.begin_for(person, None, user_agent(headers), now());
        let (_, value) = self.finish(begun.ok_or_else(|| not_listed(&person.name))?).await?;
        Ok(cookie.set(&value, self.lifetime))
    }

    /// Stores a session that has begun.
    async fn finish(&self, begun: NewSession) -> Result<(Arc<BrowserSession>, String), Status> {
        self.apply(begun.commands).await?;
        let session = self.sessions.get(begun.id).ok_or_else(missing)?;
        let person = session.person().map(|person| person.subject.as_str());
        tracing::info!(session = %begun.id, role = ?session.role(), person, "a browser has signed in");
        Ok((session, begun.value))
    }

    pub(super) fn current(
        request: &Request<v1::GetCurrentBrowserSessionRequest>,
    ) -> Result<Response<v1::BrowserSession>, Status> {
        own(request).map(|session| Response::new(to_wire(session)))
    }

    pub(super) async fn sign_out(
        &self,
        request: &Request<v1::SignOutRequest>,
    ) -> Result<Response<v1::BrowserSession>, Status> {
        let session = own(request)?;
        self.apply(vec![BrowserSessions::end(session.id)]).await?;
        tracing::info!(session = %session.id, "a browser has signed out");
        with_cookie(to_wire(session), &self.cookies.of(request.metadata().as_ref()).remove())
    }

    pub(super) fn web_push<T>(&self, request: &Request<T>) -> Result<Response<v1::WebPush>, Status> {
        own(request).map(|session| self.push_to_wire(session))
    }

    pub(super) async fn subscribe(
        &self,
        request: &Request<v1::SubscribeWebPushRequest>,
    ) -> Result<Response<v1::WebPush>, Status> {
        let id = own(request)?.id;
        let v1::SubscribeWebPushRequest { endpoint, p256dh, auth } = request.get_ref();
        let push = self.web_push.as_ref();
        let push = push.ok_or_else(|| invalid("endpoint", "this control plane sends no push messages"))?;
        let subscription = push.subscription(endpoint, p256dh, auth, now());
        let subscription = subscription.map_err(|(field, why)| invalid(field, why))?;
        self.change_subscription(id, || self.sessions.subscribe(id, subscription.clone())).await
    }

    pub(super) async fn unsubscribe(
        &self,
        request: &Request<v1::UnsubscribeWebPushRequest>,
    ) -> Result<Response<v1::WebPush>, Status> {
        let id = own(request)?.id;
        let commands = || {
            let session = self.sessions.get(id)?;
            Some(session.subscription().map(|_| session.subscribe(None)).into_iter().collect())
        };
        self.change_subscription(id, commands).await
    }

    /// Applies commands that change the subscription of a session, whose record its use may change meanwhile.
    async fn change_subscription(
        &self,
        id: Uuid,
        commands: impl Fn() -> Option<Vec<Command>>,
    ) -> Result<Response<v1::WebPush>, Status> {
        if self.apply(commands().ok_or_else(missing)?).await.is_err() {
            self.barriers.flush().await;
            self.apply(commands().ok_or_else(missing)?).await?;
        }
        let session = self.sessions.get(id).ok_or_else(missing)?;
        Ok(self.push_to_wire(&session))
    }

    fn push_to_wire(&self, session: &BrowserSession) -> Response<v1::WebPush> {
        let push = self.web_push.as_ref();
        Response::new(v1::WebPush {
            public_key: push.map(|push| push.public_key()).unwrap_or_default(),
            subscribed: push.is_some_and(|push| push.is_subscribed(session)),
        })
    }

    pub(super) fn list(
        &self,
        request: &v1::ListBrowserSessionsRequest,
    ) -> Result<v1::ListBrowserSessionsResponse, Status> {
        let live = self.sessions.list(now());
        let mut named: Vec<_> = live.iter().map(|session| (name(session), session)).collect();
        named.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let (page, next_page_token) = page(named, request.page_size, &request.page_token)?;
        let browser_sessions = page.into_iter().map(|session| to_wire(session)).collect();
        Ok(v1::ListBrowserSessionsResponse { browser_sessions, next_page_token })
    }

    pub(super) async fn revoke(
        &self,
        request: &v1::RevokeBrowserSessionRequest,
    ) -> Result<v1::BrowserSession, Status> {
        let id: Uuid = names::browser_session("name", &request.name)?;
        let session = self.sessions.get(id).ok_or_else(missing)?;
        self.apply(vec![BrowserSessions::end(id)]).await?;
        tracing::warn!(session = %id, "a browser session was revoked");
        Ok(to_wire(&session))
    }

    /// Applies commands, the last of which counts, and waits until calls see its effect. Without any, nothing is written.
    async fn apply(&self, commands: Vec<Command>) -> Result<(), Status> {
        if commands.is_empty() {
            return Ok(());
        }
        let replies = self.store.apply(commands).await.map_err(store)?;
        match replies.into_iter().next_back().ok_or_else(no_reply)? {
            Err(Refused::NoDocument(_)) => return Err(missing()),
            reply => reply.map_err(refused)?,
        };
        self.barriers.flush().await;
        Ok(())
    }
}

fn user_agent(headers: &HeaderMap) -> &str {
    headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn missing() -> Status {
    error("SESSION_NOT_FOUND", "there is no such browser session")
}

/// Returns the session of a call.
fn own<T>(request: &Request<T>) -> Result<&Arc<BrowserSession>, Status> {
    let found = request.extensions().get::<Arc<BrowserSession>>();
    found.ok_or_else(|| error("SESSION_NOT_FOUND", "the call was made without a browser session"))
}

fn with_cookie(session: v1::BrowserSession, cookie: &str) -> Result<Response<v1::BrowserSession>, Status> {
    let cookie = MetadataValue::try_from(cookie).map_err(|error| Status::internal(error.to_string()))?;
    let mut response = Response::new(session);
    response.metadata_mut().insert("set-cookie", cookie);
    Ok(response)
}

fn name(session: &BrowserSession) -> String {
    n::browser_session(session.id)
}

fn to_wire(session: &BrowserSession) -> v1::BrowserSession {
    v1::BrowserSession {
        name: name(session),
        viewer: session.role() == Role::Viewer,
        role: format!("{:?}", session.role()).to_lowercase(),
        person: session.person().map(|person| person.name.clone()).unwrap_or_default(),
        subject: session.person().map(|person| person.subject.clone()).unwrap_or_default(),
        user_agent: session.user_agent().to_owned(),
        create_time: Some(time::timestamp(session.created())),
        last_use_time: Some(time::timestamp(session.last_use())),
        expire_time: Some(time::timestamp(session.expires())),
    }
}
