//! The pull or merge request of a task: opened once its branch is pushed. The token never comes to a program of the attempt.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rota_forge::neutral::neutral;
use rota_forge::template::{self, fill};
use rota_forge::{Error, Forge, Provider, Repository, TokenSource, Wanted};
use rota_proto::v1::{Failure, FailureClass, ForgeProvider, OpenedRequest, PullRequest};
use rota_proto::worker::v1::Assign;
use rota_telemetry::redact::Redactor;
use secrecy::SecretString;

use super::credential::{Credential, settings};
use super::push::Undelivered;
use crate::report::failure;
use crate::sanitize;

/// Bytes of a title; GitLab takes 255 characters, with the mark of a draft.
const MAX_TITLE: usize = 240;
/// Bytes of a body; GitHub takes 64 KiB.
const MAX_BODY: usize = 60_000;
/// Bytes of one value in it.
const MAX_VALUE: usize = 24 << 10;

/// Request that a task asks for.
#[derive(Debug)]
pub(crate) struct Request {
    asked: PullRequest,
    repository: Repository,
    tokens: Tokens,
    /// Title of the task, and what else texts can contain of it.
    title: String,
    prompt: String,
    task: String,
    name: String,
    agent: String,
    /// Branch to merge into, where the task names none; empty for the default branch.
    pub(super) base: String,
}

/// Work of an attempt that has succeeded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Work {
    pub(crate) result: String,
    pub(crate) cost_micro_usd: i64,
}

#[derive(Debug, Clone)]
struct Tokens {
    credential: Credential,
    url: String,
    redactor: Redactor,
}

#[async_trait]
impl TokenSource for Tokens {
    async fn token(&self, refused: bool) -> Result<SecretString, Error> {
        self.credential.current(&self.url, refused, &self.redactor).await
    }
}

impl Request {
    /// Returns the request of an attempt, if its task asks for one. The error is why there can be none.
    pub(crate) fn of(
        assign: &Assign,
        credential: Option<Credential>,
        redactor: &Redactor,
    ) -> Result<Option<Self>, Failure> {
        let source = super::source(assign);
        let asked = source.and_then(|source| source.push.as_ref()?.pull_request.clone());
        let (Some(source), Some(asked)) = (source, asked) else { return Ok(None) };
        let invalid = |text: String| failure(FailureClass::Invalid, format!("the pull request: {text}"));
        let provider = match asked.provider() {
            ForgeProvider::Github => Some(Provider::GitHub),
            ForgeProvider::Gitlab => Some(Provider::GitLab),
            ForgeProvider::Gitea => Some(Provider::Gitea),
            ForgeProvider::Unspecified => None,
        };
        let api = (!asked.api_url.is_empty()).then_some(asked.api_url.as_str());
        let repository = Repository::of(&source.url, provider, api).map_err(invalid)?;
        let Some(credential) = credential else {
            return Err(invalid("needs `tokenFrom` or `credentialsFrom`".to_owned()));
        };
        let spec = assign.spec.clone().unwrap_or_default();
        let first_line = spec.prompt.trim().lines().next().unwrap_or_default();
        let named = [spec.title.as_str(), first_line, assign.alias.as_str()];
        let title = named.into_iter().find(|text| !text.trim().is_empty());
        let mut title = title.map_or_else(|| format!("Task {}", assign.task_id), str::to_owned);
        let mut prompt = spec.prompt.clone();
        for text in [&mut title, &mut prompt] {
            sanitize::text(redactor, text, MAX_VALUE);
        }
        Ok(Some(Self {
            tokens: Tokens { credential, url: source.url.clone(), redactor: redactor.clone() },
            asked,
            repository,
            title,
            prompt,
            task: assign.task_id.clone(),
            name: assign.alias.clone(),
            agent: assign.agent.clone(),
            base: String::new(),
        }))
    }

    /// Opens the request of a branch, or updates the one that is open; a forge that does not respond is asked again for as long as
    /// `patience`. Returns it, and what the forge did not accept of it.
    pub(crate) async fn open(
        &self,
        branch: &str,
        work: &Work,
        patience: Duration,
    ) -> Result<(OpenedRequest, Vec<String>), Undelivered> {
        let value = |name: &str| match name {
            "title" => neutral(&self.title),
            "prompt" => neutral(&self.prompt),
            "result" => neutral(cut(&work.result, MAX_VALUE)),
            "task" => self.task.clone(),
            "name" => self.name.clone(),
            "agent" => self.agent.clone(),
            "branch" => branch.to_owned(),
            _ => format!("${:.2}", work.cost_micro_usd as f64 / 1e6),
        };
        let or = |text: &str, other: &str| fill(if text.is_empty() { other } else { text }, value);
        let title = or(&self.asked.title, "${title}").replace(['\n', '\r'], " ");
        let body = or(&self.asked.body, template::BODY);
        let wanted = Wanted {
            branch: branch.to_owned(),
            base: if self.asked.base.is_empty() { self.base.clone() } else { self.asked.base.clone() },
            title: cut(&title, MAX_TITLE).to_owned(),
            // Perhaps a person has improved it, and the next task of a conversation is about less.
            retitle: !self.asked.title.is_empty(),
            body: cut(&body, MAX_BODY).to_owned(),
            draft: self.asked.draft,
            labels: self.asked.labels.clone(),
            reviewers: self.asked.reviewers.clone(),
        };
        let tokens = Arc::new(self.tokens.clone());
        let opened = async {
            let forge = Forge::new(self.repository.clone(), tokens, &settings(), patience)?;
            forge.deliver(&wanted).await
        };
        let of_agent = self.tokens.credential.is_of_agent();
        let opened = opened.await.map_err(|error| undelivered(branch, &error, of_agent))?;
        let rota_forge::Opened { number, url, base, created, missing } = opened;
        Ok((OpenedRequest { number, url, base, created }, missing))
    }

    /// Whether the task names the branch to merge into.
    pub(super) fn names_base(&self) -> bool {
        !self.asked.base.is_empty()
    }
}

fn undelivered(branch: &str, error: &Error, of_agent: bool) -> Undelivered {
    let hint = match error {
        Error::Away(..) => "the branch is pushed: the request can be opened by hand",
        Error::Credentials(_) | Error::Token(_) => {
            "give the token access to pull requests; the branch is pushed, and the request can be opened by hand"
        }
        Error::Refused(_) => {
            "correct `push.pullRequest`; the branch is pushed, and the request can be opened by hand"
        }
    };
    let text = format!("{branch} is pushed, and its pull request is not open: {error}");
    let (is_kept, retry_after) = match error {
        Error::Away(_, wait) => (true, wait.map(|wait| Box::new(wait.into()))),
        // Its token is replaced without the task.
        Error::Credentials(_) | Error::Token(_) => (of_agent, None),
        Error::Refused(_) => (false, None),
    };
    let failed = failure(FailureClass::Delivery, text);
    Undelivered { is_kept, ..Failure { hint: hint.to_owned(), retry_after, ..failed }.into() }
}

fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
