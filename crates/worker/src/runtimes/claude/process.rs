//! The seam between the driver and processes: what the driver needs of a running CLI. Everything behind
//! it is `supervise`'s.

use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::supervise::{self, EndedBy, Error, Exit, Program};

/// The ends of a CLI's pipes that are ours.
pub(super) struct Pipes {
    pub(super) stdin: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) stdout: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) stderr: Box<dyn AsyncRead + Send + Unpin>,
}

/// A running CLI. Dropping it ends everything it started.
#[async_trait]
pub(super) trait Process: Send {
    /// Its pipes; once.
    fn pipes(&mut self) -> Option<Pipes>;
    /// Waits until nothing of it is left.
    async fn wait(&mut self) -> Result<Exit, Error>;
    /// Ends it within the grace.
    async fn end(&mut self, grace: Duration) -> Result<(Exit, EndedBy), Error>;
}

/// Starts CLIs.
#[async_trait]
pub(super) trait Start: Send + Sync {
    async fn start(&self, program: Program) -> Result<Box<dyn Process>, Error>;
}

/// Real ones.
#[derive(Debug)]
pub(super) struct Supervised;

#[async_trait]
impl Start for Supervised {
    async fn start(&self, program: Program) -> Result<Box<dyn Process>, Error> {
        Ok(Box::new(supervise::start(program).await?))
    }
}

#[async_trait]
impl Process for supervise::Running {
    fn pipes(&mut self) -> Option<Pipes> {
        Some(Pipes {
            stdin: Box::new(self.stdin.take()?),
            stdout: Box::new(self.stdout.take()?),
            stderr: Box::new(self.stderr.take()?),
        })
    }

    async fn wait(&mut self) -> Result<Exit, Error> {
        self.wait().await
    }

    async fn end(&mut self, grace: Duration) -> Result<(Exit, EndedBy), Error> {
        self.end(grace).await
    }
}
