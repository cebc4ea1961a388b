//! Prints how fast the store writes and reads: a file, or 256 MiB of which half the bytes compress to
//! nothing. Run with `cargo run --release -p rekindle-store --example throughput [directory [file]]`; figures
//! of a file system in memory (`/dev/shm`) are those of the processor. Reading is from the page cache.

use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use store::{ReadError, Scope, Store};

const MADE_UP_MIB: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = parent.join(format!("rekindle-throughput-{}", std::process::id()));
    let store = Store::open(&dir.join("snapshots"), &dir.join("keys"))?;
    let image = match std::env::args().nth(2) {
        Some(file) => std::fs::read(file)?,
        None => half_compressible(MADE_UP_MIB << 20),
    };
    for (name, what) in [("first", "write, all chunks new"), ("second", "write, all chunks shared")] {
        let start = Instant::now();
        let mut writer = store.create(&name.parse()?, &Scope::local())?;
        writer.stream("pages")?.write(&image)?;
        let sealed = start.elapsed();
        let stored = writer.commit(b"head".to_vec())?;
        report(what, &image, start);
        println!("  of which before commit {} ms; {stored:?}", sealed.as_millis());
    }
    let reader = store.read(&"first".parse()?)?;
    for threads in [1, 2] {
        let (start, bytes) = (Instant::now(), AtomicU64::new(0));
        reader.for_each_chunk::<ReadError>("pages", threads, |_, chunk| {
            bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            Ok(())
        })?;
        assert!(bytes.into_inner() <= image.len() as u64);
        report(&format!("read in bulk, {threads} threads"), &image, start);
    }
    let (start, mut page) = (Instant::now(), [0; 4096]);
    for number in 0..2000 {
        reader.read_at("pages", (number * 7919 % (image.len() / 4096) * 4096) as u64, &mut page)?;
    }
    println!("read one page anywhere: {} us", start.elapsed().as_micros() / 2000);
    Ok(std::fs::remove_dir_all(dir)?)
}

fn report(what: &str, image: &[u8], start: Instant) {
    println!("{what}: {:.0} MiB/s", image.len() as f64 / f64::from(1 << 20) / start.elapsed().as_secs_f64());
}

/// Half of each KiB is noise, half is the same few words: much like a heap.
fn half_compressible(bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut image = vec![0u8; bytes];
    for block in image.chunks_exact_mut(1024) {
        let (noise, words) = block.split_at_mut(512);
        for word in noise.chunks_exact_mut(8) {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            word.copy_from_slice(&(state ^ state >> 33).to_le_bytes());
        }
        words.copy_from_slice(&b"0x00007f3f a few words of a heap".repeat(16));
    }
    image
}
