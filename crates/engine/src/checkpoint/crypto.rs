//! Finding what must be reseeded in every clone.
//!
//! OpenSSL keeps its generators in memory and notices a fork by the process ID alone, which a clone keeps: without
//! help every clone would hand out the same private keys. One call of its `RAND_poll` reseeds them all. The function
//! is exported by every shared build, so it is found in the symbol tables of the mapped files. A copy that a library has
//! linked into itself exports nothing: it is found by what its source leaves in every build, and named to the user.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};

use object::elf::{FileHeader64, PT_LOAD, gnu_hash};
use object::read::elf::{FileHeader, ProgramHeader, Sym, VersionTable};
use object::{Endianness, ReadCache};

use crate::image::{Backing, MappedFile, Mapping};

const RESEED: &[u8] = b"RAND_poll";
/// Larger files are no libraries.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Smaller ones hold no copy of OpenSSL.
const COPY_BYTES_MIN: u64 = 1 << 20;
/// The file name that errors of OpenSSL's generators carry.
const MARK: &[u8] = b"crypto/rand/rand_lib.c";
const PIECE_BYTES: usize = 4 << 20;

/// Looks into each file once, however many processes map it.
#[derive(Default)]
pub struct Finder {
    /// By index of the file: how far from its first mapped byte the function is.
    known: HashMap<u32, Option<u64>>,
    hidden: BTreeSet<u32>,
}

impl Finder {
    /// Addresses of every `RAND_poll` in a process.
    pub fn reseed_functions(&mut self, pid: i32, mappings: &[Mapping], files: &[MappedFile]) -> Vec<u64> {
        let executable = |mapping: &&Mapping| {
            mapping.backing() == Backing::File && mapping.protection & libc::PROT_EXEC as u32 != 0
        };
        let mut mapped: Vec<u32> = mappings.iter().filter(executable).map(|mapping| mapping.file).collect();
        mapped.dedup();
        let address = |file: u32| {
            let path = format!("/proc/{pid}/root{}", files[file as usize].path);
            let distance = *self.known.entry(file).or_insert_with(|| {
                let distance = distance(&path);
                // What cannot be read is not known to hold one.
                if distance.is_none() && holds_copy(&path).unwrap_or(false) {
                    self.hidden.insert(file);
                }
                distance
            });
            let distance = distance?;
            let first = mappings.iter().find(|mapping| {
                mapping.backing() == Backing::File && mapping.file == file && mapping.offset == 0
            })?;
            Some(first.start.wrapping_add(distance))
        };
        mapped.into_iter().filter_map(address).collect()
    }

    /// What a user should know: libraries whose random numbers repeat in every clone.
    pub fn warnings(&self, files: &[MappedFile]) -> Vec<String> {
        let paths = self.hidden.iter().map(|&file| &files[file as usize].path);
        paths
            .map(|path| {
                format!(
                    "{path} holds an OpenSSL of its own that cannot be reseeded: random bytes and keys that it makes \
                     repeat in every clone if it has made any before; take them from the language's own generator, or \
                     use a build of the library that links the system's OpenSSL"
                )
            })
            .collect()
    }
}

/// Whether a file without the function holds OpenSSL's generators all the same.
fn holds_copy(path: &str) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || !(COPY_BYTES_MIN..=FILE_BYTES_MAX).contains(&metadata.len()) {
        return Ok(false);
    }
    let finder = memchr::memmem::Finder::new(MARK);
    let mut piece = vec![0; PIECE_BYTES];
    let mut kept = 0;
    loop {
        let count = file.read(&mut piece[kept..])?;
        if finder.find(&piece[..kept + count]).is_some() {
            return Ok(true);
        }
        if count == 0 {
            return Ok(false);
        }
        // The mark may lie across two pieces.
        let end = kept + count;
        kept = end.min(MARK.len());
        piece.copy_within(end - kept..end, 0);
    }
}

/// How far behind the first mapped byte of a file the function is.
fn distance(path: &str) -> Option<u64> {
    let file = File::open(path).ok()?;
    if file.metadata().ok()?.len() > FILE_BYTES_MAX {
        return None;
    }
    let cache = ReadCache::new(file);
    let header = FileHeader64::<Endianness>::parse(&cache).ok()?;
    let endian = header.endian().ok()?;
    let address = symbol(header, endian, &cache)?;
    // The file's first byte is mapped where its first loaded segment says; addresses in the file count from there.
    let segments = header.program_headers(endian, &cache).ok()?;
    let first = segments.iter().find(|segment| segment.p_type(endian) == PT_LOAD)?;
    Some(address.wrapping_sub(first.p_vaddr(endian).wrapping_sub(first.p_offset(endian))))
}

/// The address of the function in a file: by the hash table that the dynamic linker uses, for there may be hundreds of
/// files with thousands of names.
fn symbol(header: &FileHeader64<Endianness>, endian: Endianness, cache: &ReadCache<File>) -> Option<u64> {
    let sections = header.sections(endian, cache).ok()?;
    if let Ok(Some((table, link))) = sections.gnu_hash(endian, cache) {
        let symbols = sections.symbol_table_by_index(endian, cache, link).ok()?;
        let (hash, versions) = (gnu_hash(RESEED), VersionTable::default());
        let (_, found) = table.find(endian, RESEED, hash, None, &symbols, &versions)?;
        return found.is_definition(endian).then(|| found.st_value(endian));
    }
    let symbols = sections.symbols(endian, cache, object::elf::SHT_DYNSYM).ok()?;
    let names = symbols.strings();
    let is_it = |symbol: &&object::elf::Sym64<Endianness>| {
        symbol.is_definition(endian) && symbol.name(endian, names) == Ok(RESEED)
    };
    symbols.iter().find(is_it).map(|symbol| symbol.st_value(endian))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_without_the_function_has_none() {
        let text = std::fs::read_to_string("/proc/self/maps").unwrap();
        let library = text.lines().find_map(|line| Some(&line[line.find('/')?..])).unwrap();
        assert_eq!(distance(library), None);
        assert_eq!(distance("/proc/self/maps"), None);
    }

    #[test]
    fn a_copy_is_found_wherever_it_lies() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        for (place, found) in [(None, false), (Some(5 << 20), true), (Some(PIECE_BYTES - 7), true)] {
            let mut content = vec![0; 6 << 20];
            if let Some(place) = place {
                content[place..place + MARK.len()].copy_from_slice(MARK);
            }
            io::Write::write_all(&mut file, &content).unwrap();
            assert_eq!(holds_copy(&path).unwrap(), found);
            file.as_file().set_len(0).unwrap();
            io::Seek::rewind(&mut file).unwrap();
        }
    }
}
