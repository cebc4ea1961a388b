//! Function logs: what functions write to stdout and stderr and what the platform says in between.
//!
//! A [`LogStream`] belongs to one environment. It reads the sandbox's pipes, cuts what comes into lines, keeps the
//! tail of the running invocation and hands everything to the [`LogStore`], whose thread writes the files: no file
//! is touched on a request's path. **A platform line comes after everything that the function wrote before it**: the
//! pipes are emptied in the same step that adds the line, so START, output, END are in order without waiting.
//!
//! A file `<data>/logs/<group>/<stream>.log` has one event per line: time, TAB, message.
//! Deliberately absent: retention and reading logs back.

mod lines;
mod path;
mod store;
mod tail;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Instant;

use tokio::net::unix::pipe::Receiver;
use tokio::task::AbortHandle;

use lines::{Budget, LineSplitter};
pub use path::stream_path;
pub use store::LogStore;
use tail::Tail;

/// Bytes read from a pipe at a time.
const READ_BYTES: usize = 16 * 1024;

/// Reads of one pipe in one step: a function that writes without end must not keep the lock.
const READS_MAX: usize = 64;

/// The log stream of one environment.
pub struct LogStream {
    path: Arc<PathBuf>,
    store: LogStore,
    state: Mutex<State>,
}

struct State {
    sources: Vec<Source>,
    tail: Tail,
    budget: Budget,
    buffer: Box<[u8]>,
}

/// One pipe of the environment.
struct Source {
    pipe: Arc<Receiver>,
    lines: LineSplitter,
    reader: AbortHandle,
}

/// What a step of reading found.
#[derive(Debug, PartialEq, Eq)]
enum Drained {
    Empty,
    MoreMayBeThere,
    Closed,
}

impl LogStream {
    /// Names a stream; its file appears with its first line.
    pub fn new(store: &LogStore, group: &str, stream: &str) -> Arc<Self> {
        let path = Arc::new(stream_path(store.root(), group, stream));
        let state = State {
            sources: Vec::new(),
            tail: Tail::default(),
            budget: Budget::new(Instant::now()),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
        };
        Arc::new(Self { path, store: store.clone(), state: Mutex::new(state) })
    }

    /// Begins to read the pipes of a sandbox. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When one is not a pipe, or cannot be made nonblocking or registered with the runtime.
    pub fn attach(self: &Arc<Self>, pipes: [OwnedFd; 2]) -> io::Result<()> {
        for pipe in pipes {
            let pipe = Arc::new(Receiver::from_owned_fd(pipe)?);
            let mut state = self.state();
            let reader = tokio::spawn(read_pipe(Arc::downgrade(self), pipe.clone())).abort_handle();
            state.sources.push(Source { pipe, lines: LineSplitter::default(), reader });
        }
        Ok(())
    }

    /// Adds a line of the platform, after everything that the function has written so far.
    pub fn platform(&self, line: &str) {
        let mut state = self.state();
        let mut batch = Batch::default();
        state.drain_all(&mut batch);
        state.add(line.as_bytes(), &mut batch);
        self.write(&mut state, batch);
    }

    /// Adds a line of the platform that belongs to an earlier invocation than the running one: it is not in the tail.
    pub fn platform_late(&self, line: &str) {
        let mut state = self.state();
        let mut batch = Batch::default();
        batch.push(line.as_bytes());
        self.write(&mut state, batch);
    }

    /// Forgets the tail so far: the next invocation begins.
    pub fn clear_tail(&self) {
        self.state().tail = Tail::default();
    }

    /// The last 4 KiB since [`Self::clear_tail`].
    pub fn tail(&self) -> Vec<u8> {
        self.state().tail.bytes()
    }

