//! Slots without a Blender.
#![allow(clippy::unwrap_used)]

use super::*;

fn slots(dir: &Path) -> (Slots, mpsc::Receiver<Event>) {
    let store = Store::open(&dir.join("data")).unwrap();
    let (tell, events) = mpsc::channel(1);
    let (scratch, logs) = (dir.join("scratch"), Logs::new(&dir.join("scratch")));
    (Slots::new(store, logs, scratch, None, tell).unwrap(), events)
}

#[cfg(unix)]
#[test]
fn nobody_else_reads_scenes_and_frames() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let scratch = dir.path().join("scratch");
    let mode = || std::fs::metadata(&scratch).unwrap().permissions().mode() & 0o777;
    slots(dir.path());
    assert_eq!(mode(), 0o700);
    // As one made by an earlier version is.
    std::fs::set_permissions(&scratch, std::fs::Permissions::from_mode(0o755)).unwrap();
    slots(dir.path());
    assert_eq!(mode(), 0o700);
}

/// Those that Blender opens for writing must not be read-only, and must not be the store's own files.
#[cfg(unix)]
#[test]
fn the_frames_of_a_bake_are_laid_out_as_copies_that_may_be_written() {
    use crate::farm::blob::{BundleFile, Manifest};
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let (_, map) = store.put_bytes(b"{}").unwrap();
    let file = |path: &str| BundleFile { path: path.into(), executable: false, map: map.clone() };
    let files = ["f/a/7/blobs/1.blob", "f/a/7/meta/1.json", "f/b/s.blend"].map(file).to_vec();
    let manifest = Manifest { main: "f/b/s.blend".into(), files };
    let (bundle, _) = store.put_bytes(&wire::encode_manifest(&manifest).unwrap()).unwrap();
    let LaidOut { blend: main, disk, .. } = lay_out(&store, dir.path(), bundle).unwrap();
    let root = main.ancestors().nth(3).unwrap();
    let may_write = |path: &str| root.join(path).metadata().unwrap().permissions().mode() & 0o200 != 0;
    let (reads, writes) = (vec![root.to_path_buf()], vec![root.join("f/a/7/meta")]);
    assert_eq!(disk, Disk { reads, writes, blends: vec![main.clone()] });
    let writable: Vec<bool> = manifest.files.iter().map(|file| may_write(&file.path)).collect();
    assert_eq!(writable, [false, true, false]);
    std::fs::write(root.join("f/a/7/meta/1.json"), "written").unwrap();
    assert_eq!(read_blob(&store, map.id(), 10).unwrap(), b"{}");
}

#[tokio::test]
async fn a_job_with_scripts_is_not_rendered_where_they_may_not_run_whatever_asks_for_it() {
    use crate::farm::scripts::Scripts;
    let dir = tempfile::tempdir().unwrap();
    let (mut slots, mut events) = slots(dir.path());
    let mut spec = crate::wire::tests::spec();
    spec.settings.scripts = Scripts { in_files: true, file: None };
    let (scene, unit) = ((JobId([1; 16]), 0), Unit::whole(1));
    let work =
        Work { scene, spec: Arc::new(spec), unit, epoch: 0, fresh: false, may_run_scripts: false, time_limit: None };
    slots.render(work);
    let Some(Event::UnitFinished(finished)) = events.recv().await else { panic!("an end") };
    let Input::RenderFailed { message, .. } = finished.input else { panic!("a failure") };
    assert!(message.contains("this machine does not run them"), "{message}");
}

#[tokio::test]
async fn each_unit_has_the_gpu_of_a_free_slot() {
    let dir = tempfile::tempdir().unwrap();
    let (mut slots, _events) = slots(dir.path());
    let gpu = |id: &str| DeviceInfo { backend: "CUDA".into(), name: "A".into(), id: id.into(), memory: None };
    let spec = Arc::new(crate::wire::tests::spec());
    let work = |frame| Work {
        scene: (JobId([1; 16]), 0),
        spec: spec.clone(),
        unit: Unit::whole(frame),
        epoch: 0,
        fresh: false,
        may_run_scripts: true,
        time_limit: None,
    };
    let rendered_on = |slots: &mut Slots, frame| {
        slots.render(work(frame));
        slots.running[&(JobId([1; 16]), Unit::whole(frame))].gpu.clone()
    };
    assert_eq!(rendered_on(&mut slots, 1), None, "all share all");
    slots.gpus = vec![gpu("a"), gpu("b")];
    assert_eq!(rendered_on(&mut slots, 2), Some(gpu("a")));
    assert_eq!(rendered_on(&mut slots, 3), Some(gpu("b")));
    slots.stop(JobId([1; 16]), Unit::whole(2));
    assert_eq!(rendered_on(&mut slots, 4), Some(gpu("a")));
    slots.shut_down().await;
}

#[tokio::test]
async fn a_test_frame_ends_when_the_slots_shut_down() {
    let dir = tempfile::tempdir().unwrap();
    let (mut slots, mut events) = slots(dir.path());
    // Full, so that the test is not over before it is stopped.
    slots.events.try_send(Event::Swept).unwrap();
    slots.self_test(&BTreeSet::new());
    slots.shut_down().await;
    drop(slots);
    assert!(matches!(events.recv().await, Some(Event::Swept)));
    assert!(events.recv().await.is_none());
}
