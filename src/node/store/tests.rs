#![allow(clippy::unwrap_used)]
//! The store as its users meet it: real files in temporary folders.

use super::*;
use crate::farm::blob::{BlobMap, chunk_id};
use crate::node::chunk::tests::noise;
use crate::node::chunk::{self, Chunking};
use tempfile::TempDir;

mod faults;

fn fresh() -> (TempDir, Arc<Store>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

/// Ends the store as a crash would: nothing said about a clean stop.
fn crash(store: Arc<Store>) {
    store.crashed.store(true, Ordering::Release);
    assert_eq!(Arc::strong_count(&store), 1);
    drop(store);
}

fn map_of(bytes: &[u8]) -> BlobMap {
    chunk::chunk(&mut &bytes[..], Chunking::ContentDefined, &mut |_, _| Ok(())).unwrap()
}

/// The chunks of `bytes` with their place in the blob.
fn chunks<'a>(map: &BlobMap, mut bytes: &'a [u8]) -> Vec<(u32, &'a [u8])> {
    let mut cut = |length: u32| {
        let (now, later) = bytes.split_at(length as usize);
        bytes = later;
        now
    };
    (0..).zip(&map.chunks).map(|(index, chunk)| (index, cut(chunk.bytes))).collect()
}

fn op(log: u8, actor: u8, seq: u64, bytes: &[u8]) -> LedgerRow {
    LedgerRow::Op { log: [log; 16], actor: [actor; 40], seq, bytes: bytes.into() }
}

fn head(log: u8, actor: u8, bytes: &[u8]) -> LedgerRow {
    LedgerRow::Head { log: [log; 16], actor: [actor; 40], bytes: bytes.into() }
}

fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(files_under(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files
}

#[test]
fn all_that_was_put_in_is_there_after_a_restart() {
    let (dir, store) = fresh();
    store.set_setting("name", b"lumen").unwrap();
    let batch =
        Batch { token: None, rows: vec![op(1, 1, 300, b"b"), op(1, 1, 2, b"a"), op(0, 2, 0, b""), head(1, 1, b"h1")] };
    store.writer().try_send(batch).unwrap();
    store.writer().try_send(Batch { token: None, rows: vec![head(1, 1, b"h2")] }).unwrap();
    let bytes = noise(1, 3_000_000);
    let (id, map) = store.put_bytes(&bytes).unwrap();
    drop(store);

    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.setting("name").unwrap().as_deref(), Some(&b"lumen"[..]));
    assert_eq!(store.setting("other").unwrap(), None);
    let rows = vec![op(0, 2, 0, b""), op(1, 1, 2, b"a"), op(1, 1, 300, b"b"), head(1, 1, b"h2")];
    assert_eq!(store.load_ledger().unwrap(), rows);
    assert!(store.has(id));
    assert_eq!(store.map(id), Some(map.clone()));
    assert_eq!(store.used_bytes(), bytes.len() as u64);
    for (index, part) in chunks(&map, &bytes) {
        assert_eq!(store.read_chunk(id, index).unwrap(), part);
    }
    let beyond = store.read_chunk(id, map.chunks.len() as u32);
    assert_eq!(beyond.unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_retired_log_leaves_its_neighbours_alone() {
    let (dir, store) = fresh();
    let rows =
        vec![op(1, 1, 0, b"x"), op(2, 1, 0, b"y"), op(2, 0xff, u64::MAX, b"y"), head(2, 1, b"h"), op(3, 1, 0, b"z")];
    store.writer().try_send(Batch { token: None, rows }).unwrap();
    let retired = LedgerRow::Retired { log: [2; 16] };
    store.writer().try_send(Batch { token: None, rows: vec![retired.clone()] }).unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.load_ledger().unwrap(), vec![op(1, 1, 0, b"x"), op(3, 1, 0, b"z"), retired]);
}

#[test]
fn who_begins_anew_keeps_settings_blobs_and_retired_logs_alone() {
    let (dir, store) = fresh();
    let retired = LedgerRow::Retired { log: [3; 16] };
    let fork = LedgerRow::Fork { log: [1; 16], actor: [1; 40], bytes: b"proof".into() };
    let idle = LedgerRow::Idle { log: [1; 16], seconds: 5 };
    let rows = vec![op(1, 1, 0, b"x"), head(1, 1, b"h"), fork, idle, retired.clone()];
    store.set_setting("old", b"stays").unwrap();
    let (blob, _) = store.put_bytes(b"blob").unwrap();
    // Still queued when the ledger goes.
    store.writer().try_send(Batch { token: None, rows }).unwrap();
    store.begin_anew(vec![("new".into(), b"set".into())]).unwrap();
    assert_eq!(store.load_ledger().unwrap(), vec![retired.clone()]);
    crash(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.load_ledger().unwrap(), vec![retired]);
    assert_eq!(store.setting("old").unwrap().as_deref(), Some(&b"stays"[..]));
    assert_eq!(store.setting("new").unwrap().as_deref(), Some(&b"set"[..]));
    assert!(store.has(blob));
}

#[test]
fn of_a_retired_log_the_id_is_left_for_ever() {
    let (dir, store) = fresh();
    let (log, actor) = ([2; 16], [1; 40]);
    let fork = LedgerRow::Fork { log, actor, bytes: b"proof".into() };
    let idle = |seconds| LedgerRow::Idle { log, seconds };
    let send = |store: &Store, rows| store.writer().try_send(Batch { token: None, rows }).unwrap();
    send(&store, vec![op(2, 1, 0, b"y"), head(2, 1, b"h"), fork.clone(), idle(5), idle(9)]);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.load_ledger().unwrap(), vec![op(2, 1, 0, b"y"), head(2, 1, b"h"), fork, idle(9)]);
    let retired = LedgerRow::Retired { log };
    send(&store, vec![retired.clone()]);
    drop(store);
    for _ in 0..2 {
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.load_ledger().unwrap(), vec![retired.clone()]);
    }
}

