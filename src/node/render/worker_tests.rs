//! The worker against the Blenders of this machine.
#![allow(clippy::unwrap_used)]

use super::super::tests::{one_frame, pixels, renderers, scene, worker_scene};
use super::*;
use crate::farm::ability::Ability;
use crate::farm::job::Device;

/// A frame that takes longer than any test waits for it, and prints its progress often.
const ENDLESS: &str = "scene.cycles.samples = 10_000_000; scene.cycles.use_adaptive_sampling = False";
/// Longest wait for what happens within a second or two on a machine that is not busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn of(blend: &Path) -> WorkerScene {
    worker_scene(blend, RenderSettings::default())
}

/// A worker on a scene changed by `change`, and the folder of both.
async fn started(renderer: &Renderer, change: &str) -> (Result<Worker, RenderError>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let blend = scene(renderer, dir.path(), change);
    (Worker::start(renderer, of(&blend), dir.path()).await, dir)
}

/// Draws a unit and keeps what came of it.
async fn render(worker: &mut Worker, unit: Unit, out: &Path) -> Result<Rendered, UnitFailure> {
    worker.draw(unit, out, None).await?.keep().await
}

/// Waits until no process of the group uses the machine: the kernel needs a moment to end one.
async fn gone(group: u32) {
    let over = async {
        while cpu_ticks(group).is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, over).await.expect("the processes are gone");
}

#[tokio::test]
async fn a_worker_renders_frame_after_frame_the_same_as_blender_alone() {
    for renderer in renderers().await {
        let (worker, dir) = started(renderer, "pass").await;
        let mut worker = worker.unwrap();
        assert_eq!(worker.device().split(' ').next().unwrap(), renderer.devices[0].backend);
        for frame in [3, -1, 7] {
            let out = dir.path().join(format!("out # {{frame}} {frame}.png"));
            let rendered = render(&mut worker, Unit::whole(frame), &out).await.unwrap();
            assert_eq!(rendered.bytes, out.metadata().unwrap().len());
            assert!(rendered.seconds > 0.0 && rendered.log.contains("Saved:"), "{rendered:?}");
            assert_eq!(rendered.warnings, Vec::<String>::new());
            assert_eq!(*worker.progress().borrow(), 1.0);
            if frame == 3 && rendered.device == "CPU" {
                let alone = one_frame(renderer, &dir.path().join("scene.blend"), 3, dir.path());
                assert_eq!(pixels(&out), pixels(&alone));
            }
        }
        let group = worker.child.as_ref().unwrap().group().id();
        worker.close().await;
        gone(group).await;
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().contains(".part")), "{names:?}");
    }
}

#[tokio::test]
async fn settings_of_the_job_win_over_the_files() {
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let blend = scene(renderer, dir.path(), "render.resolution_percentage = 25; render.threads_mode = 'FIXED'");
        let mut wanted = of(&blend);
        wanted.settings =
            RenderSettings { resolution: Some((40, 20)), percent: Some(50), samples: Some(2), ..Default::default() };
        (wanted.size, wanted.format) = ((20, 10), ImageFormat::Exr);
        let mut worker = Worker::start(renderer, wanted.clone(), dir.path()).await.unwrap();
        let out = dir.path().join("small.exr");
        render(&mut worker, Unit::whole(1), &out).await.unwrap();
        let log = render(&mut worker, Unit::whole(2), &out).await.unwrap().log;
        // From 5.0 on the samples are told to handlers alone.
        assert!(log.contains("Sample 2/2") || renderer.series.major >= 5, "{log}");
        wanted.size = (20, 11);
        let mut worker = Worker::start(renderer, wanted.clone(), dir.path()).await.unwrap();
        let failure = render(&mut worker, Unit::whole(1), &dir.path().join("other.exr")).await.unwrap_err();
        assert_eq!((failure.kind, failure.worker_lives), (FailureKind::BadOutput, true), "{failure:?}");
        assert!(!dir.path().join("other.exr").exists());
        wanted.settings.engine = Some("OCTANE".into());
        let error = Worker::start(renderer, wanted, dir.path()).await.unwrap_err().to_string();
        assert!(error.contains("no render engine `OCTANE`"), "{error}");
    }
}

