//! Memory that each process of a clone must arrange for itself.

use super::Context;
use super::files::Files;
use super::list::{Arg, List};
use super::template::{self, FILE, Mapper, advise, guards, open, vdso, wipe_on_fork};
use crate::image::{Backing, Mapping, flags};

/// Puts the private memory of a process that was forked from another one into place: the other's goes, its own comes
/// out of the stash, and what holds no saved page is mapped anew.
pub fn place(list: &mut List, context: &Context<'_>, index: usize) {
    let process = &context.image.processes[index];
    template::clear(list, context);
    vdso(list, &process.mappings);
    for mapping in &process.mappings {
        let Some(place) = context.stash.mapping(index, mapping) else { continue };
        let bytes = mapping.end - mapping.start;
        let bits = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
        let args = [place.into(), bytes.into(), bytes.into(), bits.into(), mapping.start.into()];
        list.exactly(libc::SYS_mremap, &args, mapping.start);
    }
    unmap_stash(list, context);
    // The kernel keeps the executable while a mapping of it stands, be it another process's in the stash.
    let changes = process.executable != context.image.root().executable;
    super::process::memory_map(list, context, process, changes);
    let fresh = |mapping: &&Mapping| context.stash.mapping(index, mapping).is_none();
    let mut mapper = Mapper::new(list, context.image);
    for mapping in process.mappings.iter().filter(fresh) {
        mapper.map(mapping, &[], mapping.start);
    }
    mapper.finish();
    for mapping in process.mappings.iter().filter(fresh) {
        advise(list, mapping, mapping.start);
    }
    for mapping in &process.mappings {
        if matches!(mapping.backing(), Backing::Anonymous | Backing::File) {
            wipe_on_fork(list, mapping);
            guards(list, mapping);
        }
    }
}

/// Lets the stash go.
pub fn unmap_stash(list: &mut List, context: &Context<'_>) {
    let (from, to) = (context.area.stash(), context.area.end());
    if to > from {
        list.exactly(libc::SYS_munmap, &[from.into(), (to - from).into()], 0);
    }
}

/// Shared memory, locks and the flag that would have kept a mapping out of the fork.
pub fn own(list: &mut List, context: &Context<'_>, files: &Files, index: usize) {
    for mapping in &context.image.processes[index].mappings {
        match mapping.backing() {
            Backing::Inode => view(list, mapping, files.inode(mapping.file).into()),
            Backing::SharedFile => shared_file(list, context, mapping),
            _ => {}
        }
        let range = [mapping.start.into(), (mapping.end - mapping.start).into()];
        let shared = matches!(mapping.backing(), Backing::Inode | Backing::SharedFile);
        for (flag, advice) in
            [(flags::DONT_FORK, libc::MADV_DONTFORK), (flags::DONT_DUMP, libc::MADV_DONTDUMP)]
        {
            let inherited = flag == flags::DONT_DUMP && !shared;
            if mapping.flags & flag != 0 && !inherited && mapping.backing() != Backing::Vdso {
                list.exactly(libc::SYS_madvise, &[range[0], range[1], (advice as u64).into()], 0);
            }
        }
        if mapping.flags & flags::LOCKED != 0 {
            list.attempt(libc::SYS_mlock, &range);
        }
    }
}

/// A shared view of a file.
fn view(list: &mut List, mapping: &Mapping, descriptor: Arg) {
    let mut bits = (libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE) as u64;
    if mapping.flags & flags::NO_RESERVE != 0 {
        bits |= libc::MAP_NORESERVE as u64;
    }
    let args = [
        mapping.start.into(),
        (mapping.end - mapping.start).into(),
        u64::from(mapping.protection).into(),
        bits.into(),
        descriptor,
        mapping.offset.into(),
    ];
    list.exactly(libc::SYS_mmap, &args, mapping.start);
}

/// A shared mapping of a file that the sandbox has: the clone maps its own sandbox's file.
fn shared_file(list: &mut List, context: &Context<'_>, mapping: &Mapping) {
    let write = (mapping.protection & libc::PROT_WRITE as u32) != 0 || mapping.flags & flags::MAY_WRITE != 0;
    let access = if write { libc::O_RDWR } else { libc::O_RDONLY } as u64;
    open(list, &context.image.files[mapping.file as usize].path, access, Some(FILE));
    view(list, mapping, Arg::Slot(FILE.into()));
    list.exactly(libc::SYS_close, &[Arg::Slot(FILE.into())], 0);
}
