//! The list that is carried out for every restore.
//!
//! Three kinds of process take part, in this order:
//! 1. *Template*: enters the sandbox's PID namespace for its children and starts the go-between.
//! 2. *Go-between*: shares the template's memory, so it costs no copy; enters the other namespaces, makes the open
//!    files, starts the processes that have no parent in the image and ends, which makes them children of the
//!    sandbox's init.
//! 3. *Processes*: each starts its children, puts memory, descriptors, properties and threads into place, drops all
//!    privilege, has crypto libraries reseeded, and waits. The first one tells the host when all are ready, and lets
//!    all go when the host says so.
//!
//! Every descriptor is made at the lowest free number, which is known, and then moved to its own.

use super::area::{VECTOR_BYTES, WRITE_SET_CALLS, WRITE_SET_RANGES_PER_CALL};
use super::files::make;
use super::list::{Arg, CloneArgs, List, MINUS_ONE};
use super::{Context, Received, process};
use crate::image::Image;
use crate::ops::Code;

const NAMESPACES: u64 =
    (libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64;
/// This thread itself where a pidfd is asked for (Linux 6.14).
const PIDFD_SELF: u64 = -10_000_i64 as u64;
/// The first of the slots that say how many ranges of the write set each call takes.
pub const WRITE_SET_SLOT: u32 = 20;

/// Writes the whole list.
pub fn clone(list: &mut List, context: &Context<'_>) {
    let enter = [Arg::Slot(Received::Sandbox as u64), (libc::CLONE_NEWPID as u64).into()];
    list.exactly(libc::SYS_setns, &enter, 0);
    let go_between = CloneArgs {
        flags: (libc::CLONE_VM | libc::CLONE_VFORK) as u64,
        stack: context.area.child_stack(0),
        set_tid: list.words(&[spare_id(context.image)]),
        ..CloneArgs::default()
    };
    list.child(&go_between, |list| {
        let sandbox = Arg::Slot(Received::Sandbox as u64);
        list.exactly(libc::SYS_setns, &[sandbox, NAMESPACES.into()], 0);
        let files = make(list, context);
        for index in 0..context.image.processes.len() {
            if process::maker(context.image, index).is_none() {
                process::fork(list, context, &files, index);
            }
        }
        list.step(Code::Exit, &[0.into()]);
    });
    let args = [MINUS_ONE.into(), 0.into(), (libc::__WALL as u64).into(), 0.into()];
    list.call(libc::SYS_wait4, &args, None);
    let first = context.control() + 1;
    let last = first + context.received() - 1;
    list.exactly(libc::SYS_close_range, &[first.into(), last.into(), 0.into()], 0);
}

/// An ID that nothing in the image has, for the go-between.
fn spare_id(image: &Image) -> u64 {
    let threads = image.processes.iter().flat_map(|process| &process.threads).map(|thread| thread.tid);
    let processes = image.processes.iter().flat_map(|process| [process.pid, process.group, process.session]);
    threads.chain(processes).max().unwrap_or(0) as u64 + 1
}

/// Copies the pages that earlier clones wrote to, in bulk, which costs less than a fault for each. How many ranges there
/// are comes with the request; a refusal costs speed only.
pub fn populate(list: &mut List, context: &Context<'_>) {
    for call in 0..WRITE_SET_CALLS {
        let vectors = context.area.write_set() + call * WRITE_SET_RANGES_PER_CALL * VECTOR_BYTES;
        let args = [
            PIDFD_SELF.into(),
            vectors.into(),
            Arg::Slot(u64::from(WRITE_SET_SLOT) + call),
            (libc::MADV_POPULATE_WRITE as u64).into(),
            0.into(),
        ];
        list.attempt(libc::SYS_process_madvise, &args);
    }
}
