//! Dry run (`validate_only` in the API, `--dry-run` on the command line): a batch that is executed and not written.

use rota_core::Timestamp;

use super::Engine;
use crate::{Backend, Command, Error, Refused, Reply};

impl<B: Backend> Engine<B> {
    /// Replies to a batch as [`Engine::run`] would without a backlog, and changes nothing. A run first continues what follows from
    /// earlier batches ([`Engine::has_backlog`]), and its replies may differ for that reason.
    pub fn dry_run(
        &mut self,
        batch: Vec<Command>,
        now: Timestamp,
    ) -> Result<Vec<Result<Reply, Refused>>, Error> {
        if self.stale {
            self.reload()?;
        }
        let rng = self.rng.clone();
        self.dry = true;
        let answers = self.execute(batch, now, false).and_then(|answers| {
            self.backend.confirm()?;
            Ok(answers)
        });
        self.dry = false;
        self.rng = rng;
        let entries = std::mem::take(&mut self.write_set).entries;
        let records = entries.into_iter().map(|(key, entry)| (key, entry.task)).collect();
        Ok(answers?.into_iter().map(|answer| answer.map(|answer| answer.into_reply(&records))).collect())
    }
}