/// The value of an attribute of an OpenEXR file.
fn attribute(path: &Path, name_and_kind: &str) -> Vec<u8> {
    let file = std::fs::read(path).unwrap();
    let mark = name_and_kind.replace(' ', "\0") + "\0";
    let at = file.windows(mark.len()).position(|bytes| bytes == mark.as_bytes()).unwrap() + mark.len();
    let length = u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    file[at + 4..at + 4 + length].to_vec()
}

/// Mean of all samples, 0 to 255.
fn mean(path: &Path) -> f64 {
    let picture = image::ImageReader::open(path).unwrap().with_guessed_format().unwrap().decode().unwrap().into_rgb8();
    picture.iter().map(|sample| f64::from(*sample)).sum::<f64>() / picture.len() as f64
}

#[tokio::test]
async fn light_is_rendered_as_the_scene_has_it_with_a_preview_as_people_see_it() {
    let exr = "s = render.image_settings\n\
               if hasattr(s, 'media_type'): s.media_type = 'IMAGE'\n\
               s.file_format, s.color_depth, s.exr_codec, s.color_mode = 'OPEN_EXR', '16', 'PIZ', 'RGBA'\n\
               if hasattr(s, 'use_preview'): s.use_preview = True";
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let mut wanted = of(&scene(renderer, dir.path(), exr));
        let mut worker = Worker::start(renderer, wanted.clone(), dir.path()).await.unwrap();
        let picture = dir.path().join("picture.png");
        let rendered = render(&mut worker, Unit::whole(1), &picture).await.unwrap();
        assert_eq!(rendered.preview, None);
        for (format, depth) in [(ImageFormat::Exr, None), (ImageFormat::ExrMultilayer, Some(32))] {
            (wanted.format, wanted.settings.depth) = (format, depth);
            let mut worker = Worker::start(renderer, wanted.clone(), dir.path()).await.unwrap();
            // The second time, that what the preview needed is as it was before.
            for frame in [2, 1] {
                let out = dir.path().join(format!("frame # {{frame}} {frame}.exr"));
                let rendered = render(&mut worker, Unit::whole(frame), &out).await.unwrap();
                let (preview, bytes) = rendered.preview.unwrap();
                assert_eq!(preview.metadata().unwrap().len(), bytes);
                super::super::check_image(&preview, ImageFormat::Jpeg, (64, 36)).unwrap();
                if frame == 1 {
                    let (seen, told) = (mean(&picture), mean(&preview));
                    assert!((seen - told).abs() < 2.0, "{format:?} by {}: {seen} {told}", renderer.version_text());
                }
                assert_eq!(attribute(&out, "compression compression"), [4], "PIZ");
                let channels = attribute(&out, "channels chlist");
                let name = channels.iter().position(|byte| *byte == 0).unwrap();
                let half_or_float = if depth.is_none() { 1 } else { 2 };
                assert_eq!(channels[name + 1], half_or_float, "{format:?} by {}", renderer.version_text());
                let has_alpha = channels.windows(3).any(|bytes| bytes == b"A\0\x01" || bytes == b"A\0\x02");
                assert!(has_alpha, "{format:?} by {}", renderer.version_text());
            }
        }
        let names = std::fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name());
        let names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        assert!(!names.iter().any(|name| name.contains(".part")), "{names:?}");
        assert_eq!(names.iter().filter(|name| name.ends_with(".jpg")).count(), 2, "{names:?}");
    }
}

#[tokio::test]
async fn depth_is_the_scenes_unless_the_job_says_another() {
    let deep = "render.image_settings.color_depth = '16'";
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let mut wanted = of(&scene(renderer, dir.path(), deep));
        for (format, depth, bits) in [
            (ImageFormat::Png, None, 16),
            (ImageFormat::Png, Some(8), 8),
            (ImageFormat::Tiff, Some(16), 16),
            (ImageFormat::Jpeg, None, 8),
        ] {
            (wanted.format, wanted.settings.depth) = (format, depth);
            let mut worker = Worker::start(renderer, wanted.clone(), dir.path()).await.unwrap();
            let out = dir.path().join("image");
            render(&mut worker, Unit::whole(1), &out).await.unwrap();
            let color =
                image::ImageReader::open(&out).unwrap().with_guessed_format().unwrap().decode().unwrap().color();
            let found = u16::from(color.bytes_per_pixel()) * 8 / u16::from(color.channel_count());
            assert_eq!(found, bits, "{format:?} {depth:?} by {}", renderer.version_text());
        }
        wanted.settings.depth = Some(32);
        let error = Worker::start(renderer, wanted, dir.path()).await.unwrap_err().to_string();
        assert!(error.contains("cannot write JPEG images of 32 bits"), "{error}");
    }
}

