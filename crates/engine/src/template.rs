//! Templates: one frozen process per snapshot, of which every restore is a fork.
//!
//! [`load`] makes one: it forks, lets the child become the interpreter, has it map the snapshot, fills the pages from
//! outside and has it finish. [`Template::clone_into`] sends the descriptors of a ready sandbox and waits until the
//! clone is released in it. A template that reports a failure of its own is not trusted again.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use linux::channel::Channel;
use linux::inject::{self, Block};
use rustix::event::{PollFd, PollFlags, poll};

use crate::image::{Backing, Image};
use crate::ops::{Context, DESCRIPTOR_SLOTS, DONE, Op, Report, Reporter, Request, SLOTS};
use crate::plan::area::{CODE_BYTES, WRITE_SET_CALLS, WRITE_SET_RANGES, WRITE_SET_RANGES_PER_CALL};
use crate::plan::stash::Load;
use crate::plan::{HostFacts, Plan, Privilege, WRITE_SET_SLOT};

/// The interpreter.
static INTERPRETER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inject.bin"));

/// How long one list may take. Mapping and collapsing a large heap takes seconds.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the end of a template may take: that of much memory takes a while.
const END_MAX_S: i64 = 5;
/// How long a clone may take until its release; the reseeding functions of the snapshot run within it.
const CLONE_TIMEOUT: Duration = Duration::from_secs(5);

const PAGE_BYTES: usize = 4096;

/// Why a template or a clone was not made.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A call of the loader failed.
    #[error("cannot {doing} the template: {source}")]
    Call {
        /// The attempt.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// An operation had a result that the plan does not expect.
    #[error("operation {index} of the plan gave {}: {operation}", result_text(*.result))]
    Surprise {
        /// Its number in the plan.
        index: u32,
        /// The operation, as the plan prints it.
        operation: String,
        /// Its result.
        result: i64,
        /// Whether it happened in the template itself, which is then of no more use.
        in_template: bool,
    },
    /// No report came in time.
    #[error("the template has not reported within {0:?}")]
    Timeout(Duration),
    /// The template has died.
    #[error("the template has died")]
    Died,
    /// This host cannot restore the image.
    #[error("this host cannot restore the snapshot: {0}")]
    Host(String),
    /// The pages could not be had.
    #[error("cannot read the snapshot's pages: {0}")]
    Pages(String),
}

fn result_text(result: i64) -> String {
    if (-4095..0).contains(&result) {
        io::Error::from_raw_os_error(-result as i32).to_string()
    } else {
        format!("{result:#x}")
    }
}

/// What a caller's page source is given: writes bytes of the page stream, from an offset on, into the template.
pub type Fill<'a> = dyn Fn(u64, &[u8]) -> io::Result<()> + Sync + 'a;

/// Makes a template by `plan`. `control` is a fresh pair: this side's end and the template's.
/// `namespaces` is a pidfd of the sandbox whose files the template sees. `pages` is called once and passes every byte
/// of the page stream to the function that it is given. Gives the process ID.
///
/// The calling process must have one thread, and the template becomes a child of *its parent*.
///
/// # Errors
/// [`TemplateError`]; there is no template then, but the parent has an ended child to reap.
pub fn load(
    plan: &Plan,
    control: (&Channel, BorrowedFd<'_>),
    namespaces: BorrowedFd<'_>,
    pages: impl FnOnce(&Fill<'_>) -> Result<(), String>,
) -> Result<i32, TemplateError> {
    let content = block_content(plan);
    let block = Block {
        start: plan.area.start,
        content: &content,
        code_bytes: CODE_BYTES,
        stack_end: plan.area.stack_end(),
        argument: plan.area.context(),
        control: plan.control,
        namespaces,
        confine: plan.confine,
    };
    let pid =
        inject::spawn(&block, control.1).map_err(|source| TemplateError::Call { doing: "start", source })?;
    let made = fill(plan, control.0, pid, pages);
    if made.is_err() {
        kill(pid);
    }
    made.map(|()| pid)
}

fn fill(
    plan: &Plan,
    control: &Channel,
    pid: i32,
    pages: impl FnOnce(&Fill<'_>) -> Result<(), String>,
) -> Result<(), TemplateError> {
    let shown = |index: usize| plan.show(index);
    let mut conversation = Conversation { control, shown: &shown, sequence: 0 };
    conversation.run(&plan.map, &[], LOAD_TIMEOUT)?;
    let write = |offset: u64, bytes: &[u8]| write_pages(&plan.loads, pid, offset, bytes);
    pages(&write).map_err(TemplateError::Pages)?;
    conversation.run(&plan.finish, &[], LOAD_TIMEOUT)
}

/// Kills what was to become a template and waits until it has ended, for whoever reaps it.
fn kill(pid: i32) {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return };
    let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
    // It may have died by itself.
    let _ = rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL);
    let timeout = rustix::event::Timespec { tv_sec: END_MAX_S, tv_nsec: 0 };
    let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout));
}

