//! Finding what must be reseeded in every clone.
//!
//! OpenSSL keeps its generators in memory and notices a fork by the process ID alone, which a clone keeps: without
//! help every clone would hand out the same private keys. One call of its `RAND_poll` reseeds them all. The function
//! is exported by every shared build, so it is found in the symbol tables of the mapped files.

use std::fs::File;

use object::read::elf::{ElfFile64, FileHeader};
use object::{Endianness, Object, ObjectSymbol, ReadCache};

use crate::image::{Backing, Image, Mapping};

const RESEED: &str = "RAND_poll";

/// Addresses of every `RAND_poll` in the process.
pub fn reseed_functions(pid: i32, image: &Image) -> Vec<u64> {
    let executable = |mapping: &&Mapping| {
        mapping.backing() == Backing::File && mapping.protection & libc::PROT_EXEC as u32 != 0
    };
    let mut files: Vec<u32> = image.mappings.iter().filter(executable).map(|mapping| mapping.file).collect();
    files.dedup();
    files.iter().filter_map(|&file| address_in(pid, image, file)).collect()
}

fn address_in(pid: i32, image: &Image, file: u32) -> Option<u64> {
    let path = format!("/proc/{pid}/root{}", image.files[file as usize].path);
    let cache = ReadCache::new(File::open(path).ok()?);
    let elf = ElfFile64::<Endianness, _>::parse(&cache).ok()?;
    let symbol =
        elf.dynamic_symbols().find(|symbol| symbol.is_definition() && symbol.name() == Ok(RESEED))?;
    let start = image
        .mappings
        .iter()
        .find(|mapping| mapping.backing() == Backing::File && mapping.file == file && mapping.offset == 0)?;
    // The file's first byte is mapped where its first loaded segment says; addresses in the file count from there.
    let endian = elf.endian();
    let headers = elf.elf_header().program_headers(endian, &cache).ok()?;
    let first = headers.iter().find(|header| header.p_type.get(endian) == object::elf::PT_LOAD)?;
    let base = start.start.wrapping_sub(first.p_vaddr.get(endian) - first.p_offset.get(endian));
    Some(base.wrapping_add(symbol.address()))
}
