//! A checkpoint as a folder: `image` (the state), `pages` (the memory), `sums` (what proves both whole).
//!
//! **The folder appears complete or not at all**: it is written under another name beside its place and renamed when
//! everything is on the disk. `pages` is the plain page stream, so that it can be read fast and copied by anything;
//! `sums` is JSON. Deliberately absent: compression and encryption, which file systems and archivers do, and the
//! content of files on disk, which stay where they are.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use engine::image::{self, DecodeError, Image};
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::progress::Progress;

const IMAGE: &str = "image";
const PAGES: &str = "pages";
const SUMS: &str = "sums";
/// Bytes of the page stream that one sum is about.
pub const CHUNK_BYTES: u64 = 1 << 20;
/// The largest `image` and `sums` in bytes.
const HEAD_BYTES_MAX: u64 = 512 << 20;
/// How much is collected before it is written.
const WRITE_BYTES: usize = 4 << 20;

/// What `sums` holds: BLAKE3, in hexadecimal.
#[derive(Debug, Serialize, Deserialize)]
struct Sums {
    image: String,
    chunk_bytes: u64,
    pages: Vec<String>,
}

/// A folder that is being written. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct Partial {
    place: PathBuf,
    path: PathBuf,
    pages: BufWriter<File>,
    /// Held for as long as this one is written.
    lock: File,
    finished: bool,
}

impl Partial {
    /// Begins to write the folder `place`.
    ///
    /// # Errors
    /// When something stands there, another checkpoint is being written there, or nothing can be written there.
    pub fn create(place: &Path) -> Result<Self> {
        let place = std::path::absolute(place).context("find the folder of the checkpoint")?;
        refuse_occupied(&place)?;
        let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else {
            bail!(
                "{} cannot be the folder of a checkpoint; name one that does not exist yet",
                place.display()
            );
        };
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(".partial");
        let path = parent.join(hidden);
        let lock = begin(&path)?;
        let pages = create(&path.join(PAGES))?;
        let pages = BufWriter::with_capacity(WRITE_BYTES, pages);
        Ok(Self { place, path, pages, lock, finished: false })
    }

    /// Appends to the page stream.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pages.write_all(bytes)
    }

    /// Writes the rest, waits for the disk, and gives the folder its name. Gives the bytes of the image.
    ///
    /// # Errors
    /// When the disk is full or something came to stand at the folder's place; there is no folder then.
    pub fn finish(&mut self, image: &Image) -> Result<u64> {
        self.pages.flush().context("write the pages")?;
        let encoded = image::encode(image);
        let pages = self.pages.get_ref();
        if pages.metadata()?.len() != image.page_bytes() {
            bail!("the pages that were written are not those of the image");
        }
        let sums = Sums {
            image: sum(&encoded),
            chunk_bytes: CHUNK_BYTES,
            pages: sums_of(&File::open(self.path.join(PAGES))?, image.page_bytes())?,
        };
        for (name, bytes) in [(IMAGE, &encoded), (SUMS, &serde_json::to_vec(&sums)?)] {
            let mut file = create(&self.path.join(name))?;
            file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| format!("write {name}"))?;
        }
        pages.sync_all().context("wait until the pages are on the disk")?;
        self.lock.sync_all().context("wait until the folder is on the disk")?;
        fs::rename(&self.path, &self.place)
            .with_context(|| format!("name the finished folder {}", self.place.display()))?;
        self.finished = true;
        if let Some(parent) = self.place.parent() {
            File::open(parent).and_then(|parent| parent.sync_all()).context("wait for the folder's name")?;
        }
        Ok(encoded.len() as u64)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            // What resists is removed by the next checkpoint to the same place.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn refuse_occupied(place: &Path) -> Result<()> {
    match fs::read_dir(place).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(false) => bail!("{} exists already; remove it or name another folder", place.display()),
        Err(error) => Err(error).with_context(|| format!("look at {}", place.display())),
    }
}

/// Makes the hidden folder, in place of one that a dead command has left, and locks it.
fn begin(path: &Path) -> Result<File> {
    let failed = || format!("make the folder {}", path.display());
    let lock = || -> io::Result<File> {
        let file =
            rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file.into())
    };
    match lock() {
        Ok(_left) => fs::remove_dir_all(path).with_context(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            bail!("another checkpoint is being written there ({})", path.display())
        }
        Err(error) => return Err(error).with_context(failed),
    }
    // The memory of a process holds its secrets.
    DirBuilder::new().mode(0o700).create(path).with_context(failed)?;
    lock().with_context(failed)
}

