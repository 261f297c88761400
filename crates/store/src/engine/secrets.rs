//! Replacement of sealed secrets by the same under another key.

use rota_core::TaskKey;

use super::{Answer, Engine};
use crate::{Backend, Changes, Error, Load, Refused, Reply, Reseal};

impl<B: Backend> Engine<B> {
    /// Replaces the secrets of tasks that still have them as they were read.
    pub(super) fn reseal(&mut self, secrets: Vec<Reseal>) -> Result<Result<Answer, Refused>, Error> {
        let mut count = 0;
        for Reseal { key, before, after } in secrets {
            let waits = self.load(key)?.is_some_and(|task| task.has_secrets && !task.state.is_final());
            if !waits {
                continue;
            }
            if !self.write_set.secrets.contains_key(&key) {
                self.fetch(&Load { secrets: vec![key], ..Load::default() })?;
            }
            if self.write_set.secrets.get(&key) == Some(&before) {
                self.write_set.secrets.insert(key, after);
                self.write_set.resealed.push(key);
                count += 1;
            }
        }
        Ok(Ok(Reply::Resealed(count).into()))
    }

    /// Adds the replaced secrets to what the batch writes, but for those of tasks that it has ended.
    pub(super) fn write_resealed(&mut self, changes: &mut Changes) {
        let resealed: Vec<TaskKey> = std::mem::take(&mut self.write_set.resealed);
        for key in resealed {
            let waits = self.write_set.get(key).is_some_and(|entry| !entry.task.state.is_final());
            if waits && let Some(sealed) = self.write_set.secrets.get(&key) {
                changes.secrets.push((key, sealed.clone()));
            }
        }
    }
}
