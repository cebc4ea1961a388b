//! A runtime for tests: speaks the Runtime API as `awslambdaric` does, by raw HTTP over blocking sockets.
//!
//! The variable `DOES` says how it starts and how its hooks behave; each event says what the handler does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use host::protocol::Exit;
use serde_json::Value;

/// The streams of a runtime, for the host to cut when it kills.
pub type Kept = Arc<Mutex<Vec<TcpStream>>>;

/// What a runtime sees of its sandbox.
pub struct World {
    pub port: u16,
    pub env: BTreeMap<String, String>,
    pub output: [OwnedFd; 2],
    pub gate: Arc<Gate>,
    pub kept: Kept,
}

/// Holds a frozen runtime.
#[derive(Default)]
pub struct Gate {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    pub fn set(&self, frozen: bool) -> host::protocol::Answer {
        self.state.lock().unwrap().0 = frozen;
        self.changed.notify_all();
        host::protocol::Answer::Done
    }

    pub fn close(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    fn closed(&self) -> bool {
        self.state.lock().unwrap().1
    }

    fn pass(&self) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |(frozen, closed)| *frozen && !*closed));
    }
}

/// One answer of the Runtime API.
struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl World {
    fn does(&self, what: &str) -> bool {
        self.env.get("DOES").map(String::as_str) == Some(what)
    }

    fn print(&self, line: &str) {
        let _ = rustix::io::write(&self.output[0], format!("{line}\n").as_bytes());
    }

    fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        self.kept.lock().unwrap().push(stream.try_clone().ok()?);
        Some(stream)
    }

    fn snap_start(&self) -> bool {
        self.env["AWS_LAMBDA_INITIALIZATION_TYPE"] == "snap-start"
    }
}

/// Init, as on a normal start. `None` when it was killed.
pub fn run(world: &World) -> Option<Exit> {
    world.print("init");
    let mut stream = world.connect()?;
    if world.does("init error") {
        let body = r#"{"errorMessage":"no module","errorType":"Runtime.ImportModuleError","requestId":"","stackTrace":[]}"#;
        post(&mut stream, "runtime/init/error", body, "Runtime.ImportModuleError")?;
        return Some(Exit::Status(1));
    }
    if world.does("init exit") {
        return Some(Exit::Status(3));
    }
    if world.does("init hang") {
        std::thread::sleep(Duration::from_secs(5));
    }
    if world.snap_start() && !world.does("wait in next") {
        if world.does("before hook error") {
            let body = r#"{"errorMessage":"before","errorType":"RuntimeError"}"#;
            post(&mut stream, "runtime/init/error", body, "Runtime.BeforeSnapshotError")?;
            return Some(Exit::Status(64));
        }
        if let Some(exit) = take_warm_up_events(world)? {
            return Some(exit);
        }
        world.print("before hook");
        if world.does("late before hook error") {
            let body = r#"{"errorMessage":"late","errorType":"RuntimeError"}"#;
            post(&mut stream, "runtime/init/error", body, "Runtime.BeforeSnapshotError")?;
            return Some(Exit::Status(64));
        }
        // Of a checkpointed runtime nothing runs on.
        get(&mut stream, "runtime/restore/next")?;
        return None;
    }
    serve(world, stream)
}

/// As a shim in front of the client does, unless `DOES` says that there is none.
fn take_warm_up_events(world: &World) -> Option<Option<Exit>> {
    let declared = world.env.get("REKINDLE_WARM_UP_EVENTS").map_or(0, |count| count.parse().unwrap());
    let events: u32 = if world.does("without a shim") { 0 } else { declared };
    for _ in 0..events {
        let mut stream = world.connect()?;
        let event = get(&mut stream, "runtime/invocation/next")?;
        world.print(&format!("context {}", event.headers["lambda-runtime-client-context"]));
        if let Some(exit) = handle(world, &mut stream, event)? {
            return Some(Some(exit));
        }
        // So that nothing of it is in the snapshot.
        assert_eq!(stream.read(&mut [0]).ok()?, 0, "the server closes the connection");
    }
    Some(None)
}