#[tokio::test]
async fn a_dropped_render_leaves_no_process_no_file_and_no_worker() {
    for renderer in renderers().await {
        let (worker, dir) = started(renderer, ENDLESS).await;
        let mut worker = worker.unwrap();
        let group = worker.child.as_ref().unwrap().group().id();
        let mut progress = worker.progress();
        progress.mark_unchanged();
        let out = dir.path().join("never.png");
        let begun = tokio::time::timeout(PATIENCE, async {
            tokio::select! {
                result = render(&mut worker, Unit::whole(1), &out) => panic!("{result:?}"),
                begun = async { progress.wait_for(|now| *now > 0.0).await.map(|now| *now) } => begun,
            }
        });
        begun.await.expect("it renders").unwrap();
        gone(group).await;
        assert!(!worker.lives());
        let failure = render(&mut worker, Unit::whole(1), &out).await.unwrap_err();
        assert_eq!((failure.kind, failure.worker_lives), (FailureKind::CannotStart, false));
        assert!(!out.exists());
    }
}

#[tokio::test]
async fn a_blender_that_has_grown_is_let_go_and_its_frame_says_so() {
    let grows = r#"
cube.modifiers.new("s", "SUBSURF")
for frame, level in ((1, 0), (3, 0), (4, 8), (5, 8)):
    cube.modifiers["s"].render_levels = level
    cube.modifiers["s"].keyframe_insert("render_levels", frame=frame)
"#;
    for renderer in renderers().await {
        let (worker, dir) = started(renderer, grows).await;
        let mut worker = worker.unwrap();
        worker.memory = Memory::new(1024 * 1024);
        for frame in 1..=3 {
            let rendered = render(&mut worker, Unit::whole(frame), &dir.path().join("out.png")).await.unwrap();
            assert!(worker.lives() && !rendered.log.contains("has grown"), "{rendered:?}");
        }
        let group = worker.child.as_ref().unwrap().group().id();
        worker.memory.look_again();
        let rendered = render(&mut worker, Unit::whole(4), &dir.path().join("out.png")).await.unwrap();
        assert!(rendered.log.contains("swarm: this Blender has grown to "), "{rendered:?}");
        assert!(!worker.lives());
        gone(group).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_blender_that_dies_hangs_or_takes_too_long_fails_the_unit_each_in_its_own_way() {
    use rustix::process::{Pid, Signal, kill_process_group};
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let blend = scene(renderer, dir.path(), ENDLESS);
        let out = dir.path().join("never.png");
        let cases = [
            (Some(Signal::SEGV), None, FailureKind::Crash, "crashed (signal 11)"),
            (Some(Signal::STOP), None, FailureKind::Stalled, "hung at frame 4"),
            (None, Some(Duration::from_secs(2)), FailureKind::TimeLimit, "time limit of 2 seconds"),
        ];
        for (signal, time_limit, kind, message) in cases {
            // Only what is stopped may be taken for hung, however slow the machine.
            let after = if signal == Some(Signal::STOP) { Duration::from_secs(10) } else { STALL };
            let stall = Stall { after, look: Duration::from_millis(100) };
            let mut worker = Worker::start_with(renderer, of(&blend), dir.path(), stall).await.unwrap();
            let group = worker.child.as_ref().unwrap().group().id();
            let mut progress = worker.progress();
            let (result, ()) = tokio::join!(worker.draw(Unit::whole(4), &out, time_limit), async {
                let Some(signal) = signal else { return };
                progress.wait_for(|now| *now > 0.0).await.unwrap();
                kill_process_group(Pid::from_raw(group as i32).unwrap(), signal).unwrap();
            });
            let failure = result.unwrap_err();
            assert_eq!((failure.kind, failure.worker_lives), (kind, false), "{failure:?}");
            assert!(failure.message.contains(message), "{failure:?}");
            gone(group).await;
        }
    }
}

#[test]
fn where_cpu_use_is_not_told_silence_is_no_stall() {
    assert!(idle(Some(7), Some(7)));
    assert!(!idle(Some(7), Some(8)) && !idle(None, None) && !idle(Some(7), None) && !idle(None, Some(7)));
}

#[tokio::test]
async fn without_a_file_the_default_scene_is_rendered_as_any_other() {
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let settings = RenderSettings {
            engine: Some("CYCLES".into()),
            samples: Some(1),
            resolution: Some((64, 64)),
            percent: Some(100),
            ..RenderSettings::default()
        };
        let default = WorkerScene { blend: None, settings, size: (64, 64), ..of(dir.path()) };
        let mut worker = Worker::start(renderer, default, dir.path()).await.unwrap();
        let out = dir.path().join("test.png");
        render(&mut worker, Unit::whole(1), &out).await.unwrap();
        assert!(out.is_file());
    }
}