#[test]
fn a_directory_in_use_is_refused_and_its_user_named() {
    let (dir, store) = fresh();
    let refused = Store::open(dir.path()).err().unwrap();
    assert!(matches!(refused, StoreError::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{refused}");
    assert!(refused.to_string().starts_with("another swarm daemon (process "), "{refused}");
    drop(store);
    Store::open(dir.path()).unwrap();
}

#[cfg(unix)]
#[test]
fn the_data_directory_is_for_this_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("a/b");
    let _store = Store::open(&inner).unwrap();
    assert_eq!(fs::metadata(inner).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn tokens_come_in_order_and_their_rows_are_on_disk_by_then() {
    let (_dir, store) = fresh();
    let (writer, mut events) = (store.writer(), store.events().unwrap());
    assert!(store.events().is_none(), "there is one receiver");
    for seq in 0..50 {
        let token = (seq % 3 == 0).then_some(seq);
        writer.try_send(Batch { token, rows: vec![op(1, 1, seq, b"op")] }).unwrap();
    }
    for token in (0..50).step_by(3) {
        assert_eq!(events.blocking_recv(), Some(StoreEvent::Persisted(token)));
        let rows = store.load_ledger().unwrap();
        assert!(rows.contains(&op(1, 1, token, b"op")));
        assert!(rows.len() as u64 > token, "all before it too");
    }
}

#[cfg(unix)]
#[test]
fn nobody_else_reads_the_keys_even_in_a_folder_that_was_there() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = dir.path().join("store.redb");
    let mode = || fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    drop(Store::open(dir.path()).unwrap());
    assert_eq!(mode(), 0o600);
    // As one made by an earlier version is.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    drop(Store::open(dir.path()).unwrap());
    assert_eq!(mode(), 0o600);
    assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o755, "the folder is the person's");
}

#[test]
fn a_full_queue_gives_the_batch_back_and_a_closed_store_too() {
    let (_dir, store) = fresh();
    let writer = store.writer();
    let large = || Batch { token: None, rows: vec![op(1, 1, 0, &vec![7; QUEUE_BYTES / 2])] };
    writer.try_send(large()).unwrap();
    let Err(Refused::Full(back)) = writer.try_send(large()) else {
        panic!("two halves and their keys are too many bytes")
    };
    assert_eq!(back.rows, large().rows);
    store.set_setting("now", b"").unwrap();
    writer.try_send(back).unwrap();
    store.close().unwrap();
    store.close().unwrap();
    assert!(matches!(
        writer.try_send(Batch { token: Some(1), rows: vec![] }),
        Err(Refused::Closed(Batch { token: Some(1), .. }))
    ));
    assert!(matches!(store.set_setting("late", b""), Err(StoreError::Closed)));
}

#[test]
fn tokens_nobody_reads_fill_the_queue_and_do_not_stop_the_thread() {
    let (_dir, store) = fresh();
    let writer = store.writer();
    let mut sent = 0;
    while writer.try_send(Batch { token: Some(sent), rows: vec![] }).is_ok() {
        sent += 1;
        assert!(sent <= 10 * QUEUE_BATCHES as u64, "a bound");
        if sent.is_multiple_of(500) {
            store.set_setting("turn", b"").unwrap();
        }
    }
    store.set_setting("still", b"alive").unwrap();
    let mut events = store.events().unwrap();
    (0..sent).for_each(|token| assert_eq!(events.blocking_recv(), Some(StoreEvent::Persisted(token))));
}

#[test]
fn an_edited_file_brings_few_new_bytes() {
    let (dir, store) = fresh();
    let mut bytes = noise(1, 20_000_000);
    let path = dir.path().join("scene.blend");
    fs::write(&path, &bytes).unwrap();
    let (first, new_bytes) = store.put_file(&path, Chunking::ContentDefined).unwrap();
    assert_eq!(new_bytes, 20_000_000);
    assert_eq!(store.put_file(&path, Chunking::ContentDefined).unwrap(), (first.clone(), 0));
    bytes.splice(9_000_000..9_000_000, *b"edited");
    fs::write(&path, &bytes).unwrap();
    let (second, new_bytes) = store.put_file(&path, Chunking::ContentDefined).unwrap();
    assert_ne!(first.id(), second.id());
    assert!((1..8_000_000).contains(&new_bytes), "{new_bytes}");
    assert_eq!(files_under(&store.dir.join("tmp")), Vec::<PathBuf>::new());
}

#[test]
fn many_files_taken_in_together_are_all_there() {
    let (dir, store) = fresh();
    let file = |index: u64| noise(index % 1500, 100 + index as usize % 1500);
    let mut intake = store.intake();
    let mut new_bytes = 0;
    let mut ids = Vec::new();
    for index in 0..1600 {
        let (map, new) = intake.put_reader(&mut &file(index)[..], Chunking::Fixed).unwrap();
        new_bytes += new;
        ids.push(map.id());
    }
    assert!(store.has(ids[0]) && !store.has(ids[1499]), "a full round is named at once");
    intake.finish().unwrap();
    assert_eq!(new_bytes, (0..1500).map(|index| file(index).len() as u64).sum::<u64>());
    assert_eq!(store.used_bytes(), new_bytes);
    drop(store.intake().put_reader(&mut &b"given up"[..], Chunking::Fixed).unwrap());
    assert_eq!(files_under(&dir.path().join("tmp")), Vec::<PathBuf>::new());
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    for (index, id) in ids.iter().enumerate() {
        assert_eq!(store.read_chunk(*id, 0).unwrap(), file(index as u64));
    }
}

#[test]
fn equal_chunks_are_copied_from_blobs_already_here() {
    let (_dir, store) = fresh();
    let mut bytes = noise(1, 20_000_000);
    store.put_bytes(&bytes).unwrap();
    bytes.splice(9_000_000..9_000_000, *b"edited");
    let map = map_of(&bytes);
    let partial = store.begin(&map).unwrap();
    let missing: Vec<u32> = (0..).zip(&partial.have).filter(|(_, have)| !**have).map(|(index, _)| index).collect();
    assert!((1..=2).contains(&missing.len()), "{missing:?}");
    assert_eq!(store.downloads.ids(), [map.id()]);
    for (index, part) in chunks(&map, &bytes) {
        assert_eq!(store.write_chunk(map.id(), index, part).unwrap(), index >= missing[missing.len() - 1]);
    }
    assert!(store.begin(&map).unwrap().complete());
    assert_eq!(store.downloads.ids(), []);
    let mut read = Vec::new();
    store.open_blob(map.id()).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == bytes);
}

