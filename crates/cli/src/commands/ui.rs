//! `rota ui`: a link to the control centre.

use clap::Args;
use rota_client::{Client, Token};
use rota_proto::v1::IssueSignInCodeRequest;

use crate::cluster;
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::login;
use crate::output::{Out, Reporter};

const EXAMPLES: &str = "\
Examples:
  rota ui
  rota --endpoint https://rota.example --token-file token ui

The link contains a code that the page exchanges for the token, once and within a minute. The token itself is in no address, \
so that the browser's history does not keep it.";

/// Print a link to the control centre that signs in with the token of the command line
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Ui {}

impl Ui {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let options = login::find(globals).await?.options;
        if options.exposes_token() {
            let message = format!("the token would be sent to {} unencrypted", options.endpoint);
            return Err(Failure::usage(message).hint("use https").into());
        }
        let is_forwarded = cluster::is_forwarded(&options);
        let page = options.endpoint.trim_end_matches('/').to_owned();
        let link = match &options.token {
            Token::None => page,
            Token::Fixed(_) | Token::File(_) | Token::Renewed(_) => {
                let issued = Client::new(options)?.issue_sign_in_code(IssueSignInCodeRequest {}).await?;
                format!("{page}/#code={}", issued.code)
            }
        };
        let out = Out::new(globals.output, globals.color);
        match out.is_human() {
            true => out.line(&link)?,
            false => out.value(&serde_json::json!({ "url": link }))?,
        }
        if is_forwarded {
            Reporter::new(globals.color).line("the port is forwarded until Ctrl-C");
            tokio::signal::ctrl_c().await?;
        }
        Ok(Exit::Ok)
    }
}
