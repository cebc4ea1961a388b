//! The Runtime API over HTTP: what a runtime client in a sandbox talks to.
//!
//! hyper directly, without a framework: this is on the path of every invocation, and there are ten routes. Each
//! sandbox has its own listener, so the connection says which environment calls; the rules are those of
//! `platform::session`. Routes and answers follow the Runtime API reference, version 2018-06-01.
//!
//! A restored runtime waits for the answer to a request that was sent before its snapshot was made. Its connection is
//! new, so [`Resumed`] makes the server read that request once more.
//!
//! Deliberately absent: the extensions, logs and telemetry APIs (404).

use std::io;
use std::net::TcpListener as StdListener;
use std::net::TcpStream as StdStream;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use platform::session::{Frontend, NextEvent, PAYLOAD_BYTES_MAX, PendingRoute, Refusal, Session};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Connections of one environment at a time. Clients use one or two.
const CONNECTIONS_MAX: usize = 64;

/// Headers of one request.
const HEADERS_MAX: usize = 64;

/// Bytes of one request's head: the cause of an X-Ray error may be just under 1 MiB
/// (`Lambda-Runtime-Function-XRay-Error-Cause`).
const HEAD_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;

/// How long a connection may be between two requests, or take for a request's head. Longer than any invocation (900 s):
/// clients keep the connection on which they got their event for the answer.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(960);

/// How much of a body over the limit is read and thrown away, so that the client gets to read the refusal.
const DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Pause after a failed `accept`, such as when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Answer = Response<Full<Bytes>>;

/// Serves sessions over HTTP.
#[derive(Debug, Clone, Copy, Default)]
pub struct RuntimeApi;

impl Frontend for RuntimeApi {
    fn listen(&self, session: Arc<Session>, listener: OwnedFd) {
        let listener = StdListener::from(listener);
        let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
        match listener {
            Ok(listener) => drop(tokio::spawn(accept(session, listener))),
            Err(error) => tracing::error!(%error, "listen for a sandbox's runtime"),
        }
    }

    fn resume(&self, session: Arc<Session>, connection: OwnedFd, pending: PendingRoute) {
        let stream = StdStream::from(connection);
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        match stream {
            Ok(stream) => {
                tokio::spawn(async move {
                    let serving = serve(session.clone(), stream, Some(pending));
                    tokio::select! {
                        () = serving => {}
                        () = session.ended() => {}
                    }
                });
            }
            Err(error) => tracing::error!(%error, "continue the connection of a restored runtime"),
        }
    }
}

/// Accepts until the session ends; its connections end with it.
async fn accept(session: Arc<Session>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = session.ended() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(session.clone(), stream, None))),
                Err(error) => {
                    tracing::warn!(%error, "accept a runtime's connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn serve(session: Arc<Session>, stream: TcpStream, resumed: Option<PendingRoute>) {
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    // The port is what a checkpoint needs to know; a socket without a peer is about to fail anyway.
    let port = stream.peer_addr().map_or(0, |peer| peer.port());
    let service = service_fn(move |request| {
        let session = session.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(&session, port, request).await) }
    });
    let stream = TokioIo::new(Resumed { unread: resumed.map_or(&[], pending_request), stream });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .auto_date_header(false)
        .serve_connection(stream, service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a runtime's connection broke off");
    }
}

/// A stream on which a request is read that was sent before the stream existed.
struct Resumed {
    unread: &'static [u8],
    stream: TcpStream,
}

fn pending_request(pending: PendingRoute) -> &'static [u8] {
    match pending {
        PendingRoute::RestoreNext => {
            b"GET /2018-06-01/runtime/restore/next HTTP/1.1\r\nHost: 127.0.0.1:9001\r\n\r\n"
        }
        PendingRoute::InvocationNext => {
            b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: 127.0.0.1:9001\r\n\r\n"
        }
    }
}

