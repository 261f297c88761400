//! Seam between the driver and processes: what the driver needs of a running CLI. The implementation is
//! `supervise`'s.

use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::supervise::{self, EndedBy, Error, Exit, Program};

/// Parent's ends of a CLI's pipes.
pub(super) struct Pipes {
    pub(super) stdin: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) stdout: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) stderr: Box<dyn AsyncRead + Send + Unpin>,
}

/// A running CLI. Dropping it ends all of its processes.
#[async_trait]
pub(super) trait Process: Send {
    /// Takes the pipes; `None` the second time.
    fn pipes(&mut self) -> Option<Pipes>;
    /// Waits until none of its processes is left.
    async fn wait(&mut self) -> Result<Exit, Error>;
    /// Ends it within the grace period.
    async fn end(&mut self, grace: Duration) -> Result<(Exit, EndedBy), Error>;
}

/// Starts the CLI; replaced in tests.
#[async_trait]
pub(super) trait Start: Send + Sync {
    async fn start(&self, program: Program) -> Result<Box<dyn Process>, Error>;
}

/// Starts the CLI under supervision.
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
