//! The last bytes of an invocation's log, for the response header `X-Amz-Log-Result`.

use model::limits::LOG_TAIL_BYTES_MAX;

/// Keeps the last [`LOG_TAIL_BYTES_MAX`] bytes.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    /// Adds a line and its end.
    pub(super) fn push(&mut self, line: &[u8]) {
        let kept = &line[line.len().saturating_sub(LOG_TAIL_BYTES_MAX)..];
        self.bytes.extend_from_slice(kept);
        self.bytes.push(b'\n');
        // Cutting at twice the size makes the cost per byte constant.
        if self.bytes.len() > 2 * LOG_TAIL_BYTES_MAX {
            self.bytes.drain(..self.bytes.len() - LOG_TAIL_BYTES_MAX);
        }
    }

    /// The tail so far.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes[self.bytes.len().saturating_sub(LOG_TAIL_BYTES_MAX)..].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end() {
        let mut tail = Tail::default();
        let mut all = Vec::new();
        for number in 0..5000 {
            let line = format!("line {number}");
            tail.push(line.as_bytes());
            all.extend_from_slice(line.as_bytes());
            all.push(b'\n');
            assert_eq!(tail.bytes(), all[all.len().saturating_sub(LOG_TAIL_BYTES_MAX)..]);
        }
        tail.push(&[b'x'; 3 * LOG_TAIL_BYTES_MAX]);
        assert_eq!(tail.bytes().len(), LOG_TAIL_BYTES_MAX);
    }
}
