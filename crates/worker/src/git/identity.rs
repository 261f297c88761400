//! Who the commits of an attempt are by.

use std::io;
use std::path::Path;

use rota_proto::worker::v1::Assign;

/// Writes the settings of git into the home of an attempt, before any of its programs starts: names of agents and namespaces
/// have no character that means something there.
pub(crate) async fn write(home: &Path, assign: &Assign) -> io::Result<()> {
    let (agent, namespace) = (&assign.agent, &assign.namespace);
    let text = format!("[user]\n\tname = {agent}\n\temail = {agent}@{namespace}.rota.invalid\n");
    tokio::fs::write(home.join(".gitconfig"), text).await
}