#[tokio::test]
async fn the_end_of_stdin_ends_blender_in_the_middle_of_a_frame() {
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let blend = scene(renderer, dir.path(), ENDLESS);
        let mut child =
            Child::start(&renderer.path, renderer.kind, Mode::Serve, Some(1), None, dir.path(), None).await.unwrap();
        child.send(&json!({ "blend": blend, "device": "cpu", "format": "PNG" })).await.unwrap();
        let (out, files) = (dir.path().join("never.png"), dir.path().join("files"));
        child.send(&json!({ "frame": 1, "out": out, "files": files })).await.unwrap();
        let ended = async {
            loop {
                match child.next().await {
                    Event::Line(line) if progress(&line).is_some_and(|p| p > 0.0) => child.hang_up(),
                    Event::Answer(answer) if progress(text(&answer["text"])).is_some_and(|p| p > 0.0) => {
                        child.hang_up()
                    }
                    Event::Line(_) | Event::Answer(_) => {}
                    Event::Gone(gone) => return gone.to_string(),
                }
            }
        };
        assert_eq!(tokio::time::timeout(PATIENCE, ended).await.unwrap(), "ended by itself with exit code 0");
    }
}

/// Ubuntu 22.04's Blender 3.0 comes without a colour configuration and complains of its own default file.
#[cfg(unix)]
#[tokio::test]
async fn what_blender_says_before_it_opens_the_scene_is_not_held_against_the_scene() {
    use std::os::unix::fs::PermissionsExt;
    let complaint = "Color management: scene view \"Filmic\" not found, setting default \"Standard\".";
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let blend = scene(renderer, dir.path(), "pass");
        let mut complains = renderer.clone();
        complains.path = dir.path().join("blender");
        let script = format!("#!/bin/sh\necho '{complaint}'\nexec '{}' \"$@\"\n", renderer.path.display());
        std::fs::write(&complains.path, script).unwrap();
        std::fs::set_permissions(&complains.path, std::fs::Permissions::from_mode(0o755)).unwrap();
        for blend in [Some(blend), None] {
            let (engine, resolution, percent) = (Some("CYCLES".into()), Some((64, 36)), Some(100));
            let settings = RenderSettings { engine, samples: Some(1), resolution, percent, ..Default::default() };
            let wanted = WorkerScene { blend, settings, ..of(dir.path()) };
            let mut worker = Worker::start(&complains, wanted, dir.path()).await.unwrap();
            let rendered = render(&mut worker, Unit::whole(1), &dir.path().join("out.png")).await.unwrap();
            assert_eq!(rendered.warnings, Vec::<String>::new());
        }
    }
    let told = explain(complaint, false);
    assert!(told.contains("scene view \"Filmic\" not found, setting default \"Standard\"); use a"), "{told}");
}

