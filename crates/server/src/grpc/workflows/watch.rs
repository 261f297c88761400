//! Stream of one workflow: everything once, then its changes, which all of its watchers share.

use bytes::Bytes;
use rota_core::WorkflowKey;
use tonic::Status;

use crate::grpc::streams::Chunks;
use crate::store_client::StoreClient;
use crate::workflows::watched::{self, Watch};

pub(super) struct OneWorkflow {
    pub(super) store: StoreClient,
    pub(super) watch: Watch,
    pub(super) key: WorkflowKey,
    pub(super) without_steps: bool,
    /// The next step, while everything is read.
    pub(super) from: Option<u32>,
    pub(super) is_over: bool,
}

impl Chunks for OneWorkflow {
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        while !self.is_over {
            let chunk;
            match self.from {
                Some(from) => {
                    (chunk, self.from, self.is_over) =
                        watched::page(&self.store, self.key, from, self.without_steps).await?;
                }
                None => match self.watch.next().await {
                    Some(next) => {
                        self.is_over = next.is_last;
                        chunk = if self.without_steps { next.without } else { next.with_steps };
                    }
                    None => {
                        self.from = Some(0);
                        continue;
                    }
                },
            }
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }
}