#[test]
fn a_chunk_that_occurs_often_is_fetched_once() {
    let (_dir, store) = fresh();
    let bytes = vec![0; 17_000_000];
    let map = map_of(&bytes);
    assert!(map.chunks.len() > 4);
    store.begin(&map).unwrap();
    let parts = chunks(&map, &bytes);
    assert!(!store.write_chunk(map.id(), 0, parts[0].1).unwrap());
    let (last, rest) = parts.last().unwrap();
    assert!(store.write_chunk(map.id(), *last, rest).unwrap());
}

#[test]
fn the_empty_blob_is_complete_at_once() {
    let (dir, store) = fresh();
    let map = BlobMap::default();
    assert!(store.begin(&map).unwrap().complete());
    assert!(store.has(map.id()));
    store.deliver(map.id(), &dir.path().join("empty")).unwrap();
    assert_eq!(store.put_bytes(b"").unwrap(), (map.id(), map));
}

#[test]
fn chunks_written_from_many_threads_make_one_blob() {
    let (dir, store) = fresh();
    let bytes = noise(6, 24_000_000);
    let map = map_of(&bytes);
    let parts = chunks(&map, &bytes);
    store.begin(&map).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, parts, map) = (&store, &parts, &map);
            // Each writes all, from another place on, so that most chunks arrive several times.
            scope.spawn(move || {
                for (index, part) in parts.iter().cycle().skip(thread * 7).take(parts.len()) {
                    store.write_chunk(map.id(), *index, part).unwrap();
                }
            });
        }
    });
    assert!(store.has(map.id()));
    assert_eq!(store.used_bytes(), map.bytes());
    store.deliver(map.id(), &dir.path().join("out")).unwrap();
    assert!(fs::read(dir.path().join("out")).unwrap() == bytes);
}

