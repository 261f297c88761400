//! Encoding of records in rows, for stores in SQL: MessagePack with field names, so that later versions can add fields.

use rota_core::target::Route;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Stored};

/// Initial capacity: the record of a typical task.
const TYPICAL_RECORD_SIZE: usize = 1024;

pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(TYPICAL_RECORD_SIZE);
    rmp_serde::encode::write_named(&mut bytes, value).map_err(|error| Error::Corrupt(error.to_string()))?;
    Ok(bytes)
}

pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    rmp_serde::from_slice(bytes).map_err(|error| Error::Corrupt(error.to_string()))
}

/// Decodes a record; a damaged one is its reader's problem alone.
pub fn stored<T: DeserializeOwned>(bytes: &[u8]) -> Stored<T> {
    rmp_serde::from_slice(bytes).map_err(|error| error.to_string())
}

/// Converts a stored number. The schema has no negative ones; one that is counts as damage and reads as zero.
pub fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub fn signed(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// Encodes a route, which is also the key by which it is found.
pub fn route_text(route: &Route) -> Result<String, Error> {
    serde_json::to_string(route).map_err(|error| Error::Corrupt(error.to_string()))
}
