//! A proxy that tunnels by CONNECT: all tunnels end at one address, and it remembers where they were to lead.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use rota_telemetry::{OnExit, spawn};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

pub(super) struct ConnectProxy {
    addr: SocketAddr,
    targets: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    pub(super) async fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let targets = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&targets);
        spawn("connect-proxy", OnExit::Done, async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                spawn("connect-proxy-connection", OnExit::Done, async move {
                    if let Err(error) = tunnel(stream, &seen, to).await {
                        eprintln!("proxy: {error:#}");
                    }
                });
            }
        });
        Ok(Self { addr, targets })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the targets of all tunnels, as HOST:PORT.
    pub(super) fn targets(&self) -> Vec<String> {
        self.targets.lock().unwrap().clone()
    }
}

async fn tunnel(mut stream: TcpStream, seen: &Mutex<Vec<String>>, to: SocketAddr) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    seen.lock().unwrap().push(target.context("no CONNECT")?.to_owned());
    let mut server = TcpStream::connect(to).await?;
    stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
    copy_bidirectional(&mut stream, &mut server).await?;
    Ok(())
}
