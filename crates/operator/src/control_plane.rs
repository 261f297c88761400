//! Connection to the control plane: the API client, the certificate authority that it trusts, and their renewal.

use std::path::PathBuf;
use std::time::Duration;

use rota_client::Token;
use rota_proto::v1;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::{Error, Options, trust};

/// Time that a control plane that is started together with the operator takes.
const USUAL_START: Duration = Duration::from_secs(20);
const MAX_CONNECT_BACKOFF: Duration = Duration::from_secs(5);

/// Temporary file with the certificate authority, which the client reads for each new connection.
pub(crate) struct CaFile {
    folder: TempDir,
}

impl CaFile {
    pub(crate) fn new(authority: &str) -> Result<Self, Error> {
        let file = Self { folder: tempfile::tempdir().map_err(Error::Folder)? };
        file.write(authority)?;
        Ok(file)
    }

    /// Replaces the content atomically: no reader sees half of it.
    fn write(&self, authority: &str) -> Result<(), Error> {
        let new = self.folder.path().join("new");
        std::fs::write(&new, authority)
            .and_then(|()| std::fs::rename(new, self.path()))
            .map_err(Error::Folder)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }
}

/// Creates the API client. It connects lazily.
pub(crate) fn client(options: &Options, ca: &CaFile) -> Result<rota_client::Client, Error> {
    let mut client = rota_client::Options::new(&options.endpoint);
    client.token = Token::File(options.token_file.clone());
    client.ca = Some(ca.path());
    client.user_agent = concat!("rota-operator/", env!("CARGO_PKG_VERSION")).to_owned();
    Ok(rota_client::Client::new(client)?)
}

/// Calls the control plane until it responds, without limit: it may itself wait for the certificate just created.
/// Meanwhile the controllers report on their objects that it does not. Fails if it refuses this operator.
pub(crate) async fn first_contact(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    use backon::{ExponentialBuilder, Retryable};
    let began = Instant::now();
    let list_one = || {
        let request =
            v1::ListAgentsRequest { parent: "namespaces/-".to_owned(), page_size: 1, ..Default::default() };
        async { context.control.list_agents(request).await.map(drop) }
    };
    let delays = ExponentialBuilder::default().with_max_delay(MAX_CONNECT_BACKOFF).without_max_times();
    let responds =
        list_one.retry(delays).when(rota_client::Error::is_temporary).notify(|error, _| {
            match began.elapsed() < USUAL_START {
                true => tracing::info!(%error, "waiting for the control plane"),
                false => tracing::warn!(%error, "the control plane does not respond"),
            }
        });
    tokio::select! {
        responded = responds => Ok(responded?),
        () = shutdown.cancelled() => Ok(()),
    }
}

/// Renews certificates and tokens periodically, and publishes a new authority, until `shutdown`.
pub(crate) async fn renew_certificates(
    context: Context,
    ca: CaFile,
    renewed: watch::Sender<String>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let monitor = context.health.background_tasks.register("trust", "Renews certificates before they expire");
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(trust::CHECK_INTERVAL) => {}
        }
        let activation = monitor.activate();
        match trust::ensure(&context.kube, &context.options).await {
            Ok(authority) => {
                activation.succeeded();
                if *renewed.borrow() != authority {
                    ca.write(&authority)?;
                    renewed.send_replace(authority);
                }
            }
            Err(error) => {
                activation.failed(&error);
                context.health.failed("trust", "ensure");
                tracing::warn!(%error, "certificate renewal failed, retrying");
            }
        }
    }
}
