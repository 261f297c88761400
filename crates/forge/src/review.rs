//! What has become of an open request: its checks, and what people have written about it. Only reads, by conditional calls: forges do
//! not count those for a page that has not changed.

use std::collections::HashMap;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderValue;
use serde::Deserialize;

use crate::http::{Entries, cut};
use crate::{Error, Forge};

/// Bytes of a text that is returned; forges take longer ones.
const MAX_TEXT: usize = 4 << 10;
/// Bytes of a name that is returned.
const MAX_NAME: usize = 200;
/// Comments and checks of a request that are returned: the newest comments, and the first checks.
const MAX_COMMENTS: usize = 2000;
const MAX_CHECKS: usize = 500;
/// Bytes of the pages of a request that are remembered. Further ones are read each time.
const MAX_REMEMBERED: usize = 256 << 10;

/// Pages of a request that were read, by path.
#[derive(Debug, Default)]
pub struct Pages(HashMap<String, Page>);

#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) tag: HeaderValue,
    pub(crate) body: Vec<u8>,
    /// Number of the last page of its list.
    pub(crate) last: usize,
    /// Whether the current look has read it.
    used: bool,
}

impl Pages {
    /// Begins another look: what the one before has not read is forgotten.
    fn begin(&mut self) {
        self.0.retain(|_, page| std::mem::take(&mut page.used));
    }

    pub(crate) fn known(&mut self, path: &str) -> Option<&Page> {
        let page = self.0.get_mut(path)?;
        page.used = true;
        Some(page)
    }

    /// Notes that a list has more pages than when its first one was read.
    pub(crate) fn extend(&mut self, path: &str, last: usize) {
        if let Some(page) = self.0.get_mut(path) {
            page.last = last;
        }
    }

    pub(crate) fn remember(&mut self, path: &str, tag: Option<HeaderValue>, body: Vec<u8>, last: usize) {
        self.0.remove(path);
        let known: usize = self.0.iter().map(|(path, page)| path.len() + page.body.len()).sum();
        if let Some(tag) = tag
            && known + path.len() + body.len() <= MAX_REMEMBERED
        {
            self.0.insert(path.to_owned(), Page { tag, body, last, used: true });
        }
    }
}

/// State of a request, and what was reported about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Review {
    pub open: bool,
    /// Whether its branch is in the repository that it is to be merged into.
    pub own: bool,
    /// Who has opened it. Comments of the same account are left out: an agent answers with it.
    pub author: String,
    pub branch: String,
    /// Last commit of the branch.
    pub commit: String,
    /// Whether checks of that commit still run, or are too many to be read.
    pub pending: bool,
    /// Checks of that commit that have failed.
    pub failed: Vec<Check>,
    /// What was written about it. Of a kind with more than ten pages, those between the first page and the last nine are missing.
    pub comments: Vec<Comment>,
}

/// A check that has failed, as a program has described it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    pub name: String,
    pub text: String,
    pub url: String,
}

/// What a user has written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comment {
    pub author: String,
    /// Number of the author, at forges that need it.
    pub author_id: i64,
    /// Time in seconds since 1970.
    pub at: i64,
    /// File and line that it is about; empty if it is about all.
    pub place: String,
    pub text: String,
}

impl Review {
    /// Adds a check that has failed.
    pub(crate) fn fail(&mut self, check: Check) {
        if self.failed.len() < MAX_CHECKS {
            self.failed.push(check);
        }
    }

    /// Adds comments. A list without pages may have any number.
    pub(crate) fn comment(&mut self, comments: impl Iterator<Item = Comment>) {
        self.comments.extend(comments);
        let surplus = self.comments.len().saturating_sub(MAX_COMMENTS);
        if surplus > 0 {
            self.comments.sort_by_key(|comment| comment.at);
            self.comments.drain(..surplus);
        }
    }
}

impl Check {
    pub(crate) fn new(name: &str, text: Option<&str>, url: Option<&str>) -> Self {
        let name = cut(name, MAX_NAME).to_owned();
        Self { name, text: short(text), url: cut(url.unwrap_or_default(), MAX_NAME).to_owned() }
    }
}

