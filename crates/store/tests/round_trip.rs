//! What is written comes back: any streams, in any pieces, through both ways of reading; equal chunks are
//! stored once per scope and zeros not at all.

mod common;

use std::sync::Mutex;

use common::{CHUNK, Fixture, id, noise, open, read, read_stream, write};
use proptest::prelude::*;
use store::{ReadError, Scope, WriteError};

#[test]
fn a_snapshot_has_a_head_and_streams_and_survives_reopening() {
    let fixture = Fixture::new();
    let (pages, files) = (noise(1, 3 * CHUNK), noise(2, 12_345));
    let mut writer = fixture.store.create(&id("a"), &Scope::local()).unwrap();
    writer.stream("pages").unwrap().write(&pages[..5000]).unwrap();
    writer.stream("files").unwrap().write(&files).unwrap();
    writer.stream("pages").unwrap().write(&pages[5000..]).unwrap();
    assert_eq!(writer.stream("pages").unwrap().position(), pages.len() as u64);
    let stored = writer.commit(b"head".to_vec()).unwrap();
    assert_eq!(stored.image_bytes, (pages.len() + files.len() + 4) as u64);
    assert_eq!((stored.chunks_new, stored.chunks_shared), (4, 0));

    let store = open(fixture.dir.path());
    assert_eq!(store.list().unwrap(), [id("a")]);
    let reader = store.read(&id("a")).unwrap();
    assert_eq!(reader.head(), b"head");
    assert_eq!(reader.streams().collect::<Vec<_>>(), [("pages", pages.len() as u64), ("files", 12_345)]);
    assert_eq!(read_stream(&reader, "pages").unwrap(), pages);
    assert_eq!(read_stream(&reader, "files").unwrap(), files);
    assert!(matches!(reader.read_at("files", 12_345, &mut [0]), Err(ReadError::OutOfRange { .. })));
    assert!(matches!(reader.read_at("files", u64::MAX, &mut [0; 2]), Err(ReadError::OutOfRange { .. })));
    assert!(matches!(reader.read_at("other", 0, &mut []), Err(ReadError::NoStream { .. })));
    assert!(matches!(store.read(&id("b")), Err(ReadError::NotFound { .. })));
}

#[test]
fn usage_is_what_the_writers_said() {
    let fixture = Fixture::new();
    let a = write(&fixture.store, "a", &noise(1, 4 * CHUNK)).unwrap();
    let b = write(&fixture.store, "b", &noise(2, 4 * CHUNK)).unwrap();
    let usage = fixture.store.usage().unwrap();
    assert_eq!((usage.snapshots, usage.chunks), (2, 8));
    assert_eq!(usage.chunk_bytes + usage.manifest_bytes, a.stored_bytes_new + b.stored_bytes_new);
}

#[test]
fn equal_chunks_are_stored_once_per_scope() {
    let fixture = Fixture::new();
    let common = noise(1, 5 * CHUNK);
    let first = write(&fixture.store, "a", &common).unwrap();
    assert_eq!((first.chunks_new, first.chunks_shared), (5, 0));
    let second = write(&fixture.store, "b", &[&common[..], &common, &noise(2, 100)].concat()).unwrap();
    assert_eq!((second.chunks_new, second.chunks_shared), (1, 5));
    assert!(second.stored_bytes_new < CHUNK as u64);

    let other: Scope = "arn:aws:kms:us-east-1:123456789012:key/k".parse().unwrap();
    let mut writer = fixture.store.create(&id("c"), &other).unwrap();
    writer.stream("pages").unwrap().write(&common).unwrap();
    let third = writer.commit(b"head of c".to_vec()).unwrap();
    assert_eq!((third.chunks_new, third.chunks_shared), (5, 0));
    assert_eq!(fixture.chunks().len(), 11);
    for (name, bytes) in [("a", 5 * CHUNK), ("b", 10 * CHUNK + 100), ("c", 5 * CHUNK)] {
        assert_eq!(read(&fixture.store, name).unwrap().len(), bytes);
    }
}

