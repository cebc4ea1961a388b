//! An image in plain words.

use std::fmt;

use engine::image::{Backing, Image, Mapping, PageRun, Process};
use serde::Serialize;

use super::{Counts, describe, size};

/// A whole image.
#[derive(Debug, Serialize)]
pub struct View {
    format: u32,
    counts: Counts,
    image_bytes: u64,
    page_bytes: u64,
    processes: Vec<ProcessView>,
    inodes: Vec<InodeView>,
    sharing: Sharing,
}

/// What clones of an image share.
#[derive(Debug, Serialize)]
struct Sharing {
    /// Private memory: one copy for all clones, until one of them writes to a page of it.
    copy_on_write_bytes: u64,
    /// Mappings of files: the host's page cache.
    file_bytes: u64,
    /// Shared memory and files without a name: each clone has its own.
    own_bytes: u64,
}

#[derive(Debug, Serialize)]
struct ProcessView {
    pid: i32,
    parent_pid: Option<i32>,
    name: String,
    executable: String,
    directory: String,
    user: u32,
    /// Wait status of a process that has ended and is waited for.
    ended: Option<u32>,
    threads: Vec<ThreadView>,
    mappings: Vec<MappingView>,
    descriptors: Vec<DescriptorView>,
}

#[derive(Debug, Serialize)]
struct ThreadView {
    tid: i32,
    name: String,
    waits_in: Option<String>,
}

#[derive(Debug, Serialize)]
struct MappingView {
    start: String,
    bytes: u64,
    saved_bytes: u64,
    protection: String,
    backing: String,
}

#[derive(Debug, Serialize)]
struct DescriptorView {
    number: i32,
    what: String,
}

#[derive(Debug, Serialize)]
struct InodeView {
    number: usize,
    what: String,
    bytes: u64,
    saved_bytes: u64,
}

impl View {
    /// Puts an image into words.
    pub fn of(image: &Image, image_bytes: u64) -> Self {
        let sum = |runs: &[PageRun]| -> u64 { runs.iter().map(|run| run.bytes).sum() };
        let mappings = || image.processes.iter().flat_map(|process| &process.mappings);
        let is_file = |mapping: &&Mapping| matches!(mapping.backing(), Backing::File | Backing::SharedFile);
        Self {
            format: image.format,
            counts: Counts::of(image),
            image_bytes,
            page_bytes: image.page_bytes(),
            processes: image.processes.iter().map(|process| process_view(image, process)).collect(),
            inodes: (0..image.inodes.len()).map(|index| inode_view(image, index)).collect(),
            sharing: Sharing {
                copy_on_write_bytes: image.processes.iter().map(|process| sum(&process.runs)).sum(),
                file_bytes: mappings().filter(is_file).map(|mapping| mapping.end - mapping.start).sum(),
                own_bytes: image.inodes.iter().map(|inode| sum(&inode.runs)).sum(),
            },
        }
    }
}

fn process_view(image: &Image, process: &Process) -> ProcessView {
    let parent = (process.parent as usize).checked_sub(1).and_then(|index| image.processes.get(index));
    ProcessView {
        pid: process.pid,
        parent_pid: parent.map(|parent| parent.pid),
        name: describe::name(process).to_owned(),
        executable: process.executable.clone(),
        directory: process.cwd.clone(),
        user: process.credentials.users.first().copied().unwrap_or(0),
        ended: process.ended,
        threads: process
            .threads
            .iter()
            .map(|thread| ThreadView {
                tid: thread.tid,
                name: thread.name.clone(),
                waits_in: describe::wait(thread),
            })
            .collect(),
        mappings: process.mappings.iter().map(|mapping| mapping_view(image, process, mapping)).collect(),
        descriptors: process
            .descriptors
            .iter()
            .map(|descriptor| DescriptorView {
                number: descriptor.number,
                what: describe::open_file(image, &image.open_files[descriptor.file as usize]),
            })
            .collect(),
    }
}

