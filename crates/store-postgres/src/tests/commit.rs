//! A commit of which a statement cannot be sent.

use crate::commit::{Advance, AskDue, send};
use crate::connection::revision;
use crate::errors::Fault;
use crate::lease::{acquire, writer_name};
use crate::session::Session;
use crate::sql;
use crate::statements::Statements;
use crate::tests::lease::{database, on_wait, replica};

/// The others have been sent before it is found.
#[tokio::test]
async fn commit_without_a_statement_is_rolled_back() {
    let (_, target) = database();
    let owner = replica("owner");
    let mut session = Session::open(&target, &writer_name(owner.id)).await.unwrap();
    session.prepare(&[sql::ADVANCE, sql::SHARD, sql::NEXT_DUE]).await.unwrap();
    let epoch = acquire(&session, &owner, None, &on_wait(), None, &mut 0).await.unwrap();
    let before = revision(&session).await.unwrap();
    let advance = Advance { epoch, before, revision: before + 1, last_route: 0, now: 0, away: None };
    let ask = AskDue { tasks_from: 0, workflows: false };
    let statements = Statements::repair(&[]).unwrap();
    let failed = send(&session, &advance, &statements, ask).await;
    assert!(matches!(failed, Err(Fault::Store(_))), "{failed:?}");
    assert_eq!(revision(&session).await.unwrap(), before);

    session.prepare(&[sql::RESTORE_DUE, sql::RESTORE_ENDED, sql::RESTORE_STEPS]).await.unwrap();
    send(&session, &advance, &statements, ask).await.unwrap();
    assert_eq!(revision(&session).await.unwrap(), before + 1);
}