#[test]
fn zeros_take_no_disk() {
    let fixture = Fixture::new();
    let mut writer = fixture.store.create(&id("a"), &Scope::local()).unwrap();
    let mut pages = writer.stream("pages").unwrap();
    pages.write_zeros(100).unwrap();
    pages.write(&vec![0; 3 * CHUNK]).unwrap();
    pages.write_zeros(10 << 30).unwrap();
    pages.write(b"end").unwrap();
    let bytes = pages.position();
    assert_eq!(bytes, 100 + 3 * CHUNK as u64 + (10 << 30) + 3);
    assert_eq!(writer.commit(Vec::new()).unwrap().chunks_new, 1);
    let reader = fixture.store.read(&id("a")).unwrap();
    let mut end = [1; 8];
    reader.read_at("pages", bytes - 8, &mut end).unwrap();
    assert_eq!(&end, b"\0\0\0\0\0end");
    let visited = Mutex::new(0);
    reader
        .for_each_chunk::<ReadError>("pages", 2, |_, _| {
            *visited.lock().unwrap() += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(visited.into_inner().unwrap(), 1);
}

#[test]
fn names_are_taken_once_and_limits_hold() {
    let fixture = Fixture::new();
    let mut late = fixture.store.create(&id("a"), &Scope::local()).unwrap();
    late.stream("pages").unwrap().write(b"late").unwrap();
    write(&fixture.store, "a", b"first").unwrap();
    assert!(matches!(fixture.store.create(&id("a"), &Scope::local()), Err(WriteError::Exists { .. })));
    assert!(matches!(late.commit(Vec::new()), Err(WriteError::Exists { .. })));
    assert_eq!(read(&fixture.store, "a").unwrap(), b"first");
    assert_eq!((fixture.chunks().len(), fixture.writers()), (1, 0));

    let mut writer = fixture.store.create(&id("b"), &Scope::local()).unwrap();
    assert!(matches!(writer.stream("../x"), Err(WriteError::Limit { .. })));
    for number in 0..store::limits::STREAMS_MAX {
        writer.stream(&format!("s{number}")).unwrap();
    }
    assert!(matches!(writer.stream("more"), Err(WriteError::Limit { .. })));
    let too_many = store::limits::IMAGE_BYTES_MAX + 1;
    assert!(matches!(writer.stream("s0").unwrap().write_zeros(too_many), Err(WriteError::Limit { .. })));
    assert!(matches!(
        writer.commit(vec![0; store::limits::HEAD_BYTES_MAX + 1]),
        Err(WriteError::Limit { .. })
    ));
    assert_eq!((fixture.store.list().unwrap().len(), fixture.writers()), (1, 0));
}

#[test]
fn an_error_of_the_visitor_ends_a_bulk_read() {
    #[derive(Debug)]
    struct Enough;
    impl From<ReadError> for Enough {
        fn from(error: ReadError) -> Self {
            panic!("{error}")
        }
    }
    let fixture = Fixture::new();
    write(&fixture.store, "a", &noise(1, 20 * CHUNK)).unwrap();
    let reader = fixture.store.read(&id("a")).unwrap();
    for threads in [0, 1, 2, 100] {
        let visited = Mutex::new(0);
        let visit = |_: u64, _: &[u8]| {
            *visited.lock().unwrap() += 1;
            Err(Enough)
        };
        assert!(matches!(reader.for_each_chunk("pages", threads, visit), Err(Enough)));
        assert!(visited.into_inner().unwrap() <= threads.clamp(1, store::limits::THREADS_MAX));
    }
}

/// A piece of a stream: noise of a seed (few seeds, so that chunks repeat) or zeros.
fn pieces() -> impl Strategy<Value = Vec<(Option<u64>, usize)>> {
    let bytes = prop_oneof![0usize..5000, Just(CHUNK), CHUNK - 1..CHUNK + 2, 0..3 * CHUNK];
    proptest::collection::vec((proptest::option::of(0u64..3), bytes), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_pieces_come_back_through_both_ways_of_reading(
        pieces in pieces(),
        reads in proptest::collection::vec(any::<(u32, u32)>(), 8),
    ) {
        let fixture = Fixture::new();
        let mut writer = fixture.store.create(&id("a"), &Scope::local()).unwrap();
        let mut expected = Vec::new();
        let mut stream = writer.stream("pages").unwrap();
        for (seed, bytes) in pieces {
            let piece = seed.map_or_else(|| vec![0; bytes], |seed| noise(seed, bytes));
            match seed {
                Some(_) => stream.write(&piece).unwrap(),
                None => stream.write_zeros(bytes as u64).unwrap(),
            }
            expected.extend_from_slice(&piece);
        }
        writer.commit(Vec::new()).unwrap();
        let reader = fixture.store.read(&id("a")).unwrap();
        prop_assert!(read_stream(&reader, "pages").unwrap() == expected);

        let bulk = Mutex::new(vec![0; expected.len()]);
        reader.for_each_chunk::<ReadError>("pages", 2, |offset, bytes| {
            bulk.lock().unwrap()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        }).unwrap();
        prop_assert!(bulk.into_inner().unwrap() == expected);

        for (offset, len) in reads {
            let offset = offset as usize % (expected.len() + 1);
            let mut bytes = vec![1; len as usize % (expected.len() - offset + 1)];
            reader.read_at("pages", offset as u64, &mut bytes).unwrap();
            prop_assert!(bytes == expected[offset..][..bytes.len()]);
        }
    }
}