/// Writes a piece of the page stream to the addresses that it belongs to.
fn write_pages(loads: &[Load], pid: i32, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let end = offset + bytes.len() as u64;
    let first = loads.partition_point(|load| load.offset + load.bytes <= offset);
    for load in loads[first..].iter().take_while(|load| load.offset < end) {
        let (from, to) = (load.offset.max(offset), (load.offset + load.bytes).min(end));
        let piece = &bytes[(from - offset) as usize..(to - offset) as usize];
        linux::memory::write(pid, load.address + (from - load.offset), piece)?;
    }
    Ok(())
}

/// The block as it lies in memory from the area's start: code, context, room for stacks, data, operations.
fn block_content(plan: &Plan) -> Vec<u8> {
    let area = &plan.area;
    let ops = area.ops(plan.data.len());
    let context = Context { control: plan.control as u64, ops, sequence: 0, slots: [0; SLOTS] };
    let mut content = vec![0; (ops - area.start) as usize];
    content[..INTERPRETER.len()].copy_from_slice(INTERPRETER);
    let mut put = |address: u64, bytes: &[u8]| {
        let start = (address - area.start) as usize;
        content[start..start + bytes.len()].copy_from_slice(bytes);
    };
    put(area.context(), linux::inject::bytes_of(&context));
    put(area.data(), &plan.data);
    for op in &plan.ops {
        content.extend_from_slice(linux::inject::bytes_of(op));
    }
    content
}

/// A template that stands ready, as its owner keeps it.
#[derive(Debug)]
pub struct Template {
    control: Channel,
    operations: Vec<String>,
    clone: Range<u32>,
    sequence: u64,
    pid: i32,
    write_set: u64,
    /// Ranges that each populating call takes, from [`WRITE_SET_SLOT`] on.
    populated: [u64; WRITE_SET_CALLS as usize],
}

impl Template {
    /// Takes over the control channel of a template that [`load`] has made. `clone` is the plan's list, `operations`
    /// the whole plan as it prints itself, `write_set` where the plan's area keeps that.
    #[must_use]
    pub fn new(
        control: Channel,
        clone: Range<u32>,
        operations: Vec<String>,
        pid: i32,
        write_set: u64,
    ) -> Self {
        // The loader's conversation ended far below.
        Self {
            control,
            operations,
            clone,
            sequence: 1000,
            pid,
            write_set,
            populated: [0; WRITE_SET_CALLS as usize],
        }
    }

    /// Has every later clone copy these pages ahead: what an earlier one wrote to by the end of its first request.
    ///
    /// # Errors
    /// When the template's memory cannot be written.
    pub fn populate(&mut self, ranges: &[(u64, u64)]) -> io::Result<()> {
        let ranges = &ranges[..ranges.len().min(WRITE_SET_RANGES as usize)];
        let words = ranges.iter().flat_map(|(start, end)| [*start, end - start]);
        let bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
        linux::memory::write(self.pid, self.write_set, &bytes)?;
        let per_call = WRITE_SET_RANGES_PER_CALL as usize;
        for (call, count) in self.populated.iter_mut().enumerate() {
            *count = ranges.len().saturating_sub(call * per_call).min(per_call) as u64;
        }
        Ok(())
    }