fn mapping_view(image: &Image, process: &Process, mapping: &Mapping) -> MappingView {
    let letter = |bit: u32, letter: char| if mapping.protection & bit != 0 { letter } else { '-' };
    let file = |kind: &str| format!("{kind} {}", image.files[mapping.file as usize].path);
    MappingView {
        start: format!("{:#x}", mapping.start),
        bytes: mapping.end - mapping.start,
        saved_bytes: saved_between(&process.runs, mapping.start, mapping.end),
        protection: [letter(1, 'r'), letter(2, 'w'), letter(4, 'x')].iter().collect(),
        backing: match mapping.backing() {
            Backing::Anonymous if mapping.name.is_empty() => "memory".to_owned(),
            Backing::Anonymous => format!("memory named {}", mapping.name),
            Backing::File => file("file"),
            Backing::SharedFile => file("shared file"),
            Backing::Inode => format!("shared memory #{}", mapping.file),
            Backing::Vdso => "vDSO".to_owned(),
        },
    }
}

fn saved_between(runs: &[PageRun], start: u64, end: u64) -> u64 {
    let inside = |run: &PageRun| (run.address + run.bytes).min(end).saturating_sub(run.address.max(start));
    runs.iter().map(inside).sum()
}

fn inode_view(image: &Image, index: usize) -> InodeView {
    let inode = &image.inodes[index];
    InodeView {
        number: index,
        what: match &inode.directory {
            Some(directory) => format!("file without a name in {directory}"),
            None if inode.name.is_empty() => "shared memory".to_owned(),
            None => format!("memory file {}", inode.name),
        },
        bytes: inode.bytes,
        saved_bytes: inode.runs.iter().map(|run| run.bytes).sum(),
    }
}

impl fmt::Display for View {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.counts)?;
        writeln!(
            out,
            "memory {}, state {}, format {}",
            size(self.page_bytes),
            size(self.image_bytes),
            self.format
        )?;
        for process in &self.processes {
            writeln!(out, "\n{process}")?;
        }
        if !self.inodes.is_empty() {
            writeln!(out, "\nshared memory and files without a name")?;
        }
        for inode in &self.inodes {
            let (bytes, saved) = (size(inode.bytes), size(inode.saved_bytes));
            writeln!(out, "  #{:<3} {bytes:>10} {saved:>10} saved  {}", inode.number, inode.what)?;
        }
        let Sharing { copy_on_write_bytes, file_bytes, own_bytes } = self.sharing;
        writeln!(out, "\nclones share")?;
        writeln!(out, "  {:>10}  private memory, until one of them writes to it", size(copy_on_write_bytes))?;
        writeln!(out, "  {:>10}  mapped files, with the host too", size(file_bytes))?;
        writeln!(
            out,
            "each clone has its own\n  {:>10}  shared memory and files without a name",
            size(own_bytes)
        )
    }
}

impl fmt::Display for ProcessView {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parent = self.parent_pid.map(|pid| format!(", child of {pid}")).unwrap_or_default();
        if let Some(status) = self.ended {
            return write!(out, "process {}{parent}: has ended with status {status:#x}", self.pid);
        }
        write!(out, "process {} {}{parent}, user {}", self.pid, self.name, self.user)?;
        write!(out, "\n  runs {} in {}", self.executable, self.directory)?;
        write!(out, "\n  threads")?;
        for thread in &self.threads {
            let waits =
                thread.waits_in.as_ref().map_or("computes".to_owned(), |call| format!("waits in {call}"));
            write!(out, "\n    {:<8} {:<16} {waits}", thread.tid, thread.name)?;
        }
        write!(out, "\n  descriptors")?;
        for descriptor in &self.descriptors {
            write!(out, "\n    {:<5} {}", descriptor.number, descriptor.what)?;
        }
        write!(out, "\n  mappings{:>27}{:>11}", "size", "saved")?;
        for MappingView { start, bytes, saved_bytes, protection, backing } in &self.mappings {
            let saved = if *saved_bytes == 0 { String::new() } else { size(*saved_bytes) };
            write!(out, "\n    {start:>16} {protection} {:>10} {saved:>10}  {backing}", size(*bytes))?;
        }
        Ok(())
    }
}