impl Comment {
    /// `None` without a text or a time.
    pub(crate) fn new(
        author: &str,
        id: i64,
        at: &str,
        place: Option<String>,
        text: Option<&str>,
    ) -> Option<Self> {
        let at = at.parse::<jiff::Timestamp>().ok()?.as_second();
        let text = short(text);
        let place = cut(&place.unwrap_or_default(), MAX_NAME).to_owned();
        let author = cut(author, MAX_NAME).to_owned();
        (!text.trim().is_empty()).then_some(Self { author, author_id: id, at, place, text })
    }
}

fn short(text: Option<&str>) -> String {
    cut(text.unwrap_or_default(), MAX_TEXT).to_owned()
}

/// Returns the name of a place in a file.
pub(crate) fn place(path: Option<String>, line: Option<i64>) -> Option<String> {
    let path = path?;
    Some(line.map_or_else(|| path.clone(), |line| format!("{path}, line {line}")))
}

pub(crate) fn encoded(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

/// Returns a time, in seconds since 1970, as forges take it.
pub(crate) fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}

impl Forge {
    /// Returns the state of a request, with what was written since a time, in seconds since 1970.
    pub async fn review(&self, number: i64, since: i64, pages: &mut Pages) -> Result<Review, Error> {
        let (http, repository) = (&self.http, &self.repository);
        pages.begin();
        let mut review = self.dialect.review(http, repository, number, since, pages).await?;
        review.comments.retain(|comment| comment.at >= since && comment.author != review.author);
        review.comments.sort_by_key(|comment| comment.at);
        Ok(review)
    }

    /// Whether the author of a comment may write to the repository.
    pub async fn may_write(&self, comment: &Comment) -> Result<bool, Error> {
        match self.dialect.may_write(&self.http, &self.repository, comment).await {
            // They are no collaborators.
            Err(Error::Refused(_)) => Ok(false),
            may => may,
        }
    }
}

/// State of a commit, as GitHub and Gitea report it.
#[derive(Debug, Deserialize)]
pub(crate) struct Combined {
    statuses: Option<Vec<Status>>,
}

#[derive(Debug, Deserialize)]
struct Status {
    #[serde(alias = "status")]
    state: String,
    context: String,
    description: Option<String>,
    target_url: Option<String>,
}

impl Entries for Combined {
    fn count(&self) -> usize {
        self.statuses.as_ref().map_or(0, Vec::len)
    }
}

impl Combined {
    pub(crate) fn add_to(self, review: &mut Review) {
        for status in self.statuses.unwrap_or_default() {
            match status.state.as_str() {
                "failure" | "error" => {
                    let (text, url) = (status.description.as_deref(), status.target_url.as_deref());
                    review.fail(Check::new(&status.context, text, url));
                }
                "pending" => review.pending = true,
                _ => {}
            }
        }
    }
}

/// A comment or a review of GitHub or Gitea.
#[derive(Debug, Deserialize)]
pub(crate) struct Written {
    #[serde(default)]
    pub(crate) id: i64,
    user: Option<User>,
    body: Option<String>,
    created_at: Option<String>,
    /// Of a review, which has no other time.
    pub(crate) submitted_at: Option<String>,
    /// Review that a comment on a line is part of, at GitHub.
    pull_request_review_id: Option<i64>,
    path: Option<String>,
    line: Option<i64>,
    /// The line, at Gitea; another number at GitHub.
    position: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct User {
    pub(crate) login: String,
}

impl Written {
    fn at(&self) -> Option<&str> {
        self.created_at.as_deref().or(self.submitted_at.as_deref())
    }

    /// Returns it with the time at which its review was submitted, by the number of the review.
    pub(crate) fn of_review(mut self, submitted: &HashMap<i64, String>) -> Self {
        let at = self.pull_request_review_id.and_then(|id| submitted.get(&id).cloned());
        self.created_at = at.or(self.created_at);
        self
    }

    /// Returns it with the line that Gitea names.
    pub(crate) fn of_gitea(self) -> Self {
        Self { line: self.position.filter(|line| *line > 0), ..self }
    }

    /// Whether it is from that time or later, in seconds since 1970.
    pub(crate) fn is_since(&self, since: i64) -> bool {
        let at = self.at().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        at.is_some_and(|at| at.as_second() >= since)
    }

    pub(crate) fn comment(self) -> Option<Comment> {
        let at = self.at()?.to_owned();
        Comment::new(&self.user?.login, 0, &at, place(self.path, self.line), self.body.as_deref())
    }
}