    /// Has every later clone be born with these pages of files in its page tables, instead of finding each by a fault
    /// of its own. `needed` are the pages, for each mapping of `files`.
    ///
    /// A fork copies the page tables of a mapping only if it holds a page of its own, so one page of each is replaced
    /// by a copy of it.
    ///
    /// # Errors
    /// When the template's memory cannot be reached.
    pub fn look_at(&self, files: &[((u64, u64), bool)], needed: &[Vec<(u64, u64)>]) -> io::Result<()> {
        let memory = File::options().read(true).write(true).open(format!("/proc/{}/mem", self.pid))?;
        let mut byte = [0];
        for ((_, has_own), ranges) in files.iter().zip(needed) {
            for address in ranges.iter().flat_map(|(start, end)| (*start..*end).step_by(PAGE_BYTES)) {
                memory.read_exact_at(&mut byte, address)?;
            }
            if let (false, Some((first, _))) = (has_own, ranges.first()) {
                memory.read_exact_at(&mut byte, *first)?;
                memory.write_all_at(&byte, *first)?;
            }
        }
        Ok(())
    }

    /// The control channel: readable out of turn when the template has died.
    #[must_use]
    pub fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Forks the template into a sandbox and waits until the clone runs. `descriptors` are those of
    /// [`Received`](crate::plan::Received), followed by the `cgroup.procs` files.
    ///
    /// # Errors
    /// [`TemplateError`]; whatever stands in the sandbox then is to be killed.
    pub fn clone_into(&mut self, descriptors: &[BorrowedFd<'_>]) -> Result<(), TemplateError> {
        self.sequence += 1;
        let mut conversation = Conversation {
            control: &self.control,
            shown: &|index| self.operations.get(index).cloned(),
            sequence: self.sequence,
        };
        conversation.run_with_child(&self.clone, descriptors, &self.populated, CLONE_TIMEOUT)
    }
}

/// Requests and reports over the control channel.
struct Conversation<'a> {
    control: &'a Channel,
    /// How the plan prints an operation.
    shown: &'a dyn Fn(usize) -> Option<String>,
    sequence: u64,
}

impl Conversation<'_> {
    fn run(
        &mut self,
        list: &Range<u32>,
        descriptors: &[BorrowedFd<'_>],
        timeout: Duration,
    ) -> Result<(), TemplateError> {
        self.send(list, descriptors, &[])?;
        self.wait(timeout, 1)
    }

    /// As [`Self::run`] for a list whose child reports its own end too.
    fn run_with_child(
        &mut self,
        list: &Range<u32>,
        descriptors: &[BorrowedFd<'_>],
        populated: &[u64],
        timeout: Duration,
    ) -> Result<(), TemplateError> {
        self.send(list, descriptors, populated)?;
        self.wait(timeout, 2)
    }

    fn send(
        &mut self,
        list: &Range<u32>,
        descriptors: &[BorrowedFd<'_>],
        populated: &[u64],
    ) -> Result<(), TemplateError> {
        self.sequence += 1;
        let mut values = [0; SLOTS - DESCRIPTOR_SLOTS];
        let first = WRITE_SET_SLOT as usize - DESCRIPTOR_SLOTS;
        values[first..first + populated.len()].copy_from_slice(populated);
        let request =
            Request { sequence: self.sequence, start: list.start, count: list.end - list.start, values };
        let sent = self.control.send(linux::inject::bytes_of(&request), descriptors);
        sent.map_err(|source| TemplateError::Call { doing: "reach", source })
    }

    /// Waits for `reports` good reports or the first bad one.
    fn wait(&self, timeout: Duration, reports: u32) -> Result<(), TemplateError> {
        let deadline = Instant::now() + timeout;
        let mut good = 0;
        while good < reports {
            let report = self.report(deadline).map_err(|error| match error {
                TemplateError::Timeout(_) => TemplateError::Timeout(timeout),
                other => other,
            })?;
            if report.sequence != self.sequence {
                continue;
            }
            if report.index != DONE {
                return Err(TemplateError::Surprise {
                    index: report.index,
                    operation: (self.shown)(report.index as usize).unwrap_or_default(),
                    result: report.result,
                    in_template: report.reporter == Reporter::Template as u32,
                });
            }
            good += 1;
        }
        Ok(())
    }

    fn report(&self, deadline: Instant) -> Result<ReceivedReport, TemplateError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = rustix::event::Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut poll_fds = [PollFd::from_borrowed_fd(self.control.as_fd(), PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut poll_fds, Some(&timeout)));
        let failed = |source: io::Error| TemplateError::Call { doing: "hear", source };
        if ready.map_err(|errno| failed(errno.into()))? == 0 {
            return Err(TemplateError::Timeout(left));
        }
        let message = match self.control.receive(size_of::<Report>()) {
            Ok(Some(message)) => message,
            Ok(None) => return Err(TemplateError::Died),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(TemplateError::Died),
            Err(error) => return Err(failed(error)),
        };
        ReceivedReport::parse(&message.bytes).ok_or(TemplateError::Died)
    }
}

/// A [`Report`] read from bytes that function code could have written: no enum in it is trusted.
struct ReceivedReport {
    sequence: u64,
    reporter: u32,
    index: u32,
    result: i64,
}

impl ReceivedReport {
    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Report>() {
            return None;
        }
        let word = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let half = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        Some(Self { sequence: word(0)?, reporter: half(8)?, index: half(12)?, result: word(16)? as i64 })
    }
}

