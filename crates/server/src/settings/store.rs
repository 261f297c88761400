//! Settings of a store that several replicas share.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Settings, SettingsError};
use crate::error::Error;
use crate::notify::Receiver;
use crate::options::Timing;
use crate::trust::tls;

/// Default of `reconnect_grace` on a shared store: no worker can come back during a takeover, which takes up to the lease of ten
/// seconds and the time to load the records.
const SHARED_RECONNECT_GRACE: Duration = Duration::from_secs(20);

impl Settings {
    /// Fails if a shared store lacks what all replicas must have.
    pub(super) fn check_store(&self) -> Result<(), SettingsError> {
        if self.store.is_none() {
            return Ok(());
        }
        self.advertised(true)?;
        match &self.key_file {
            None => return Err(SettingsError::NoKeyFile),
            // One that each replica makes for itself opens nothing of the others.
            Some(path) if !path.exists() => return Err(SettingsError::MissingKeyFile(path.clone())),
            Some(_) => {}
        }
        if self.artifacts.is_none() { Err(SettingsError::NoArtifacts) } else { Ok(()) }
    }

    /// Fails if a file or an address that serving needs is unusable. A replica must find that out before it stands by: as the
    /// owner it would only end, and the next one after it.
    pub async fn check_usable(&self) -> Result<(), SettingsError> {
        self.keys().check(None).map_err(Error::from)?;
        if let Some(files) = self.tls()? {
            tls::check(&files).await.map_err(Error::Tls)?;
        }
        if let Some(path) = &self.notifications {
            Receiver::load(path)?;
        }
        self.artifacts(Some(String::new())).map(drop)
    }

    /// Returns the time without a session after which the tasks of a worker are requeued.
    pub(super) fn reconnect_grace(&self) -> Duration {
        let default =
            if self.store.is_some() { SHARED_RECONNECT_GRACE } else { Timing::default().reconnect_grace };
        self.reconnect_grace.map_or(default, |grace| grace.0)
    }

    /// Returns `HOST:PORT` at which other replicas reach this one. An address of this machine alone is refused, unless the database
    /// is on this machine as well: those on others would pass connections on to themselves.
    pub fn advertised(&self, database_is_local: bool) -> Result<String, SettingsError> {
        let address = match &self.advertise {
            Some(address) => address_of(address).ok_or(SettingsError::NoAdvertise)?,
            None if !self.listen.ip().is_unspecified() && self.listen.port() != 0 => self.listen.to_string(),
            _ => return Err(SettingsError::NoAdvertise),
        };
        match reach_of(&address) {
            Reach::Others => Ok(address),
            Reach::ThisMachine if database_is_local => Ok(address),
            _ => Err(SettingsError::UnreachableAdvertise(address)),
        }
    }
}

/// Which machines reach an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    None,
    ThisMachine,
    Others,
}

fn reach_of(address: &str) -> Reach {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let ip = address.parse::<SocketAddr>().map(|address| address.ip().to_canonical());
    match ip {
        Ok(ip) if ip.is_unspecified() => Reach::None,
        Ok(ip) if ip.is_loopback() => Reach::ThisMachine,
        Err(_) if host == "localhost" || host.ends_with(".localhost") => Reach::ThisMachine,
        _ => Reach::Others,
    }
}

/// Returns `HOST:PORT`, with the brackets that an IPv6 address needs: templates of pods have it without.
fn address_of(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, port).to_string()),
        Err(_) if host.is_empty() || host.contains(':') => None,
        Err(_) => Some(format!("{host}:{port}")),
    }
}

#[cfg(test)]
mod tests {
    use rota_settings::HumanDuration;

    use super::*;

    #[test]
    fn takeover_is_shorter_than_the_reconnect_grace() {
        let grace = |store: bool, given: Option<u64>| {
            let store = store.then(|| "postgres://db".to_owned());
            let reconnect_grace = given.map(|seconds| HumanDuration(Duration::from_secs(seconds)));
            Settings { store, reconnect_grace, ..Settings::default() }.reconnect_grace().as_secs()
        };
        assert_eq!((grace(false, None), grace(true, None), grace(true, Some(3))), (10, 20, 3));
    }

    #[test]
    fn addresses_of_pods_get_brackets() {
        for (text, address) in [
            ("10.0.0.5:7420", Some("10.0.0.5:7420")),
            ("fd00::5:7420", Some("[fd00::5]:7420")),
            ("[fd00::5]:7420", Some("[fd00::5]:7420")),
            ("rota-0.rota:7420", Some("rota-0.rota:7420")),
            (":7420", None),
            ("rota:0", None),
            ("rota", None),
            ("a:b:7420", None),
        ] {
            assert_eq!(address_of(text).as_deref(), address, "{text}");
        }
    }

    #[test]
    fn unreachable_addresses_are_refused() {
        for (address, local, remote) in [
            ("10.0.0.5:7420", true, true),
            ("rota-0.rota:7420", true, true),
            ("127.0.0.1:7420", true, false),
            ("[::1]:7420", true, false),
            ("::ffff:127.0.0.1:7420", true, false),
            ("localhost:7420", true, false),
            ("0.0.0.0:7420", false, false),
            ("[::]:7420", false, false),
        ] {
            let settings = Settings { advertise: Some(address.to_owned()), ..Settings::default() };
            let accepted = [true, false].map(|is_local| settings.advertised(is_local).is_ok());
            assert_eq!(accepted, [local, remote], "{address}");
        }
    }
}
