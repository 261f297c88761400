//! What the steps of one turn share: their workflow, its spec, and the values that they see. Must not know what they need next.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;

use bytes::Bytes;
use rota_core::workflow::Workflow;
use rota_expressions::Values;

use super::values::{self, NoValues};
use crate::creation::Creator;
use crate::store_client::StoreClient;
use crate::wire::workflow::StoredSpec;

/// Workflow of the steps of a turn, as it was read.
pub(super) struct Around<'a> {
    pub(super) store: &'a StoreClient,
    pub(super) creator: &'a Creator,
    pub(super) workflow: &'a Workflow,
    encoded: Bytes,
    spec: OnceCell<StoredSpec>,
    /// Values of the steps that were read last: most steps that are ready together see the same.
    last: RefCell<Option<(BTreeMap<String, u32>, Values)>>,
    /// Whether there are several steps that may see the same.
    is_shared: bool,
}

impl<'a> Around<'a> {
    pub(super) fn new(
        store: &'a StoreClient,
        creator: &'a Creator,
        workflow: &'a Workflow,
        spec: Bytes,
        is_shared: bool,
    ) -> Self {
        let (spec, encoded) = (OnceCell::new(), spec);
        Self { store, creator, workflow, encoded, spec, last: RefCell::default(), is_shared }
    }

    pub(super) fn spec(&self) -> Result<&StoredSpec, NoValues> {
        if let Some(spec) = self.spec.get() {
            return Ok(spec);
        }
        let spec = values::decode(self.encoded.clone())?;
        Ok(self.spec.get_or_init(|| spec))
    }

    /// Returns the values of a step that sees these steps, with a budget of its own.
    pub(super) async fn values(&self, seen: BTreeMap<String, u32>) -> Result<Values, NoValues> {
        let last =
            self.last.borrow().as_ref().filter(|(of, _)| *of == seen).map(|(_, values)| values.clone());
        if let Some(values) = last {
            return Ok(values.budget(values::MAX_WORK));
        }
        let values = values::read(self.store, self.workflow, self.spec()?, &seen).await?;
        if self.is_shared {
            *self.last.borrow_mut() = Some((seen, values.clone()));
        }
        Ok(values.budget(values::MAX_WORK))
    }
}
