//! What an install shows while it works: a spinner on a terminal; without one, a line when the work is done.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(80);

/// The progress of one runtime's install; vanishes from the terminal when dropped.
pub struct Progress {
    id: String,
    bar: ProgressBar,
}

impl Progress {
    /// Begins to show the install of the runtime `id`.
    pub fn start(id: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_prefix(id.to_owned());
        bar.enable_steady_tick(TICK);
        Self { id: id.to_owned(), bar }
    }

    /// Says what is being done now.
    pub fn step(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// Says how it ended, for good.
    pub fn finish(&self, what: &str) {
        self.bar.finish_and_clear();
        println!("{} {what}", self.id);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
