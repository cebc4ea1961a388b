//! Calls about memory.

use crate::files::What;
use crate::memory::{Area, Backed, LOCKED, PAGE};
use crate::world::{EBADF, EEXIST, EINVAL, Outcome, World};

const USER_START: u64 = 0x1_0000;
const USER_END: u64 = (1 << 47) - PAGE;
const DROPPABLE: u64 = 0x08;
const GUARD_INSTALL: u64 = 102;
const MAP_VDSO: u64 = 0x2003;
const EACCES: i64 = -13;
const ENOMEM: i64 = -12;
const EFAULT: i64 = -14;

impl World<'_> {
    pub fn memory_call(&mut self, task: usize, number: i64, args: [u64; 6]) -> Option<Outcome> {
        let space = self.processes[self.tasks[task].process].space;
        let [first, second, third, fourth, fifth, _] = args;
        let result = match number {
            libc::SYS_mmap => self.mmap(task, args),
            libc::SYS_munmap => {
                assert!(
                    first >= USER_START && first + second <= USER_END && second > 0,
                    "munmap of {first:#x}"
                );
                self.spaces[space].unmap(first, first + second);
                0
            }
            libc::SYS_mprotect => match self.spaces[space].exact(first, second) {
                Some(area) => {
                    area.protection = third;
                    0
                }
                None => ENOMEM,
            },
            libc::SYS_mremap => {
                let bits = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
                assert!(second == third && fourth == bits, "a move keeps the length");
                self.mremap(space, first, second, fifth)
            }
            libc::SYS_madvise => self.madvise(space, first, second, third),
            // The write set of a fresh template is empty.
            libc::SYS_process_madvise => 0,
            libc::SYS_mlock => match self.spaces[space].exact(first, second) {
                Some(area) => {
                    area.advice.insert(LOCKED);
                    0
                }
                None => ENOMEM,
            },
            libc::SYS_membarrier => {
                self.spaces[space].membarrier |= first;
                0
            }
            libc::SYS_arch_prctl if first == MAP_VDSO => self.map_vdso(space, second),
            _ => return None,
        };
        Some(Outcome::Result(result))
    }

    fn mmap(&mut self, task: usize, [start, bytes, protection, bits, descriptor, offset]: [u64; 6]) -> i64 {
        let process = &self.processes[self.tasks[task].process];
        let has = |flag: i32| bits & flag as u64 != 0;
        assert!(has(libc::MAP_FIXED_NOREPLACE), "a mapping at no fixed place");
        assert!(start >= USER_START && start + bytes <= USER_END, "a mapping outside of user space");
        let backed = if has(libc::MAP_ANONYMOUS) {
            Backed::Anonymous
        } else {
            let Some(&(file, _)) = self.tables[process.table].get(&(descriptor as i64)) else { return EBADF };
            let description = &self.files[file];
            let shared = bits & 0x0f == libc::MAP_SHARED as u64;
            let access = description.flags & libc::O_ACCMODE as u64;
            if shared && protection & libc::PROT_WRITE as u64 != 0 && access != libc::O_RDWR as u64 {
                return EACCES;
            }
            match &description.what {
                What::Path { path, .. } if shared => Backed::SharedFile(path.clone(), offset),
                What::Path { path, .. } => Backed::File(path.clone(), offset),
                What::Memory { inode, .. } if shared => Backed::Inode(*inode, offset),
                other => panic!("a mapping of {other:?}"),
            }
        };
        let kept = (libc::MAP_GROWSDOWN | libc::MAP_NORESERVE) as u64 | DROPPABLE;
        let bits = if backed == Backed::Anonymous || bits & 0x0f == libc::MAP_SHARED as u64 {
            bits & kept
        } else {
            0
        };
        let space = &mut self.spaces[process.space];
        if space.areas.overlaps(start, start + bytes) {
            return EEXIST;
        }
        space.areas.put(start, start + bytes, Area { bits, ..Area::new(protection, backed) });
        start as i64
    }

    fn mremap(&mut self, space: usize, from: u64, bytes: u64, to: u64) -> i64 {
        let space = &mut self.spaces[space];
        if space.exact(from, bytes).is_none() {
            return EFAULT;
        }
        if from < to + bytes && to < from + bytes {
            return EINVAL;
        }
        assert!(!space.areas.overlaps(to, to + bytes), "a move over a mapping");
        assert!(space.guards.within(from, from + bytes).is_empty(), "guards are moved");
        let (_, area) = space.areas.0.remove(&from).unwrap();
        space.areas.put(to, to + bytes, area);
        for (start, end, saved) in space.pages.take(from, from + bytes) {
            space.pages.put(start - from + to, end - from + to, saved);
        }
        to as i64
    }

    fn madvise(&mut self, space: usize, start: u64, bytes: u64, advice: u64) -> i64 {
        let space = &mut self.spaces[space];
        if advice == GUARD_INSTALL {
            assert!(space.around(start, bytes).is_some(), "a guard lies in its mapping");
            assert!(space.pages.within(start, start + bytes).is_empty(), "a guard over saved pages");
            space.guards.put(start, start + bytes, ());
            return 0;
        }
        if advice == libc::MADV_COLLAPSE as u64 {
            assert!(space.around(start, bytes).is_some(), "a huge page lies in its mapping");
            return 0;
        }
        let Some(area) = space.exact(start, bytes) else { return ENOMEM };
        if advice == libc::MADV_WIPEONFORK as u64 && area.backed != Backed::Anonymous {
            return EINVAL;
        }
        area.advice.insert(advice);
        0
    }

    /// The kernel maps what it has: the pages of every vDSO mapping of the image.
    fn map_vdso(&mut self, space: usize, start: u64) -> i64 {
        let space = &mut self.spaces[space];
        if space.areas.0.values().any(|(_, area)| area.backed == Backed::Vdso) {
            return EEXIST;
        }
        for (start, protection) in [(start, 1), (start + 4 * PAGE, 5)] {
            let end = start + if protection == 1 { 4 * PAGE } else { 2 * PAGE };
            space.areas.put(start, end, Area::new(protection, Backed::Vdso));
        }
        8192
    }
}
