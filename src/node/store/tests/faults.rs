//! The store under faults: crashes, kills, damage, full disks.

use super::*;

#[test]
fn a_newer_store_is_refused_and_left_alone() {
    let (dir, store) = fresh();
    drop(store);
    let file = dir.path().join("store.redb");
    {
        let db = redb::Database::open(&file).unwrap();
        let tx = db.begin_write().unwrap();
        let newer = (database::FORMAT + 1).to_le_bytes();
        tx.open_table(redb::TableDefinition::<&str, &[u8]>::new("meta")).unwrap().insert("format", &newer[..]).unwrap();
        tx.commit().unwrap();
    }
    let before = fs::read(&file).unwrap();
    let refused = Store::open(dir.path()).err().unwrap();
    assert!(matches!(refused, StoreError::Newer { found, known, .. } if found == known + 1), "{refused}");
    assert!(fs::read(&file).unwrap() == before);
}

#[test]
fn a_file_that_is_no_database_is_named_and_left_alone() {
    for garbage in [b"hello".to_vec(), noise(1, 100), noise(2, 1 << 20)] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store.redb");
        fs::write(&file, &garbage).unwrap();
        let refused = Store::open(dir.path()).err().unwrap();
        assert!(matches!(&refused, StoreError::Unreadable { .. }), "{} bytes: {refused:?}", garbage.len());
        assert!(refused.to_string().contains("store.redb cannot be read"), "{refused}");
        assert!(fs::read(&file).unwrap() == garbage);
    }
}