#[test]
fn a_chunk_of_the_wrong_length_or_of_an_unknown_blob_is_refused() {
    let (_dir, store) = fresh();
    let map = map_of(b"abc");
    let kind = |done: io::Result<bool>| done.unwrap_err().kind();
    assert_eq!(kind(store.write_chunk(map.id(), 0, b"abc")), io::ErrorKind::NotFound);
    store.begin(&map).unwrap();
    assert_eq!(kind(store.write_chunk(map.id(), 0, b"abcd")), io::ErrorKind::InvalidInput);
    assert_eq!(kind(store.write_chunk(map.id(), 1, b"abc")), io::ErrorKind::NotFound);
    assert!(store.write_chunk(map.id(), 0, b"abc").unwrap());
    assert!(store.write_chunk(map.id(), 0, b"abc").unwrap(), "again is as good");
    let mut unsound = map.clone();
    unsound.chunks[0].bytes = u32::MAX;
    assert_eq!(store.begin(&unsound).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_dropped_blob_is_gone_with_its_chunks_and_can_come_back() {
    let (_dir, store) = fresh();
    let bytes = noise(7, 2_000_000);
    let (id, map) = store.put_bytes(&bytes).unwrap();
    store.read_chunk(id, 0).unwrap();
    store.drop_blob(id).unwrap();
    store.drop_blob(id).unwrap();
    assert!(!store.has(id));
    assert_eq!((store.used_bytes(), store.have(id)), (0, None));
    assert_eq!(store.read_chunk(id, 0).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(!store.begin(&map).unwrap().have.contains(&true));
    store.write_chunk(id, 0, &bytes[..map.chunks[0].bytes as usize]).unwrap();
    assert_eq!(store.put_bytes(&bytes).unwrap().0, id, "a download is overtaken by the whole");
    assert_eq!(store.downloads.ids(), []);
    assert_eq!(files_under(&store.dir.join("partial")), Vec::<PathBuf>::new());
    assert_eq!(store.used_bytes(), map.bytes());
}

#[test]
fn a_renderers_file_is_moved_in_and_links_are_not_followed() {
    let (dir, store) = fresh();
    let out = dir.path().join("0001.png");
    fs::write(&out, b"pixels").unwrap();
    let (id, map) = store.import_file(&out, Chunking::Fixed).unwrap();
    assert!(!out.exists() && store.has(id));
    fs::write(&out, b"pixels").unwrap();
    assert_eq!(store.import_file(&out, Chunking::Fixed).unwrap(), (id, map));
    assert!(!out.exists(), "one already here is taken over too");
    #[cfg(unix)]
    {
        let secret = dir.path().join("secret");
        fs::write(&secret, b"secret").unwrap();
        std::os::unix::fs::symlink(&secret, &out).unwrap();
        assert_eq!(store.import_file(&out, Chunking::Fixed).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        fs::remove_file(&out).unwrap();
        fs::hard_link(&secret, &out).unwrap();
        let (id, _) = store.import_file(&out, Chunking::Fixed).unwrap();
        fs::write(&secret, b"edited").unwrap();
        assert_eq!(store.read_chunk(id, 0).unwrap(), b"secret");
    }
}

#[test]
fn a_blob_is_laid_out_read_only_and_executable_where_asked() {
    let (dir, store) = fresh();
    let (id, _) = store.put_bytes(b"#!/bin/sh\n").unwrap();
    for (name, executable) in [("a/b/script", true), ("a/b/data", false)] {
        let to = dir.path().join(name);
        store.place(id, &to, executable).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"#!/bin/sh\n");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&to).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, if executable { 0o555 } else { 0o444 });
            assert_eq!(fs::metadata(store.blob_path(id)).unwrap().permissions().mode() & 0o777, 0o444);
        }
        assert_eq!(store.place(id, &to, executable).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(to.exists(), "what was there stays");
    }
}

#[test]
fn a_delivery_replaces_what_was_there_and_a_rotten_blob_is_not_delivered() {
    let (dir, store) = fresh();
    let (id, _) = store.put_bytes(b"new frame").unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    let to = out.join("0001.png");
    fs::write(&to, b"old frame").unwrap();
    store.deliver(id, &to).unwrap();
    assert_eq!(fs::read(&to).unwrap(), b"new frame");
    damage(&store, id, b"bad frame");
    assert_eq!(store.deliver(id, &to).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(fs::read(&to).unwrap(), b"new frame");
    assert_eq!(files_under(&out), [to]);
    assert_eq!(store.deliver(id, &dir.path().join("no/such/folder")).unwrap_err().kind(), io::ErrorKind::NotFound);
}

/// Puts other bytes in the place of a blob's.
fn damage(store: &Store, id: BlobId, bytes: &[u8]) {
    files::set_mode(&store.blob_path(id), 0o644).unwrap();
    fs::write(store.blob_path(id), bytes).unwrap();
}

#[test]
#[cfg(unix)]
fn a_blob_whose_file_cannot_be_looked_at_is_told_of_and_neither_here_nor_gone() {
    let (_dir, store) = fresh();
    let [one, two] = ["one", "two"].map(|text| store.put_bytes(text.as_bytes()).unwrap().0);
    let path = store.blob_path(one);
    let kept = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let found = store.look_for(&BTreeSet::from([one, two])).unwrap();
    assert_eq!((found.here, found.unseen, store.take_gone()), (vec![two], 1, vec![]));
    assert!(found.why.unwrap().to_string().contains(&path.display().to_string()));
    fs::remove_file(&path).unwrap();
    fs::write(&path, kept).unwrap();
    assert_eq!(store.look_for(&BTreeSet::from([one])).unwrap().here, [one]);
}

#[test]
fn a_blob_whose_file_is_gone_or_damaged_is_forgotten_and_told_of_once() {
    let (dir, store) = fresh();
    let put = |text: &str| store.put_bytes(text.as_bytes()).unwrap().0;
    let to = dir.path().join("out");
    let look = |id| store.look_for(&BTreeSet::from([id]));
    // However it is noticed.
    type Notice<'a> = &'a dyn Fn(BlobId) -> bool;
    let ways: [(&str, Option<&str>, Notice); 7] = [
        ("asked for", None, &|id| store.read_chunk(id, 0).is_err()),
        ("asked for again", Some("asked for agaim"), &|id| store.read_checked(id, 0).is_err()),
        ("delivered", Some("deliverex"), &|id| store.deliver(id, &to).is_err()),
        ("laid out", None, &|id| store.place(id, &to, false).is_err()),
        ("looked for", None, &|id| look(id).is_ok()),
        ("looked at", Some("short"), &|id| look(id).is_ok()),
        ("cut short while it is open", Some("cut"), &|id| store.read_chunk(id, 0).is_err()),
    ];
    for (text, becomes, notice) in ways {
        let id = put(text);
        if text.contains("open") {
            store.read_chunk(id, 0).unwrap();
        }
        match becomes {
            Some(bytes) => damage(&store, id, bytes.as_bytes()),
            None => fs::remove_file(store.blob_path(id)).unwrap(),
        }
        assert!(notice(id) && !store.has(id), "{text}");
        assert_eq!((store.take_gone(), store.take_gone()), (vec![id], vec![]), "{text}");
        assert!(!store.blob_path(id).exists() && !to.exists(), "{text}");
    }
    let (sound, unknown) = (put("sound"), BlobId([1; 32]));
    assert_eq!(store.read_checked(sound, 0).unwrap(), b"sound");
    assert_eq!(store.look_for(&BTreeSet::from([sound, unknown])).unwrap().here, [sound]);
    assert_eq!(store.take_gone(), [unknown]);
    // What came back is not gone.
    fs::remove_file(store.blob_path(sound)).unwrap();
    look(sound).unwrap();
    put("sound");
    assert_eq!(store.take_gone(), []);
}

#[test]
fn a_delivery_that_hangs_keeps_the_blob_from_no_other_folder() {
    let (dir, store) = fresh();
    // More than a pipe takes.
    let (id, _) = store.put_bytes(&noise(3, 1 << 20)).unwrap();
    let (slow, other) = (dir.path().join("0001.png"), dir.path().join("other.png"));
    let mark = chunk_id(&[&id.0, slow.as_os_str().as_encoded_bytes()].concat());
    let pipe = dir.path().join(format!(".swarm-{}.part", mark.short()));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let hangs = std::thread::spawn({
        let store = store.clone();
        move || store.deliver(id, &slow)
    });
    // Opens once the delivery has begun to write.
    let reader = File::open(&pipe).unwrap();
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || tell.send(store.deliver(id, &other)));
    let delivered = told.recv_timeout(std::time::Duration::from_secs(60));
    drop(reader);
    assert!(hangs.join().unwrap().is_err(), "nobody read it");
    delivered.unwrap().unwrap();
}

#[test]
fn work_of_many_threads_is_committed_together() {
    let (_dir, store) = fresh();
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let store = &store;
            scope.spawn(move || {
                for turn in 0..4 {
                    let bytes = noise(thread * 100 + turn, 10_000);
                    let (id, _) = store.put_bytes(&bytes).unwrap();
                    assert_eq!(store.read_chunk(id, 0).unwrap(), bytes);
                }
            });
        }
    });
    assert_eq!(store.blobs().unwrap().len(), 32);
    assert_eq!(store.used_bytes(), 320_000);
}
