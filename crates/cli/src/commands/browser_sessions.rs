//! `rota admin sessions` and `revoke-session`: browsers that have signed in to the control centre.

use clap::Args;
use rota_proto::names;
use rota_proto::v1::{BrowserSession, RevokeBrowserSessionRequest};

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Paint, Table, age, clean, time};

#[derive(Debug, Args)]
pub struct RevokeSession {
    /// Ids of sessions, as listed
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

pub async fn sessions(context: &Context) -> anyhow::Result<Exit> {
    let sessions = context.client.all_browser_sessions().await?;
    if !context.out.is_human() {
        context.out.list("browserSessions", &sessions)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["ID", "ROLE", "PERSON", "LAST USE", "CREATED", "EXPIRES", "BROWSER"]);
    for session in &sessions {
        table.row(row(session).map(|text| (text, Paint::Plain)));
    }
    if table.is_empty() {
        context.reporter.line("no browser has signed in; print a link that signs in with: rota ui");
    }
    context.out.table(&table)?;
    Ok(Exit::Ok)
}

fn role(session: &BrowserSession) -> &str {
    // Of a control plane that is older than the field.
    let unnamed = if session.viewer { "viewer" } else { "admin" };
    if session.role.is_empty() { unnamed } else { &session.role }
}

fn row(session: &BrowserSession) -> [String; 7] {
    [
        names::last(&session.name).to_owned(),
        clean(role(session)),
        clean(&session.person),
        age(session.last_use_time.as_ref()) + " ago",
        age(session.create_time.as_ref()) + " ago",
        time(session.expire_time.as_ref()),
        clean(&session.user_agent),
    ]
}

impl RevokeSession {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        for id in &self.ids {
            let name = names::browser_session(names::last(id));
            let session = context.client.revoke_browser_session(RevokeBrowserSessionRequest { name }).await?;
            match context.out.is_human() {
                true => context.reporter.line(&format!(
                    "session {} of a browser with the role {} ended",
                    names::last(&session.name),
                    clean(role(&session))
                )),
                false => context.out.value(&session)?,
            }
        }
        Ok(Exit::Ok)
    }
}
