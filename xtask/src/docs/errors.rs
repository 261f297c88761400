//! Page of errors: all reasons of failed calls.

use super::MARK;
use super::table::table;
use crate::protos::upper_snake;

pub(super) fn page() -> String {
    let rows: Vec<_> = rota_server::REASONS
        .iter()
        .chain(rota_gateway::REASONS)
        .map(|(reason, code, meaning)| {
            vec![
                format!("`{reason}`"),
                format!("`{}`", upper_snake(&format!("{code:?}"))),
                (*meaning).to_owned(),
            ]
        })
        .collect();
    format!(
        "{MARK}\n\n# Errors\n\nA failed call has a gRPC code, a message for people, and in its details a \
         `google.rpc.ErrorInfo`\nwith the domain `rota.dev` and one of these reasons. Reasons are stable: programs may rely on them.\n\
         Where fields are to blame, a `google.rpc.BadRequest` names them.\n\n{}",
        table(&["Reason", "Code", "Meaning"], &rows)
    )
}