/// Gathers what a plan for environments of functions needs to know of this process and host.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn host_facts(cgroup_joins: usize) -> Result<HostFacts, TemplateError> {
    let call = |doing| move |source: io::Error| TemplateError::Call { doing, source };
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(call("see the memory that surrounds"))?;
    let range = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    };
    let pid = std::process::id() as i32;
    let limits = crate::checkpoint::limits(pid).map_err(|error| TemplateError::Host(error.to_string()))?;
    Ok(HostFacts {
        occupied: maps.lines().filter_map(range).collect(),
        cgroup_joins,
        privilege: if rustix::process::geteuid().is_root() && !in_user_namespace() {
            Privilege::Drop
        } else {
            Privilege::DropKeepUser
        },
        limits: limits.iter().map(|limit| (limit.resource, limit.soft, limit.hard)).collect(),
    })
}

/// A user namespace that maps a single user cannot hold another one.
fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let count = map.split_whitespace().nth(2).and_then(|word| word.parse::<u64>().ok());
    count.is_some_and(|count| count == 1)
}

/// Checks that this host can restore the image: same vDSO, all CPU flags, and the same files below `root`.
///
/// # Errors
/// [`TemplateError::Host`] with the reason.
pub fn check_host(image: &Image, root: &str) -> Result<(), TemplateError> {
    let refuse = |reason: String| Err(TemplateError::Host(reason));
    let pid = std::process::id() as i32;
    let vdso = crate::checkpoint::own_vdso(pid).map_err(|error| TemplateError::Host(error.to_string()))?;
    if vdso != image.host.vdso {
        return refuse(
            "it was made under another kernel (the vDSO differs); publish the version again".to_owned(),
        );
    }
    let flags = crate::checkpoint::cpu_flags().map_err(|error| TemplateError::Host(error.to_string()))?;
    if let Some(missing) = image.host.cpu_flags.iter().find(|flag| !flags.contains(flag)) {
        return refuse(format!("the processor lacks {missing}; publish the version again on this host"));
    }
    // What a clone maps for itself is its own sandbox's, and need not be here.
    let private: BTreeSet<u32> = image
        .processes
        .iter()
        .flat_map(|process| &process.mappings)
        .filter(|mapping| mapping.backing() == Backing::File)
        .map(|mapping| mapping.file)
        .collect();
    for file in private.iter().filter_map(|&index| image.files.get(index as usize)) {
        let metadata = match std::fs::symlink_metadata(format!("{root}{}", file.path)) {
            Ok(metadata) => metadata,
            Err(error) => return refuse(format!("{}: {error}; publish the version again", file.path)),
        };
        if crate::checkpoint::mapped_file(file.path.clone(), &metadata) != *file {
            return refuse(format!("{} has changed since; publish the version again", file.path));
        }
    }
    Ok(())
}

// SAFETY: `repr(C)` structures of 64-bit words, and of 32-bit words in pairs, so there is no padding.
unsafe impl linux::inject::Plain for Context {}
// SAFETY: as above: two 32-bit words, seven 64-bit words less one, four 32-bit words, one 64-bit word.
unsafe impl linux::inject::Plain for Op {}
// SAFETY: as above.
unsafe impl linux::inject::Plain for Request {}

const _: () = assert!(size_of::<Op>() == 8 + 48 + 16 + 8);
const _: () = assert!(size_of::<Request>() == 16 + 8 * (SLOTS - DESCRIPTOR_SLOTS));
const _: () = assert!(size_of::<Report>() == 24);
