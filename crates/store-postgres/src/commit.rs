//! One commit: a transaction whose statements are sent together, behind the fence of the shard.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use rota_store::Error;
use tokio_postgres::types::ToSql;

use crate::errors::{Fault, unavailable};
use crate::rows::SHARD;
use crate::session::Session;
use crate::sql;
use crate::statements::Statements;

/// The fence of a commit, and what it writes of the shard.
pub(crate) struct Advance {
    pub(crate) epoch: i64,
    pub(crate) before: i64,
    pub(crate) revision: i64,
    pub(crate) last_route: i32,
    pub(crate) now: i64,
    pub(crate) away: Option<Vec<u8>>,
}

/// Earliest deadlines after a commit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NextDue {
    /// Deadline of the task that is due first.
    pub(crate) tasks: Option<i64>,
    /// Of workflows and steps, if they were asked for.
    pub(crate) workflows: Option<Option<i64>>,
}

/// Which deadlines a commit reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AskDue {
    /// No task is due earlier.
    pub(crate) tasks_from: i64,
    pub(crate) workflows: bool,
}

type Part<'a> = Pin<Box<dyn Future<Output = Result<Option<i64>, Fault>> + Send + 'a>>;

/// Reads the earliest deadline of one kind of record.
fn first_due<'a>(session: &'a Session, sql: &'static str, from: Option<&'a i64>) -> Part<'a> {
    Box::pin(async move {
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&SHARD];
        params.extend(from.map(|from| from as &(dyn ToSql + Sync)));
        let rows = session.query(sql, &params).await?;
        rows.first().map(|row| Ok(row.try_get(0)?)).transpose()
    })
}

/// Reads deadlines outside of a commit.
pub(crate) async fn next_due(session: &Session, ask: AskDue) -> Result<NextDue, Fault> {
    let tasks = first_due(session, sql::NEXT_DUE, Some(&ask.tasks_from)).await?;
    let mut due = NextDue { tasks, workflows: None };
    if ask.workflows {
        let (workflow, step) = futures::try_join!(
            first_due(session, sql::NEXT_WORKFLOW_DUE, None),
            first_due(session, sql::NEXT_STEP_DUE, None),
        )?;
        due.workflows = Some(workflow.into_iter().chain(step).min());
    }
    Ok(due)
}

/// Sends the transaction in one piece, and reads every answer.
pub(crate) async fn send(
    session: &Session,
    advance: &Advance,
    statements: &Statements,
    ask: AskDue,
) -> Result<NextDue, Fault> {
    let before = session.warnings();
    let mut parts: Vec<Part<'_>> = vec![control(session, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")];
    parts.push(Box::pin(async move {
        let Advance { epoch, before, revision, last_route, now, away } = advance;
        session.query(sql::ADVANCE, &[&SHARD, epoch, before, revision, last_route, now, away]).await?;
        Ok(None)
    }));
    for (sql, columns) in statements.iter() {
        parts.push(Box::pin(async move {
            let mut params: Vec<&(dyn ToSql + Sync)> = vec![&SHARD];
            params.extend(columns.iter().map(|column| &**column as &(dyn ToSql + Sync)));
            session.query(sql, &params).await?;
            Ok(None)
        }));
    }
    let due = parts.len();
    parts.push(first_due(session, sql::NEXT_DUE, Some(&ask.tasks_from)));
    if ask.workflows {
        parts.push(first_due(session, sql::NEXT_WORKFLOW_DUE, None));
        parts.push(first_due(session, sql::NEXT_STEP_DUE, None));
    }
    let mut answers = pipeline(parts, || control(session, "COMMIT"), || control(session, "ROLLBACK")).await;
    // A COMMIT that the server has turned into a ROLLBACK succeeds: the failed statement before it is what counts.
    if let Some(failed) = answers.iter().position(Result::is_err) {
        return Err(answers.swap_remove(failed).err().unwrap_or(Fault::Timeout));
    }
    if session.warnings() != before {
        return Err(Fault::Warned);
    }
    let mut answers = answers.into_iter().skip(due).map(|answer| answer.unwrap_or_default());
    let tasks = answers.next().flatten();
    let workflows = ask.workflows.then(|| answers.by_ref().take(2).flatten().min());
    Ok(NextDue { tasks, workflows })
}

fn control<'a>(session: &'a Session, sql: &'static str) -> Part<'a> {
    Box::pin(async move {
        session.client.batch_execute(sql).await?;
        Ok(None)
    })
}

/// Polls requests in order, which sends them in order, and waits for all answers. The last one is `commit`, or `rollback` if a
/// request could not be sent: the others would be committed without it.
async fn pipeline<'a>(
    mut parts: Vec<Part<'a>>,
    commit: impl FnOnce() -> Part<'a>,
    rollback: impl FnOnce() -> Part<'a>,
) -> Vec<Result<Option<i64>, Fault>> {
    let mut answers: Vec<Option<Result<Option<i64>, Fault>>> = parts.iter().map(|_| None).collect();
    let mut last = Some((commit, rollback));
    let all = poll_fn(move |context| {
        for (part, answer) in parts.iter_mut().zip(&mut answers) {
            if answer.is_none()
                && let Poll::Ready(ready) = part.as_mut().poll(context)
            {
                *answer = Some(ready);
            }
        }
        if let Some((commit, rollback)) = last.take() {
            let unsent = answers.iter().any(|answer| matches!(answer, Some(Err(_))));
            let mut part = if unsent { rollback() } else { commit() };
            answers.push(match part.as_mut().poll(context) {
                Poll::Ready(ready) => Some(ready),
                Poll::Pending => None,
            });
            parts.push(part);
        }
        if answers.iter().any(Option::is_none) {
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut answers))
    });
    all.await.into_iter().flatten().collect()
}

/// The error of a writer whose shard has another owner, or a revision that this one has not written.
pub(crate) fn deposed(fault: &Fault) -> Error {
    match fault.code().map(tokio_postgres::error::SqlState::code) {
        Some("RT001") | None => {
            // A commit may notice before the lease is renewed.
            tracing::error!("another control plane has taken over the database; this one ends");
            Error::Deposed
        }
        Some(_) => {
            tracing::error!(
                "the revision of the database is not the last one that was read: was it restored?"
            );
            Error::Deposed
        }
    }
}

/// Error of a commit that is in doubt for too long.
pub(crate) fn in_doubt() -> Error {
    unavailable(
        "the outcome of a commit is not known, since the database cannot be reached".to_owned(),
        "bring the database back; a call with an idempotency key can be repeated",
    )
}