    /// Reads what is left in the pipes, writes unfinished lines out and lets the pipes go: the sandbox is gone.
    pub fn detach(&self) {
        let mut state = self.state();
        let mut batch = Batch::default();
        state.drain_all(&mut batch);
        for source in std::mem::take(&mut state.sources) {
            source.reader.abort();
        }
        self.write(&mut state, batch);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    fn write(&self, state: &mut State, mut batch: Batch) {
        // Without pipes nothing can follow that would bring the notice later.
        let at_end = state.sources.is_empty();
        if let Some(notice) = state.budget.notice(Instant::now(), at_end) {
            batch.push(notice.as_bytes());
        }
        if !batch.text.is_empty() {
            self.store.append(&self.path, batch.text);
        }
    }

    /// One step of a pipe's own reader. `None` when the pipe is not this stream's any more.
    fn drain_pipe(&self, pipe: &Arc<Receiver>) -> Option<Drained> {
        let mut state = self.state();
        let index = state.sources.iter().position(|source| Arc::ptr_eq(&source.pipe, pipe))?;
        let mut batch = Batch::default();
        // Through the runtime, so that it learns when the pipe is empty.
        let drained = state.drain(index, |pipe, buffer| pipe.try_read(buffer), &mut batch);
        if drained == Drained::Closed {
            state.end_line(index, &mut batch);
        }
        self.write(&mut state, batch);
        Some(drained)
    }
}

impl State {
    /// Empties every pipe; lines without an end are ended, because a platform line follows. Reads the pipes
    /// themselves: the runtime may not have heard yet of what came in last.
    fn drain_all(&mut self, batch: &mut Batch) {
        for index in 0..self.sources.len() {
            self.drain(index, |pipe, buffer| Ok(rustix::io::read(pipe, buffer)?), batch);
            self.end_line(index, batch);
        }
    }

    fn drain(
        &mut self,
        index: usize,
        read: impl Fn(&Receiver, &mut [u8]) -> io::Result<usize>,
        batch: &mut Batch,
    ) -> Drained {
        let Self { sources, tail, budget, buffer } = self;
        let Source { pipe, lines, .. } = &mut sources[index];
        let now = Instant::now();
        for _ in 0..READS_MAX {
            match read(pipe, buffer) {
                Ok(0) => return Drained::Closed,
                Ok(count) => lines.feed(&buffer[..count], |line| batch.admit(line, tail, budget, now)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Drained::Empty,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Drained::Closed,
            }
        }
        Drained::MoreMayBeThere
    }

    fn end_line(&mut self, index: usize, batch: &mut Batch) {
        let Self { sources, tail, budget, .. } = self;
        let now = Instant::now();
        sources[index].lines.finish(|line| batch.admit(line, tail, budget, now));
    }

    fn add(&mut self, line: &[u8], batch: &mut Batch) {
        self.tail.push(line);
        batch.push(line);
    }
}

/// Lines on their way to the file, with their time in front.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    time: Option<String>,
}

impl Batch {
    /// A line of the function: always in the tail, in the file as far as its budget goes.
    fn admit(&mut self, line: &[u8], tail: &mut Tail, budget: &mut Budget, now: Instant) {
        tail.push(line);
        if budget.allow(now, line.len()) {
            self.push(line);
        }
    }

    fn push(&mut self, line: &[u8]) {
        let time = self.time.get_or_insert_with(|| format!("{:.3}\t", jiff::Timestamp::now()));
        self.text.extend_from_slice(time.as_bytes());
        self.text.extend_from_slice(line);
        self.text.push(b'\n');
    }
}

/// Reads one pipe until it closes or its stream lets it go.
async fn read_pipe(stream: Weak<LogStream>, pipe: Arc<Receiver>) {
    loop {
        if pipe.readable().await.is_err() {
            return;
        }
        let Some(stream) = stream.upgrade() else { return };
        match stream.drain_pipe(&pipe) {
            Some(Drained::Empty) => {}
            Some(Drained::MoreMayBeThere) => tokio::task::yield_now().await,
            Some(Drained::Closed) | None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::path::Path;

    fn messages(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| line.split_once('\t').unwrap().1.to_owned()).collect()
    }

    #[tokio::test]
    async fn platform_lines_come_after_what_was_written_before() {
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::open(dir.path()).unwrap();
        let stream = LogStream::new(&store, "/aws/lambda/f", "2026/03/09/[7]0f");
        let (out, out_end) = rustix::pipe::pipe().unwrap();
        let (err, err_end) = rustix::pipe::pipe().unwrap();
        stream.attach([out, err]).unwrap();
        stream.platform("START");
        rustix::io::write(out_end.as_fd(), b"one\ntwo without an end").unwrap();
        rustix::io::write(err_end.as_fd(), b"three\n").unwrap();
        stream.platform("END");
        assert_eq!(stream.tail(), b"START\none\ntwo without an end\nthree\nEND\n");
        stream.clear_tail();
        stream.platform_late("REPORT");
        assert_eq!(stream.tail(), b"");
        rustix::io::write(out_end.as_fd(), b"four\n").unwrap();
        let path = dir.path().join("aws/lambda/f/2026/03/09/[7]0f.log");
        for _ in 0..200 {
            if messages(&path).len() == 7 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let expected = ["START", "one", "two without an end", "three", "END", "REPORT", "four"];
        assert_eq!(messages(&path), expected);
        stream.detach();
    }
}
