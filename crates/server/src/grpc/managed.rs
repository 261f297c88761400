//! Protection of records that the operator of a cluster manages: what a resource states is changed in the resource. A guard
//! against changes that would be overwritten, not against an admin.

use std::collections::BTreeMap;

use rota_proto::labels::CLUSTER;
use tonic::Status;

use crate::wire::status::hinted;

/// Refuses a change of a record that a cluster manages, unless the request names the same cluster.
pub(super) fn check(
    known: &BTreeMap<String, String>,
    given: &BTreeMap<String, String>,
    subject: &str,
    hint: impl FnOnce() -> String,
) -> Result<(), Status> {
    if !known.contains_key(CLUSTER) || known.get(CLUSTER) == given.get(CLUSTER) {
        return Ok(());
    }
    let message = format!(
        "{subject} belongs to a resource of a Kubernetes cluster, whose operator would undo the change"
    );
    Err(hinted("MANAGED_BY_CLUSTER", message, hint()))
}
