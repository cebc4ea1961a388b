//! The page stream: reading memory and files in big pieces and passing on what is not zeros.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{CheckpointError, Doing, Sink};
use crate::image::PageRun;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// How much is read at once: enough to make calls cheap, little enough to stay in a processor's cache.
const BUFFER_BYTES: usize = 1 << 20;

/// The page stream of an image.
pub struct Pages<'a> {
    sink: &'a mut dyn Sink,
    offset: u64,
    buffer: Vec<u8>,
}

/// What a range of pages is read from.
pub enum Source<'a> {
    /// The memory of a process.
    Memory(&'a Memory),
    /// A file.
    File(&'a File),
}

/// The memory of a stopped process.
pub struct Memory {
    pid: i32,
    file: File,
    alone: bool,
}

impl Memory {
    /// Opens it. `alone` says that no other process of the image can have pages in common with it.
    pub fn open(pid: i32, alone: bool) -> Result<Self, CheckpointError> {
        let file = File::open(format!("/proc/{pid}/mem")).doing("open the memory", pid)?;
        Ok(Self { pid, file, alone })
    }

    /// Reads whole pages. A page that cannot be read (behind the end of a mapped file) counts as zeros.
    fn read(&self, address: u64, into: &mut [u8]) -> io::Result<()> {
        // The other call is faster, but copies each page first that processes share since a fork.
        if !self.alone && self.file.read_exact_at(into, address).is_ok() {
            return Ok(());
        }
        let mut done = 0;
        while done < into.len() {
            let at = address + done as u64;
            // It minds a mapping's protection, too.
            match linux::memory::read(self.pid, at, &mut into[done..]) {
                Ok(count) if count >= PAGE as usize => done += count - count % PAGE as usize,
                _ => {
                    self.read_page(at, &mut into[done..done + PAGE as usize])?;
                    done += PAGE as usize;
                }
            }
        }
        Ok(())
    }

    fn read_page(&self, address: u64, page: &mut [u8]) -> io::Result<()> {
        match self.file.read_exact_at(page, address) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EIO) => page.fill(0),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl<'a> Pages<'a> {
    /// Begins the stream.
    pub fn new(sink: &'a mut dyn Sink) -> Self {
        Self { sink, offset: 0, buffer: vec![0; BUFFER_BYTES] }
    }

    /// Saves a range of whole pages and notes in `runs` where it went. Pages of zeros are left out when
    /// `zeros_are_free`. `pid` is for messages.
    pub fn save(
        &mut self,
        source: &Source<'_>,
        (start, end): (u64, u64),
        zeros_are_free: bool,
        runs: &mut Vec<PageRun>,
        pid: i32,
    ) -> Result<(), CheckpointError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut address = start;
        let result = loop {
            if address >= end {
                break Ok(());
            }
            let bytes = &mut buffer[..(BUFFER_BYTES as u64).min(end - address) as usize];
            let read = match source {
                Source::Memory(memory) => memory.read(address, bytes),
                Source::File(file) => read_file(file, address, bytes),
            };
            let passed = read.doing("read the memory", pid).and_then(|()| {
                stretches(bytes, zeros_are_free, |from, to| {
                    self.pass(address + from as u64, &bytes[from..to], runs)
                })
            });
            if passed.is_err() {
                break passed;
            }
            address += bytes.len() as u64;
        };
        self.buffer = buffer;
        result
    }

    fn pass(&mut self, address: u64, bytes: &[u8], runs: &mut Vec<PageRun>) -> Result<(), CheckpointError> {
        self.sink.pages(bytes).map_err(CheckpointError::Sink)?;
        let count = bytes.len() as u64;
        match runs.last_mut() {
            Some(run) if run.address + run.bytes == address && run.offset + run.bytes == self.offset => {
                run.bytes += count;
            }
            _ => runs.push(PageRun { address, bytes: count, offset: self.offset }),
        }
        self.offset += count;
        Ok(())
    }
}

/// Reads a piece of a file; what lies behind its end counts as zeros.
fn read_file(file: &File, offset: u64, into: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    into[done..].fill(0);
    Ok(())
}

/// Calls `pass` for every stretch of pages that are to be saved.
fn stretches(
    bytes: &[u8],
    zeros_are_free: bool,
    mut pass: impl FnMut(usize, usize) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let mut from = None;
    for (index, page) in bytes.chunks(PAGE as usize).enumerate() {
        let at = index * PAGE as usize;
        if zeros_are_free && is_zero(page) {
            if let Some(from) = from.take() {
                pass(from, at)?;
            }
        } else if from.is_none() {
            from = Some(at);
        }
    }
    from.map_or(Ok(()), |from| pass(from, bytes.len()))
}

fn is_zero(page: &[u8]) -> bool {
    page.chunks(64).all(|line| line.iter().fold(0, |sum, byte| sum | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_leave_pages_of_zeros_out() {
        let page = PAGE as usize;
        let mut bytes = vec![0; 5 * page];
        bytes[page] = 1;
        bytes[3 * page - 1] = 1;
        bytes[5 * page - 1] = 1;
        let all = |zeros_are_free| {
            let mut found = Vec::new();
            stretches(&bytes, zeros_are_free, |from, to| {
                found.push((from / page, to / page));
                Ok(())
            })
            .unwrap();
            found
        };
        assert_eq!(all(true), [(1, 3), (4, 5)]);
        assert_eq!(all(false), [(0, 5)]);
    }
}