#[test]
fn a_damaged_database_is_an_error_or_readable_and_never_a_panic() {
    let (dir, store) = fresh();
    let rows = (0..200).map(|seq| op(1, 1, seq, &noise(seq, 500))).collect();
    store.writer().try_send(Batch { token: None, rows }).unwrap();
    drop(store);
    let sound = fs::read(dir.path().join("store.redb")).unwrap();
    let mut refused = 0;
    for seed in 0..48u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = sound.clone();
        let place = noise(seed, 8).iter().fold(0, |place, byte| place << 8 | usize::from(*byte));
        match seed % 3 {
            0 => bytes.truncate(place % sound.len()),
            1 => bytes[place % 512] ^= 0x10, // its header
            _ => (0..64).for_each(|at| bytes[place % (sound.len() - 64) + at] ^= 0xa5),
        }
        fs::write(dir.path().join("store.redb"), &bytes).unwrap();
        match Store::open(dir.path()).and_then(|store| store.load_ledger()) {
            Ok(_) => {}
            Err(e) => {
                refused += 1;
                assert!(e.to_string().contains("store.redb"), "seed {seed}: {e}");
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_download_goes_on_after_a_clean_stop_and_after_a_crash() {
    for clean in [true, false] {
        let (dir, store) = fresh();
        let bytes = noise(4, 12_000_000);
        let map = map_of(&bytes);
        let parts = chunks(&map, &bytes);
        store.begin(&map).unwrap();
        parts[..4].iter().for_each(|(index, part)| assert!(!store.write_chunk(map.id(), *index, part).unwrap()));
        assert_eq!(store.read_chunk(map.id(), 2).unwrap(), parts[2].1);
        assert_eq!(store.read_chunk(map.id(), 5).unwrap_err().kind(), io::ErrorKind::NotFound);
        let mut have: Vec<bool> = (0..map.chunks.len()).map(|index| index < 4).collect();
        assert_eq!(store.have(map.id()).as_deref(), Some(&have[..]));
        if clean {
            drop(store);
        } else {
            crash(store);
            // What a lost page looks like.
            let file = File::options().write(true).open(dir.path().join("partial").join(map.id().to_string())).unwrap();
            files::write_all_at(&file, b"torn", u64::from(map.chunks[0].bytes) + 5).unwrap();
            have[1] = false;
        }
        let store = Store::open(dir.path()).unwrap();
        assert!(!store.has(map.id()));
        assert!(store.used_bytes() > 0);
        assert_eq!(store.downloads.ids(), [map.id()]);
        assert_eq!(store.begin(&map).unwrap().have, have, "clean: {clean}");
        let complete = |(index, part): &(u32, &[u8])| store.write_chunk(map.id(), *index, part).unwrap();
        assert_eq!(parts.iter().map(complete).filter(|complete| *complete).count(), 1);
        assert_eq!(store.used_bytes(), map.bytes());
        store.deliver(map.id(), &dir.path().join("out")).unwrap();
        assert!(fs::read(dir.path().join("out")).unwrap() == bytes);
    }
}

#[test]
fn a_truncated_download_loses_only_its_tail() {
    let (dir, store) = fresh();
    let bytes = noise(5, 8_000_000);
    let map = map_of(&bytes);
    let parts = chunks(&map, &bytes);
    let last = parts.len() - 1;
    store.begin(&map).unwrap();
    parts[1..].iter().for_each(|(index, part)| assert!(!store.write_chunk(map.id(), *index, part).unwrap()));
    drop(store); // even a clean stop is not believed about a file of another length
    let file = File::options().write(true).open(dir.path().join("partial").join(map.id().to_string())).unwrap();
    file.set_len(map.bytes() - 1).unwrap();
    let store = Store::open(dir.path()).unwrap();
    let have: Vec<bool> = (0..parts.len()).map(|index| index != 0 && index != last).collect();
    assert_eq!(store.begin(&map).unwrap().have, have);
}

#[test]
fn a_crash_between_file_and_record_leaves_nothing_and_a_lost_file_is_forgotten() {
    let (dir, store) = fresh();
    let (kept, _) = store.put_bytes(b"kept").unwrap();
    let (lost, _) = store.put_bytes(b"lost").unwrap();
    let orphan = store.blob_path(map_of(b"orphan").id());
    fs::write(&orphan, b"orphan").unwrap();
    let foreign = dir.path().join("blobs/00/notes.txt");
    fs::write(&foreign, b"mine").unwrap();
    fs::write(dir.path().join("tmp/17"), b"half").unwrap();
    fs::remove_file(store.blob_path(lost)).unwrap();
    crash(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(store.has(kept) && !store.has(lost));
    assert_eq!(store.used_bytes(), 4);
    assert!(!orphan.exists() && foreign.exists());
    assert_eq!(files_under(&dir.path().join("tmp")), Vec::<PathBuf>::new());
    // Without a crash in between, the loss is found out at the first use.
    fs::remove_file(store.blob_path(kept)).unwrap();
    assert_eq!(store.read_chunk(kept, 0).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(!store.has(kept));
}

/// A small disk of its own; none without the right to mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let mount = ["-t", "tmpfs", "-o", &format!("size={size}"), "swarm-test"];
        let done = std::process::Command::new("mount").args(mount).arg(at).output();
        if done.is_ok_and(|done| done.status.success()) {
            return Some(Self(at.into()));
        }
        eprintln!("skipped: only root can mount a small disk to fill");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_nothing_of_a_delivery() {
    let (dir, store) = fresh();
    let Some(disk) = SmallDisk::mount(&dir.path().join("full"), "1m") else { return };
    let (id, _) = store.put_bytes(&noise(1, 2_000_000)).unwrap();
    let to = disk.0.join("0001.exr");
    let refused = store.deliver(id, &to).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull, "{refused}");
    assert!(refused.to_string().contains("0001.exr"), "{refused}");
    let refused = store.place(id, &to, false).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull, "{refused}");
    assert_eq!(files_under(&disk.0), Vec::<PathBuf>::new());
}

#[test]
fn a_full_disk_delays_what_was_queued_and_loses_none_of_it() {
    let (dir, fresh) = fresh();
    drop(fresh);
    let Some(disk) = SmallDisk::mount(&dir.path().join("full"), "24m") else { return };
    let store = Store::open(&disk.0).unwrap();
    let mut events = store.events().unwrap();
    let (known, _) = store.put_bytes(&noise(1, 100_000)).unwrap();
    let filler = disk.0.join("filler");
    let full = io::copy(&mut io::repeat(1), &mut File::create(&filler).unwrap());
    assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);

    let rows: Vec<LedgerRow> = (0..64).map(|seq| op(1, 1, seq, &noise(seq, 100_000))).collect();
    store.writer().try_send(Batch { token: Some(1), rows: rows.clone() }).unwrap();
    store.writer().try_send(Batch { token: Some(2), rows: vec![head(1, 1, b"h")] }).unwrap();
    let said = events.blocking_recv();
    assert!(matches!(&said, Some(StoreEvent::Failed { why }) if why.contains("store.redb")), "{said:?}");
    let map = map_of(&noise(2, 9_000_000));
    assert_eq!(store.begin(&map).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(store.put_bytes(&noise(3, 1_000_000)).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(store.read_chunk(known, 0).unwrap(), noise(1, 100_000), "what is there can be read all the while");
    assert_eq!(files_under(&disk.0.join("tmp")), Vec::<PathBuf>::new());

    fs::remove_file(&filler).unwrap();
    assert_eq!(events.blocking_recv(), Some(StoreEvent::Persisted(1)));
    assert_eq!(events.blocking_recv(), Some(StoreEvent::Persisted(2)));
    drop(store);
    let loaded = Store::open(&disk.0).unwrap().load_ledger().unwrap();
    assert!(loaded.len() == 65 && loaded[..64] == rows[..]);
}

const CHILD_DIR: &str = "SWARM_TEST_STORE_CHILD";

/// Not a test of its own: what the next one runs in another process and kills.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let store = Store::open(Path::new(&dir)).unwrap();
    let mut events = store.events().unwrap();
    let bytes = noise(1, 12_000_000);
    let map = map_of(&bytes);
    store.begin(&map).unwrap();
    store.write_chunk(map.id(), 3, chunks(&map, &bytes)[3].1).unwrap();
    for seq in 0.. {
        store.writer().try_send(Batch { token: Some(seq), rows: vec![op(1, 1, seq, b"op")] }).unwrap();
        let Some(StoreEvent::Persisted(token)) = events.blocking_recv() else { panic!("a commit failed") };
        println!("\npersisted {token}");
    }
}

#[test]
fn a_killed_process_loses_nothing_it_said_was_durable() {
    use std::io::BufRead;
    let dir = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "node::store::tests::faults::child_that_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = io::BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut tokens = lines.filter_map(|line| line.strip_prefix("persisted ")?.parse::<u64>().ok());
    let reached = tokens.by_ref().find(|token| *token == 20);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(reached, Some(20));
    let last = tokens.last().unwrap_or(20);
    let store = Store::open(dir.path()).unwrap();
    let rows = store.load_ledger().unwrap();
    (0..=last).for_each(|seq| assert!(rows.contains(&op(1, 1, seq, b"op")), "op {seq} of {last}"));
    let have = store.begin(&map_of(&noise(1, 12_000_000))).unwrap().have;
    assert!((0..).zip(have).all(|(index, have)| have == (index == 3)));
}
