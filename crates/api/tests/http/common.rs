//! A server on a loopback port, with a runner that needs no sandboxes, and a client that speaks plain HTTP/1.1.
//!
//! The runner answers what its function's handler says: `fakes.echo` gives the event back, `fakes.error` an error
//! document, `fakes.after_restore` fails in the after-restore hook; `fakes.bad_init` cannot be published. Snapshots
//! wait for [`Fake::allow_snapshots`].

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use api::auth::Auth;
use futures_util::future::BoxFuture;
use host::protocol::{Failure, SnapshotFacts, SnapshotId};
use model::names::Home;
use platform::code::CodeStore;
use platform::control::{Control, InvokeFailure, PublishFailure, Runner, Setup};
use platform::invocation::{Invocation, Outcome};
use platform::runtimes::Runtimes;
use platform::version::VersionSpec;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// Runs functions by looking at their handlers.
pub struct Fake {
    pub snapshots: Mutex<BTreeSet<String>>,
    pub invocations: Mutex<Vec<(Arc<VersionSpec>, Invocation)>>,
    allowed: watch::Sender<bool>,
}

impl Fake {
    pub fn new(allowed: bool) -> Arc<Self> {
        Arc::new(Self {
            snapshots: Mutex::default(),
            invocations: Mutex::default(),
            allowed: watch::Sender::new(allowed),
        })
    }

    /// Lets snapshots be finished.
    pub fn allow_snapshots(&self) {
        self.allowed.send_replace(true);
    }

    pub fn snapshots(&self) -> Vec<String> {
        self.snapshots.lock().expect("no panic").iter().cloned().collect()
    }
}

impl Runner for Fake {
    fn invoke(
        &self,
        spec: Arc<VersionSpec>,
        invocation: Invocation,
    ) -> BoxFuture<'_, Result<Outcome, InvokeFailure>> {
        let log = |text: &str| match invocation.log_tail {
            true => text.as_bytes().to_vec(),
            false => Vec::new(),
        };
        let answer = match spec.handler.as_str() {
            "fakes.error" => Ok(Outcome {
                payload: r#"{"errorMessage":"boom","errorType":"ValueError"}"#.into(),
                function_error: Some("Unhandled".into()),
                log_tail: log("END\n"),
            }),
            "fakes.after_restore" => {
                Err(InvokeFailure::AfterRestoreHook { message: "the hook failed".into() })
            }
            _ => Ok(Outcome {
                payload: invocation.payload.clone(),
                function_error: None,
                log_tail: log("START\nREPORT\n"),
            }),
        };
        self.invocations.lock().expect("no panic").push((spec, invocation));
        Box::pin(std::future::ready(answer))
    }

    fn publish(
        &self,
        spec: Arc<VersionSpec>,
        snapshot: SnapshotId,
    ) -> BoxFuture<'_, Result<SnapshotFacts, PublishFailure>> {
        Box::pin(async move {
            assert_eq!(spec.snapshot, None, "a snapshot is built by a normal init");
            let mut allowed = self.allowed.subscribe();
            allowed.wait_for(|allowed| *allowed).await.expect("the runner lives");
            if spec.handler == "fakes.bad_init" {
                return Err(PublishFailure::InitError { message: "No module named 'fakes'".into() });
            }
            self.snapshots.lock().expect("no panic").insert(snapshot.0);
            Ok(SnapshotFacts { image_bytes: 1 << 20, ..SnapshotFacts::default() })
        })
    }

    fn retire(&self, _function: &str, _version: Option<&str>) {}

    fn delete_snapshot(&self, snapshot: SnapshotId) -> BoxFuture<'_, Result<(), Failure>> {
        self.snapshots.lock().expect("no panic").remove(&snapshot.0);
        Box::pin(std::future::ready(Ok(())))
    }

    fn retain_snapshots(&self, snapshots: Vec<SnapshotId>) -> BoxFuture<'_, Result<(), Failure>> {
        let keep: BTreeSet<String> = snapshots.into_iter().map(|snapshot| snapshot.0).collect();
        self.snapshots.lock().expect("no panic").retain(|snapshot| keep.contains(snapshot));
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A running server. Dropping it ends it as a crash would: nothing is finished.
pub struct Server {
    pub address: SocketAddr,
    pub fake: Arc<Fake>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Starts a server over this data directory.
    pub async fn start(data: &Path, auth: Auth, fake: Arc<Fake>) -> Self {
        install_runtimes(data);
        let meta = meta::Sqlite::open(&data.join("meta.db")).await.expect("a database");
        let control = Control::new(Setup {
            home: Home::default(),
            meta: Arc::new(meta),
            code: CodeStore::open(data).expect("a directory"),
            runtimes: Runtimes::open(data.join("runtimes")),
            runner: fake.clone(),
        });
        control.recover().await.expect("readable");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let serve = api::server::serve(listener, control, auth, async move {
            let _ = stopped.await;
        });
        Self { address, fake, stop: Some(stop), task: tokio::spawn(serve) }
    }

