//! A replica of the control plane of a benchmark: it stands by while another one owns the database, as `rota server` does.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use anyhow::Result;
use rota_server::{Findings, Owner, Standby};
use rota_store::Store;
use rota_store_postgres::{Options, Target};
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

/// Connections for reads of the owner.
const READERS: usize = 8;

/// Opens the store once no other replica owns it. Prints the address while it stands by. `terminated` ends the wait, with an error.
pub(crate) async fn own(
    url: &str,
    name: &str,
    listen: SocketAddr,
    terminated: &mut Signal,
) -> Result<Arc<dyn Store>> {
    let findings = Findings::default();
    let mut seen = findings.owners.subscribe();
    let looked = findings.clone();
    let on_wait: rota_store_postgres::OnWait = Arc::new(move |owner| {
        let Some(owner) = owner else { return };
        looked.found(Owner { name: owner.name.clone(), address: owner.address.clone() });
    });
    let stop = CancellationToken::new();
    let address = listen.to_string();
    let options = Options {
        address: address.clone(),
        readers: READERS,
        on_wait,
        stop: stop.clone(),
        seed: 7,
        ..Options::new(Target::parse(url, None)?, name)
    };
    let mut opened = pin!(tokio::task::spawn_blocking(move || rota_store_postgres::open(options, None)));
    let first = tokio::select! {
        opened = &mut opened => Some(opened),
        _ = seen.changed() => None,
    };
    let opened = match first {
        Some(opened) => opened,
        None => {
            let standby = Standby::start(listen, None, &address, &findings).await?;
            println!("{listen}");
            let opened = tokio::select! {
                opened = &mut opened => opened,
                _ = terminated.recv() => {
                    stop.cancel();
                    opened.await
                }
            };
            standby.stop().await;
            opened
        }
    };
    Ok(Arc::new(opened??.store))
}