#[tokio::test]
async fn a_scene_that_cannot_be_rendered_is_refused_with_the_reason() {
    for renderer in renderers().await {
        let (worker, dir) = started(renderer, "scene.camera = None").await;
        let mut worker = worker.unwrap();
        let failure = render(&mut worker, Unit::whole(1), &dir.path().join("none.png")).await.unwrap_err();
        assert_eq!((failure.kind, failure.worker_lives), (FailureKind::Error, true));
        assert!(failure.message.to_lowercase().contains("no camera"), "{failure:?}");

        let nowhere = of(&dir.path().join("nowhere.blend"));
        let error = Worker::start(renderer, nowhere, dir.path()).await.unwrap_err();
        assert!(matches!(error, RenderError::Scene { .. }), "{error:?}");

        let blend = dir.path().join("scene.blend");
        let mut gpu = of(&blend);
        gpu.settings.device = Device::Gpu;
        if renderer.devices.iter().all(|device| device.backend == "CPU") {
            let error = Worker::start(renderer, gpu, dir.path()).await.unwrap_err();
            assert_eq!(UnitFailure::from(error).kind, FailureKind::WrongDevice);
        }
        let gone =
            DeviceInfo { backend: "OPTIX".into(), name: "Gone".into(), id: "CUDA_Gone_OptiX".into(), memory: None };
        let mut slot = WorkerScene { gpus: Some(vec![gone]), ..of(&blend) };
        let error = Worker::start(renderer, slot.clone(), dir.path()).await.unwrap_err();
        assert!(error.to_string().contains("OPTIX Gone (CUDA_Gone_OptiX)"), "{error}");
        assert_eq!(UnitFailure::from(error).kind, FailureKind::WrongDevice);
        slot.settings.device = Device::Cpu;
        assert_eq!(Worker::start(renderer, slot, dir.path()).await.unwrap().device(), "CPU");
        let octane = "bpy.utils.register_class(type('X', (bpy.types.RenderEngine,), {'bl_idname': 'OCTANE', \
                      'bl_label': 'X'})); render.engine = 'OCTANE'";
        let (worker, _dir) = started(renderer, octane).await;
        let error = worker.unwrap_err().to_string();
        assert!(error.contains("no render engine `OCTANE`"), "{error}");

        if !renderer.abilities.has(Ability::Denoiser) {
            let (worker, _dir) = started(renderer, "scene.cycles.use_denoising = True").await;
            let error = worker.unwrap_err().to_string();
            assert!(error.contains("built without it"), "{error}");
        }
    }
}

#[tokio::test]
async fn an_engine_that_draws_in_software_says_so_and_is_refused_where_a_gpu_is_asked_for() {
    for renderer in renderers().await {
        let (worker, dir) = started(renderer, "render.engine = 'BLENDER_WORKBENCH'").await;
        let mut worker = worker.unwrap();
        let rendered = render(&mut worker, Unit::whole(1), &dir.path().join("out.png")).await.unwrap();
        if renderer.version < (4, 2, 0) {
            assert_eq!(rendered.device, "BLENDER_WORKBENCH");
            continue;
        }
        let drawn_on = rendered.device.strip_prefix("BLENDER_WORKBENCH ").unwrap();
        let mut gpu = of(&dir.path().join("scene.blend"));
        gpu.settings.device = Device::Gpu;
        let mut worker = Worker::start(renderer, gpu, dir.path()).await.unwrap();
        let asked = render(&mut worker, Unit::whole(1), &dir.path().join("gpu.png")).await;
        match drawn_on.strip_prefix("in software on ") {
            Some(software) => {
                let failure = asked.unwrap_err();
                assert_eq!((failure.kind, failure.worker_lives), (FailureKind::WrongDevice, true));
                assert!(failure.message.contains(software) && failure.message.contains("--device auto"), "{failure}");
                assert!(!dir.path().join("gpu.png").exists());
            }
            None => assert_eq!(asked.unwrap().device, rendered.device),
        }
    }
}

#[tokio::test]
async fn a_blender_that_is_no_longer_the_one_that_was_found_renders_nothing() {
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let mut found = renderer.clone();
        found.version.2 += 1;
        let default = WorkerScene { blend: None, ..of(dir.path()) };
        let error = Worker::start(&found, default, dir.path()).await.unwrap_err();
        let said = error.to_string();
        let versions = format!("is now {} and was {}", renderer.version_text(), found.version_text());
        assert!(said.contains(&versions) && said.contains("restart the daemon"), "{said}");
        assert_eq!(UnitFailure::from(error).kind, FailureKind::CannotStart);
    }
}

#[tokio::test]
async fn what_is_missing_is_told_with_every_frame() {
    let change = r#"
# More than Blender's own little language for drivers can do, so it needs Python, which is off.
cube.driver_add("scale", 0).driver.expression = "len(str(frame)) * [1][0]"
image = bpy.data.images.new("sky", 4, 4)
image.source, image.filepath = "FILE", "//textures/sky.png"
material = bpy.data.materials.new("m")
material.use_nodes = True
material.node_tree.nodes.new("ShaderNodeTexImage").image = image
cube.data.materials.append(material)
"#;
    for renderer in renderers().await {
        let (worker, dir) = started(renderer, change).await;
        let mut worker = worker.unwrap();
        for frame in 1..=2 {
            let rendered = render(&mut worker, Unit::whole(frame), &dir.path().join("out.png")).await.unwrap();
            for word in ["sky.png", "Python in the file did not run"] {
                assert!(rendered.warnings.iter().any(|w| w.contains(word)), "{rendered:?}");
            }
        }
    }
}