/// What a clone does after a restore: it finds the answer to its pending request on the new connection.
pub fn resume(world: &World, mut stream: TcpStream, waits_in_next: bool) -> Option<Exit> {
    let reply = read_reply(&mut stream)?;
    assert_eq!(reply.status, 200);
    if waits_in_next {
        handle(world, &mut stream, reply)?.map_or_else(|| serve(world, stream), Some)
    } else {
        assert!(reply.body.is_empty());
        world.print("after hook");
        if world.does("after hook error") {
            let body = r#"{"errorMessage":"after","errorType":"RuntimeError"}"#;
            post(&mut stream, "runtime/restore/error", body, "Runtime.AfterRestoreError")?;
            return Some(Exit::Status(65));
        }
        if world.does("after hook hang") {
            std::thread::sleep(Duration::from_secs(5));
        }
        // The real client uses another connection from here on.
        serve(world, world.connect()?)
    }
}

fn serve(world: &World, mut stream: TcpStream) -> Option<Exit> {
    loop {
        let event = get(&mut stream, "runtime/invocation/next")?;
        world.gate.pass();
        if event.status != 200 || world.gate.closed() {
            return None;
        }
        if let Some(exit) = handle(world, &mut stream, event)? {
            return Some(exit);
        }
        if world.does("wait in next") {
            // Before a snapshot the server closes it.
            stream = world.connect()?;
        }
    }
}

/// The inner `Some` is how the process ends; the outer `None` that it was killed.
fn handle(world: &World, stream: &mut TcpStream, event: Reply) -> Option<Option<Exit>> {
    let id = event.headers["lambda-runtime-aws-request-id"].clone();
    let body: Value = serde_json::from_slice(&event.body).unwrap_or_default();
    world.print(&format!("handling {}", body["do"].as_str().unwrap_or("nothing")));
    match body["do"].as_str() {
        Some("exit") => return Some(Some(Exit::Status(body["status"].as_i64().unwrap_or(0) as i32))),
        Some("hang") => loop {
            std::thread::sleep(Duration::from_millis(10));
            if world.gate.closed() {
                return None;
            }
        },
        Some("raise") => {
            let document = r#"{"errorMessage":"boom","errorType":"ValueError"}"#;
            post(stream, &format!("runtime/invocation/{id}/error"), document, "Runtime.ValueError")?;
        }
        Some("linger") => {
            post(stream, &format!("runtime/invocation/{id}/response"), "{}", "")?;
            std::thread::sleep(Duration::from_millis(500));
        }
        Some("too much") => {
            let reply = post(stream, &format!("runtime/invocation/{id}/response"), &"x".repeat(7 << 20), "")?;
            assert_eq!(reply.status, 413);
        }
        Some("answer twice") => {
            let path = format!("runtime/invocation/{id}/response");
            let wrong = post(stream, "runtime/invocation/other/response", "1", "")?;
            let first = post(stream, &path, "2", "")?;
            let second = post(stream, &path, "3", "")?;
            world.print(&format!("statuses {} {} {}", wrong.status, first.status, second.status));
        }
        Some("credentials") => {
            let reply = request(
                stream,
                "GET",
                "/2021-04-23/credentials",
                &[("Authorization", &world.env["AWS_CONTAINER_AUTHORIZATION_TOKEN"])],
                "",
            )?;
            let text = String::from_utf8(reply.body).unwrap();
            post(stream, &format!("runtime/invocation/{id}/response"), &text, "")?;
        }
        _ => {
            if let Some(ms) = body["sleep_ms"].as_u64() {
                std::thread::sleep(Duration::from_millis(ms));
            }
            let text = String::from_utf8(event.body).unwrap();
            let reply = post(stream, &format!("runtime/invocation/{id}/response"), &text, "")?;
            assert_eq!(reply.status, 202);
        }
    }
    Some(None)
}

fn get(stream: &mut TcpStream, path: &str) -> Option<Reply> {
    request(stream, "GET", &format!("/2018-06-01/{path}"), &[], "")
}

fn post(stream: &mut TcpStream, path: &str, body: &str, error_type: &str) -> Option<Reply> {
    let mut headers = vec![("Content-Type", "application/json")];
    if !error_type.is_empty() {
        headers.push(("Lambda-Runtime-Function-Error-Type", error_type));
    }
    request(stream, "POST", &format!("/2018-06-01/{path}"), &headers, body)
}

fn request(
    stream: &mut TcpStream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Reply> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: runtime\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if method == "POST" {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body);
    stream.write_all(text.as_bytes()).ok()?;
    read_reply(stream)
}

/// `None` when the connection broke: the sandbox was killed.
fn read_reply(stream: &mut TcpStream) -> Option<Reply> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length: &String| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Reply { status, headers, body })
}
