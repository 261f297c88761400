//! `rota ui`: a link to the control centre.

use anyhow::Context as _;
use clap::Args;
use rota_client::{Token, discover};
use secrecy::ExposeSecret;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  rota ui
  rota --endpoint https://rota.example --token-file token ui

The link contains the token behind `#`, which browsers do not send: the page takes it over and removes it from its address.";

/// Print a link to the control centre that signs in with the token of the command line
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Ui {}

impl Ui {
    pub fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let options = discover::find(&globals.flags()).context("failed to determine the server")?.options;
        let token = match &options.token {
            Token::None => None,
            Token::Fixed(token) => Some(token.expose_secret().to_owned()),
            Token::File(path) => Some(
                std::fs::read_to_string(path)
                    .with_context(|| format!("failed to read the token file {}", path.display()))?,
            ),
        };
        if options.exposes_token() {
            let message = format!("the token would be sent to {} unencrypted", options.endpoint);
            return Err(Failure::usage(message).hint("use https").into());
        }
        let link = match token {
            Some(token) => format!("{}/#token={}", options.endpoint, token.trim()),
            None => options.endpoint,
        };
        let out = Out::new(globals.output, globals.color);
        match out.is_human() {
            true => out.line(&link)?,
            false => out.value(&serde_json::json!({ "url": link }))?,
        }
        Ok(Exit::Ok)
    }
}
