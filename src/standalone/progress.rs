//! What is shown of work that takes longer than a second: a line that grows on a terminal, a few lines elsewhere.
//!
//! Without a thread, because whoever shows progress here may be about to fork.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Work that is done sooner is not worth a word.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the line on a terminal changes.
const TICK: Duration = Duration::from_millis(100);
/// How often a line is printed where there is no terminal.
const LINE: Duration = Duration::from_secs(5);

/// The progress of one piece of work; several threads may tell of it.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    total_bytes: u64,
    start: Instant,
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    done_bytes: u64,
    shown: Option<Instant>,
}

impl Progress {
    /// Begins; `total_bytes` is zero when nobody knows.
    pub fn start(what: &'static str, total_bytes: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { what, total_bytes, start: Instant::now(), terminal, state: Mutex::default() }
    }

    /// So much more is done.
    pub fn add(&self, bytes: u64) {
        let Ok(mut state) = self.state.lock() else { return };
        state.done_bytes += bytes;
        let pause = if self.terminal { TICK } else { LINE };
        if self.start.elapsed() < PATIENCE || state.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        state.shown = Some(Instant::now());
        let done = super::show::size(state.done_bytes);
        let total = match self.total_bytes {
            0 => String::new(),
            total => format!(" of {}", super::show::size(total)),
        };
        // What cannot be shown is no reason to fail.
        let _ = match self.terminal {
            true => write!(std::io::stderr(), "\r{} {done}{total} \x1b[K", self.what),
            false => writeln!(std::io::stderr(), "{} {done}{total}", self.what),
        };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let shown = self.state.lock().is_ok_and(|state| state.shown.is_some());
        if self.terminal && shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
