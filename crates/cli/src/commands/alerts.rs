//! `rota admin alerts`: what is wrong now.

use clap::Args;
use rota_proto::v1::{Alert, ListAlertsRequest, SystemState};

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Paint, Table, age};

#[derive(Debug, Args)]
pub struct Alerts {
    /// Include the alerts of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

impl Alerts {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let request = ListAlertsRequest { parent: context.parent(self.all_namespaces) };
        let alerts = context.client.list_alerts(request).await?.alerts;
        if !context.out.is_human() {
            context.out.list("alerts", &alerts)?;
            return Ok(Exit::Ok);
        }
        let mut table = Table::new(&["SINCE", "CODE", "MESSAGE", "HINT"]);
        for alert in &alerts {
            table.row(row(alert));
        }
        if table.is_empty() {
            context.reporter.line("nothing is wrong");
        }
        context.out.table(&table)?;
        Ok(Exit::Ok)
    }
}

fn row(alert: &Alert) -> [(String, Paint); 4] {
    let paint = if alert.severity() == SystemState::Error { Paint::Bad } else { Paint::Waiting };
    let plain = |text: &str| (text.to_owned(), Paint::Plain);
    [
        plain(&age(alert.since_time.as_ref())),
        (alert.code.clone(), paint),
        plain(&alert.message),
        plain(&alert.hint),
    ]
}
