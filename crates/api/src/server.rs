//! The listening side of the Lambda API: connections, their limits and their end.
//!
//! Each connection is a task; how many there are, how large a request's head may be and how long it may take are
//! bounded. At shutdown no new connection is taken, idle ones are closed and requests in flight get
//! [`limits::SHUTDOWN_S_MAX`] to finish.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use model::limits;
use platform::control::Control;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::auth::Auth;
use crate::download::{self, Signer};
use crate::front;

/// What every request needs.
pub(crate) struct Shared {
    pub(crate) control: Control,
    pub(crate) auth: Auth,
    pub(crate) download: Signer,
    /// Requests with large bodies that may be in memory.
    pub(crate) large_bodies: Semaphore,
}

/// The Lambda API and the code download as one router, for a caller that serves more on the same port.
///
/// # Errors
/// When the system gives no random bytes for the key of download addresses.
pub fn router(control: Control, auth: Auth) -> io::Result<Router> {
    let shared = Arc::new(Shared {
        control,
        auth,
        download: Signer::new()?,
        large_bodies: Semaphore::new(limits::LARGE_BODIES_MAX),
    });
    Ok(Router::new().route(download::PATH, get(download::serve)).fallback(front::handle).with_state(shared))
}

/// Serves the Lambda API until `shutdown` is done.
///
/// # Errors
/// When the listener fails for good, or see [`router`].
pub async fn serve(
    listener: TcpListener,
    control: Control,
    auth: Auth,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    serve_router(listener, router(control, auth)?, shutdown).await
}

/// Serves any router under the same limits until `shutdown` is done.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve_router(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let slots = Arc::new(Semaphore::new(limits::API_CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    tokio::pin!(shutdown);
    loop {
        let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, router.clone(), stopped.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            // Out of descriptors, or the client left already: either passes.
            Err(cause) => {
                tracing::warn!(%cause, "accept connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    // Nobody listening any more means that every connection has ended.
    let _ = stop.send(true);
    connections.close();
    let patience = Duration::from_secs(limits::SHUTDOWN_S_MAX);
    if tokio::time::timeout(patience, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "requests were still in flight at shutdown");
    }
    Ok(())
}

async fn connection(stream: TcpStream, router: Router, mut stopped: watch::Receiver<bool>) {
    if let Err(cause) = stream.set_nodelay(true) {
        tracing::debug!(%cause, "set TCP_NODELAY failed");
    }
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits::REQUEST_HEAD_S_MAX))
        .max_buf_size(limits::REQUEST_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // The value that `wait_for` hands out is a lock; it must be gone before the next wait.
    let told = async { drop(stopped.wait_for(|stopped| *stopped).await) };
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = told => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(cause) = ended {
        tracing::debug!(%cause, "connection ended early");
    }
}
