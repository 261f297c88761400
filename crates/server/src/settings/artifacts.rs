//! Settings of the storage of artifacts.

use rota_artifacts::Parts;
use rota_telemetry::env;

use super::{Settings, SettingsError};

/// What the names of variables of the clouds' own tools begin with.
const CLOUDS: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];
impl Settings {
    pub(super) fn artifacts(&self, owner: Option<String>) -> Result<Parts, SettingsError> {
        Ok(match &self.artifacts {
            Some(url) => {
                let owner = owner.map_or_else(|| self.owner(), Ok)?;
                Parts::open(url, cloud_settings())?.owned_by(&owner)
            }
            None => Parts::in_folder(&self.data_dir.join("artifacts"))?,
        })
    }

    /// Returns an id of this data directory, which a restored copy of its store elsewhere does not have.
    fn owner(&self) -> Result<String, SettingsError> {
        let path = self.data_dir.join("artifacts.owner");
        let failed = |source| SettingsError::Owner { path: path.clone(), source };
        match std::fs::read_to_string(&path) {
            Ok(owner) if !owner.trim().is_empty() => return Ok(owner.trim().to_owned()),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let owner = uuid::Uuid::new_v4().to_string();
        std::fs::create_dir_all(&self.data_dir)
            .and_then(|()| std::fs::write(&path, &owner))
            .map_err(failed)?;
        Ok(owner)
    }
}

/// Returns the variables of the clouds' own tools. Others have names that mean something to an object store as well, such as
/// `TOKEN` and `ENDPOINT`.
fn cloud_settings() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let is_of_cloud = |name: &str| CLOUDS.iter().any(|cloud| name.starts_with(cloud));
    env::vars_os().filter_map(text).filter(|(name, _)| is_of_cloud(name)).collect()
}
