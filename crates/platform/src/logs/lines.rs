//! Cutting a stream of bytes into lines, and how many of them one environment may write.

use std::time::{Duration, Instant};

/// The longest line; a longer one becomes several (CloudWatch: 256 KB per event).
const LINE_BYTES_MAX: usize = 256 * 1024;

/// Bytes that an environment may log at once.
const BURST_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes per second that it may log for long.
const RATE_BYTES_PER_S: u64 = 1024 * 1024;

/// Bytes that one log stream may hold in all.
const STREAM_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// What a line costs beyond its own bytes: its time and its end.
const LINE_OVERHEAD_BYTES: u64 = 26;

/// How long after the first dropped line the log says how many there were.
const NOTICE_DELAY: Duration = Duration::from_secs(1);

/// Cuts bytes into lines. Holds at most [`LINE_BYTES_MAX`] bytes.
#[derive(Debug, Default)]
pub(super) struct LineSplitter {
    unfinished: Vec<u8>,
}

impl LineSplitter {
    /// Takes bytes and gives every line that they complete, without its end.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.unfinished.len();
            let window = &bytes[..bytes.len().min(room)];
            let end = window.iter().position(|byte| *byte == b'\n');
            match end {
                Some(end) if self.unfinished.is_empty() => line(&window[..end]),
                Some(end) => {
                    self.unfinished.extend_from_slice(&window[..end]);
                    line(&self.unfinished);
                    self.unfinished.clear();
                }
                None => {
                    self.unfinished.extend_from_slice(window);
                    if self.unfinished.len() == LINE_BYTES_MAX {
                        line(&self.unfinished);
                        self.unfinished.clear();
                    }
                }
            }
            bytes = &bytes[end.map_or(window.len(), |end| end + 1)..];
        }
    }

    /// Gives the line that has no end yet, if there is one.
    pub(super) fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.unfinished.is_empty() {
            line(&self.unfinished);
            self.unfinished.clear();
        }
    }
}

/// How much one environment may still log: a token bucket and a total.
#[derive(Debug)]
pub(super) struct Budget {
    tokens_bytes: u64,
    filled: Instant,
    left_bytes: u64,
    dropped_lines: u64,
    dropped_bytes: u64,
    dropped_since: Option<Instant>,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            tokens_bytes: BURST_BYTES,
            filled: now,
            left_bytes: STREAM_BYTES_MAX,
            dropped_lines: 0,
            dropped_bytes: 0,
            dropped_since: None,
        }
    }

    /// Whether a line of this size may be written; counts it as dropped when not.
    pub(super) fn allow(&mut self, now: Instant, bytes: usize) -> bool {
        self.fill(now);
        let cost = bytes as u64 + LINE_OVERHEAD_BYTES;
        if cost <= self.tokens_bytes && cost <= self.left_bytes {
            self.tokens_bytes -= cost;
            self.left_bytes -= cost;
            return true;
        }
        self.dropped_lines += 1;
        self.dropped_bytes += bytes as u64;
        self.dropped_since.get_or_insert(now);
        false
    }

    /// The line that says what was dropped: once in a while, and at the end of the stream.
    pub(super) fn notice(&mut self, now: Instant, at_end: bool) -> Option<String> {
        let since = self.dropped_since?;
        if !at_end && now.saturating_duration_since(since) < NOTICE_DELAY {
            return None;
        }
        let notice = format!(
            "LOGS_DROPPED Reason: over the rate or size limit of one environment\tLines: {}\tBytes: {}",
            self.dropped_lines, self.dropped_bytes
        );
        (self.dropped_lines, self.dropped_bytes, self.dropped_since) = (0, 0, None);
        Some(notice)
    }

    fn fill(&mut self, now: Instant) {
        let elapsed_ms = now.saturating_duration_since(self.filled).as_millis();
        let gained = u64::try_from(elapsed_ms).unwrap_or(u64::MAX).saturating_mul(RATE_BYTES_PER_S) / 1000;
        if gained > 0 {
            self.tokens_bytes = self.tokens_bytes.saturating_add(gained).min(BURST_BYTES);
            self.filled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::default();
        for piece in pieces {
            splitter.feed(piece, |line| lines.push(line.to_vec()));
        }
        splitter.finish(|line| lines.push(line.to_vec()));
        lines
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_bytes_arrive(text in "[ab\n]{0,64}", cuts in prop::collection::vec(0usize..64, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&text.as_bytes()[from..]);
            let whole: Vec<Vec<u8>> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(split(&pieces), whole);
        }
    }

    #[test]
    fn long_lines_are_cut() {
        let long = vec![b'x'; LINE_BYTES_MAX + 10];
        let lines = split(&[&long, b"\nshort\n"]);
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [LINE_BYTES_MAX, 10, 5]);
    }

    #[test]
    fn a_flood_is_dropped_counted_and_forgiven() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let allowed = (0..200).filter(|_| budget.allow(start, 128 * 1024)).count();
        assert!((100..130).contains(&allowed), "{allowed}");
        assert_eq!(budget.notice(start, false), None);
        let later = start + NOTICE_DELAY;
        assert!(budget.notice(later, false).unwrap().contains(&format!("Lines: {}", 200 - allowed)));
        assert!(budget.allow(later, 100 * 1024));
        assert_eq!(budget.notice(later, false), None);
    }
}
