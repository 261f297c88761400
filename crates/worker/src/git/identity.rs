//! Who the commits of an attempt are by.

use std::io;
use std::path::Path;

use rota_proto::worker::v1::Assign;

use crate::program_dir;

/// Writes the settings of git into the home of an attempt, before any of its programs starts but the git that clones: names of agents
/// and namespaces have no character that means something there.
pub(crate) async fn write(home: &Path, assign: &Assign) -> io::Result<()> {
    let (agent, namespace) = (&assign.agent, &assign.namespace);
    let text = format!("[user]\n\tname = {agent}\n\temail = {agent}@{namespace}.rota.invalid\n");
    let home = home.to_owned();
    let write =
        move || program_dir::replace(&program_dir::open(&home)?, Path::new(".gitconfig"), text.as_bytes());
    tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
}
