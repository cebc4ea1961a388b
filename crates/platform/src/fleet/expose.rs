//! Services of the host that functions may reach: what connects to an exposed port of a sandbox's own loopback is
//! carried to the address that the operator named.
//!
//! A sandbox has no network but its loopback, so this list is everything that a function reaches. It works without
//! privilege, and a restored function finds the same address. Deliberately absent: UDP, and any address that the
//! operator did not name.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::session::Session;

/// Connections of one sandbox to one service at a time.
const CONNECTIONS_MAX: usize = 64;

/// Carries connections until the session ends. Must be called inside a tokio runtime.
pub(super) fn expose(session: &Arc<Session>, listener: OwnedFd, service: SocketAddr) -> io::Result<()> {
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let session = session.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = accept(&session, &listener, service) => {}
            () = session.ended() => {}
        }
    });
    Ok(())
}

async fn accept(session: &Arc<Session>, listener: &TcpListener, service: SocketAddr) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((inner, _)) => {
                let session = session.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        carried = carry(inner, service) => {
                            if let Err(error) = carried {
                                tracing::debug!(%error, %service, "a connection of a function ended early");
                            }
                        }
                        () = session.ended() => {}
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of descriptors: it passes, or the session ends.
                tracing::warn!(%error, %service, "accept a connection of a function");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn carry(mut inner: TcpStream, service: SocketAddr) -> io::Result<()> {
    let mut outer = TcpStream::connect(service).await?;
    inner.set_nodelay(true)?;
    outer.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut inner, &mut outer).await?;
    Ok(())
}