impl AsyncRead for Resumed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let (now, later) = self.unread.split_at(self.unread.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.unread = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Resumed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

async fn answer(session: &Session, port: u16, request: Request<Incoming>) -> Answer {
    let path = request.uri().path();
    let is_post = request.method() == Method::POST;
    let outcome = match (request.method(), path.strip_prefix("/2018-06-01/")) {
        (&Method::GET, Some("runtime/invocation/next")) => session.next(port).await.map(event),
        (&Method::GET, Some("runtime/restore/next")) => {
            session.restore_next(port).await.map(|()| plain(StatusCode::OK, Bytes::new()))
        }
        (&Method::GET, Some("ping")) => Ok(plain(StatusCode::OK, Bytes::from_static(b"pong"))),
        (&Method::POST, Some(route)) => match invocation_of(route) {
            Some((id, "response")) => {
                let id = id.to_owned();
                respond(session, &id, request).await
            }
            Some((id, "error")) => {
                let id = id.to_owned();
                fail(session, &id, request).await
            }
            _ if route == "runtime/init/error" => init_error(session, request).await,
            _ if route == "runtime/restore/error" => restore_error(session, request).await,
            _ => Err(Refusal::NoSuchRoute),
        },
        (&Method::GET, None) if path == "/2021-04-23/credentials" => {
            Ok(credentials(session, request.headers()))
        }
        _ => Err(Refusal::NoSuchRoute),
    };
    let mut answer = outcome.unwrap_or_else(|refusal| refused(&refusal));
    if is_post && session.is_before_snapshot() {
        // The answer to a warm-up event may be the last use of the connection before the snapshot.
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Splits `runtime/invocation/<id>/<what>`.
fn invocation_of(route: &str) -> Option<(&str, &str)> {
    route.strip_prefix("runtime/invocation/")?.split_once('/')
}

async fn respond(session: &Session, id: &str, request: Request<Incoming>) -> Result<Answer, Refusal> {
    expect(session, id, request.headers())?;
    match text(request.headers(), "lambda-runtime-function-response-mode") {
        None | Some("streaming") => {}
        Some(_) => return Err(Refusal::InvalidResponseMode),
    }
    let sent = match read(session, request.into_body()).await {
        Err(Refusal::TooLarge) => return Err(session.respond_too_large(id)),
        other => other?,
    };
    // A stream that broke off in the middle says so in its trailers.
    match sent.trailers.as_ref().and_then(|trailers| text(trailers, "lambda-runtime-function-error-type")) {
        Some(error_type) => {
            let trailers = sent.trailers.as_ref();
            let document = trailers.and_then(|trailers| text(trailers, "lambda-runtime-function-error-body"));
            let document = document.and_then(|document| BASE64.decode(document).ok()).unwrap_or_default();
            session.fail(id, document.into(), Some(error_type))?;
        }
        None => session.respond(id, sent.bytes)?,
    }
    Ok(accepted())
}

async fn fail(session: &Session, id: &str, request: Request<Incoming>) -> Result<Answer, Refusal> {
    expect(session, id, request.headers())?;
    let error_type = error_type(request.headers());
    let sent = read(session, request.into_body()).await?;
    session.fail(id, sent.bytes, error_type.as_deref())?;
    Ok(accepted())
}

async fn init_error(session: &Session, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let error_type = error_type(request.headers());
    let sent = read(session, request.into_body()).await?;
    session.init_error(sent.bytes, error_type.as_deref())?;
    Ok(accepted())
}

async fn restore_error(session: &Session, request: Request<Incoming>) -> Result<Answer, Refusal> {
    if !session.is_snap_start() {
        return Err(Refusal::NoSuchRoute);
    }
    let error_type = error_type(request.headers());
    let sent = read(session, request.into_body()).await?;
    session.restore_error(sent.bytes, error_type.as_deref())?;
    Ok(accepted())
}

/// The credentials endpoint of SnapStart environments (the SDKs' container credentials provider).
fn credentials(session: &Session, headers: &HeaderMap) -> Answer {
    let found = text(headers, "authorization").and_then(|token| session.credentials(token));
    let Some(credentials) = found else { return refused(&Refusal::NoSuchRoute) };
    let document = json!({
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key,
        "Token": credentials.session_token,
        "Expiration": format!("{:.0}", credentials.expires),
    });
    json_answer(StatusCode::OK, &document)
}

fn expect(session: &Session, id: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    session.expects(id, text(headers, "lambda-runtime-invocation-id"))
}

fn error_type(headers: &HeaderMap) -> Option<String> {
    text(headers, "lambda-runtime-function-error-type").map(str::to_owned)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What a runtime sent.
struct Sent {
    bytes: Bytes,
    trailers: Option<HeaderMap>,
}

/// Reads a body of at most [`PAYLOAD_BYTES_MAX`]; takes memory for what arrives, not for what is announced.
async fn read(session: &Session, mut body: Incoming) -> Result<Sent, Refusal> {
    let _room = session.room_for_body().await;
    let mut bytes = BytesMut::new();
    let mut trailers = None;
    let announced = body.size_hint().exact();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::Truncated)?;
        match frame.into_data() {
            // The usual case: one piece, taken as it is.
            Ok(data) if bytes.is_empty() && announced == Some(data.len() as u64) => {
                return if data.len() > PAYLOAD_BYTES_MAX {
                    Err(Refusal::TooLarge)
                } else {
                    Ok(Sent { bytes: data, trailers })
                };
            }
            Ok(data) if bytes.len() + data.len() > PAYLOAD_BYTES_MAX => {
                drain(body).await;
                return Err(Refusal::TooLarge);
            }
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok(Sent { bytes: bytes.freeze(), trailers })
}

async fn drain(mut body: Incoming) {
    let mut drained_bytes = 0;
    while drained_bytes < DRAIN_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        drained_bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}

fn event(event: NextEvent) -> Answer {
    let mut answer = plain(StatusCode::OK, event.payload);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let deadline_ms = event.deadline_ms.to_string();
    let fields = [
        ("lambda-runtime-aws-request-id", Some(event.request_id)),
        ("lambda-runtime-deadline-ms", Some(deadline_ms)),
        ("lambda-runtime-invoked-function-arn", Some(event.invoked_arn)),
        ("lambda-runtime-trace-id", Some(event.trace_id)),
        ("lambda-runtime-invocation-id", Some(event.invocation_id)),
        ("lambda-runtime-client-context", event.client_context),
    ];
    for (name, value) in fields {
        // Absent values are absent headers; a value that no header can hold (a line break in a client context) too.
        if let Some(value) = value
            && let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value))
        {
            headers.insert(name, value);
        }
    }
    answer
}

fn accepted() -> Answer {
    let mut answer = plain(StatusCode::ACCEPTED, Bytes::from_static(b"{\"status\":\"OK\"}\n"));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn refused(refusal: &Refusal) -> Answer {
    let status = match refusal {
        Refusal::InvalidRequestId
        | Refusal::InvalidInvocationId
        | Refusal::InvalidResponseMode
        | Refusal::Truncated => StatusCode::BAD_REQUEST,
        Refusal::InvalidStateTransition { .. } => StatusCode::FORBIDDEN,
        Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::Ended => StatusCode::INTERNAL_SERVER_ERROR,
        Refusal::NoSuchRoute => {
            return plain(StatusCode::NOT_FOUND, Bytes::from_static(b"404 page not found\n"));
        }
    };
    json_answer(status, &json!({ "errorMessage": refusal.to_string(), "errorType": refusal.error_type() }))
}

fn json_answer(status: StatusCode, document: &serde_json::Value) -> Answer {
    let mut answer = plain(status, document.to_string().into());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn plain(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer
}