fn create(path: &Path) -> Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.with_context(|| format!("make {}", path.display()))
}

fn sum(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The sums of the page stream, read again from the cache: while a process is stopped there is no time for them.
fn sums_of(pages: &File, total_bytes: u64) -> Result<Vec<String>> {
    let progress = Progress::start("checksums", total_bytes);
    let count = total_bytes.div_ceil(CHUNK_BYTES);
    let mut buffer = vec![0; CHUNK_BYTES as usize];
    let sum_of = |index: u64| {
        let offset = index * CHUNK_BYTES;
        let chunk = &mut buffer[..(total_bytes - offset).min(CHUNK_BYTES) as usize];
        pages.read_exact_at(chunk, offset)?;
        progress.add(chunk.len() as u64);
        Ok(sum(chunk))
    };
    (0..count).map(sum_of).collect::<io::Result<_>>().context("read the pages back")
}

/// A folder opened for reading.
#[derive(Debug)]
pub struct Folder {
    /// The state.
    pub image: Image,
    /// Bytes of the file that holds it.
    pub image_bytes: u64,
    pages: File,
    sums: Vec<String>,
}

impl Folder {
    /// Opens a folder and proves its state whole. Its pages are proven when they are read.
    ///
    /// # Errors
    /// When it is no checkpoint, is damaged, or is of another version.
    pub fn open(place: &Path) -> Result<Self> {
        let read = |name: &str| {
            read_head(&place.join(name)).with_context(|| {
                format!(
                    "read {} of {}, which should be a folder that rekindle checkpoint made",
                    name,
                    place.display()
                )
            })
        };
        let encoded = read(IMAGE)?;
        let damaged = |what: &str| {
            format!(
                "{} is damaged: {what}; take the checkpoint again or copy the folder again",
                place.display()
            )
        };
        let sums: Sums =
            serde_json::from_slice(&read(SUMS)?).with_context(|| damaged("its sums cannot be read"))?;
        if sum(&encoded) != sums.image {
            bail!(damaged("its image is not the one that was written"));
        }
        let image = image::decode(&encoded).map_err(|error| match error {
            DecodeError::Format(format) => anyhow::anyhow!(
                "{} has image format {format}, this program reads format {}; restore it with the version of rekindle \
                 that made it, or take the checkpoint again",
                place.display(),
                image::FORMAT,
            ),
            other => anyhow::anyhow!(damaged(&other.to_string())),
        })?;
        let pages = File::open(place.join(PAGES)).with_context(|| damaged("its pages are missing"))?;
        let (found, expected) = (pages.metadata()?.len(), image.page_bytes());
        if found != expected {
            bail!(damaged(&format!("its pages have {found} bytes instead of {expected}")));
        }
        if sums.chunk_bytes != CHUNK_BYTES || sums.pages.len() as u64 != expected.div_ceil(CHUNK_BYTES) {
            bail!(damaged("its sums are not those of its pages"));
        }
        Ok(Self { image, image_bytes: encoded.len() as u64, pages, sums: sums.pages })
    }

    /// Reads chunk `index` of the page stream into `buffer` ([`CHUNK_BYTES`] long), proves it, and gives its offset and
    /// its bytes; `None` behind the last one.
    ///
    /// # Errors
    /// When it cannot be read or is not what was written.
    pub fn chunk<'a>(&self, index: u64, buffer: &'a mut [u8]) -> io::Result<Option<(u64, &'a [u8])>> {
        let offset = index * CHUNK_BYTES;
        let Some(expected) = self.sums.get(index as usize) else { return Ok(None) };
        let chunk = &mut buffer[..(self.image.page_bytes() - offset).min(CHUNK_BYTES) as usize];
        self.pages.read_exact_at(chunk, offset)?;
        if sum(chunk) != *expected {
            let message =
                format!("the pages are damaged at byte {offset}: take the checkpoint again or copy it again");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Some((offset, chunk)))
    }
}

fn read_head(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    file.take(HEAD_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > HEAD_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long"));
    }
    Ok(bytes)
}