    /// Ends it in an orderly way.
    pub async fn stop(mut self) {
        let _ = self.stop.take().expect("not stopped").send(());
        (&mut self.task).await.expect("no panic").expect("served");
    }

    /// Sends a request and reads the answer.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut stream = TcpStream::connect(self.address).await.expect("listening");
        stream.write_all(head.as_bytes()).await.expect("connected");
        stream.write_all(body).await.expect("the server reads what it refuses");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("connected");
        Answer::parse(&answer)
    }

    /// Sends JSON to a path below `/2015-03-31/functions`.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, &format!("/2015-03-31/functions{path}"), &[], body.as_bytes()).await
    }

    /// Asks for a configuration until it is no longer Pending or InProgress.
    pub async fn settled(&self, path: &str) -> Value {
        for _ in 0..500 {
            let configuration = self.call("GET", &format!("{path}/configuration"), Value::Null).await.json();
            let busy =
                configuration["State"] == "Pending" || configuration["LastUpdateStatus"] == "InProgress";
            if !busy {
                return configuration;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{path} does not settle");
    }

    /// Creates a function and waits for it.
    pub async fn create(&self, name: &str, change: Value) -> Value {
        let created = self.call("POST", "", function(name, change)).await;
        assert_eq!(created.status, 201, "{}", created.text());
        self.settled(&format!("/{name}")).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a server answered.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
        let head = std::str::from_utf8(&bytes[..end]).expect("text");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let headers = lines.filter_map(|line| line.split_once(": "));
        Self {
            status: status.parse().expect("a number"),
            headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
            body: bytes[end + 4..].to_vec(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    /// Checks status, exception and text of an error.
    #[track_caller]
    pub fn check_error(&self, status: u16, exception: &str, text: &str) {
        assert_eq!(
            (self.status, self.header("x-amzn-errortype")),
            (status, Some(exception)),
            "{}",
            self.text()
        );
        let document = self.json();
        let message = document.get("message").or(document.get("Message")).and_then(Value::as_str);
        assert!(message.is_some_and(|message| message.contains(text)), "got {document}, want `{text}`");
        assert!(self.header("x-amzn-requestid").is_some());
    }
}

/// A CreateFunction document.
pub fn function(name: &str, change: Value) -> Value {
    let mut document = serde_json::json!({
        "FunctionName": name,
        "Runtime": "python3.12",
        "Role": "arn:aws:iam::000000000000:role/any",
        "Handler": "fakes.echo",
        "Code": { "ZipFile": base64(&zip(name)) },
    });
    for (key, value) in change.as_object().into_iter().flatten() {
        document[key] = value.clone();
    }
    document
}

/// A package that differs by its text.
pub fn zip(text: &str) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    writer.start_file("fakes.py", zip::write::SimpleFileOptions::default()).expect("in memory");
    writer.write_all(text.as_bytes()).expect("in memory");
    writer.finish().expect("in memory").into_inner()
}

pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

fn install_runtimes(data: &Path) {
    for (id, snap_start) in [("python3.12", true), ("python3.13", true), ("nodejs22.x", false)] {
        let dir = data.join("runtimes").join(id);
        std::fs::create_dir_all(&dir).expect("writable");
        let document = serde_json::json!({
            "id": id, "version": "1", "language": "python", "argv": ["/x"], "snap_start": snap_start,
        });
        std::fs::write(dir.join("runtime.json"), document.to_string()).expect("writable");
    }
}
