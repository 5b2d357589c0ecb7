//! The sound of a video, as the Blenders of this machine mix it.
#![allow(clippy::unwrap_used)]

use super::sound::flac_seconds;
use super::tests::{one_frame, pixels, renderers, scene, worker_scene};
use super::*;
use crate::farm::ability::Ability;
use crate::farm::id::Unit;
use crate::farm::job::{FrameRate, RenderSettings};
use crate::farm::overrides::Overrides;
use crate::farm::soundtrack::Soundtrack;
use std::path::Path;

/// Scenes that differ in what is heard in them; each sound file is two seconds of a tone, or no sound at all.
const SCENES: &str = r#"
import math, struct, wave
folder = os.path.dirname(args[0])
def file(name):
    with wave.open(folder + "/" + name, "wb") as out:
        out.setnchannels(1); out.setsampwidth(2); out.setframerate(44100)
        out.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(i / 17))) for i in range(88200)))
    return folder + "/" + name
def strips(name):
    other = scene.copy()
    other.name, other.use_fake_user = name, True
    editor = other.sequence_editor_create()
    return editor.strips if hasattr(editor, "strips") else editor.sequences
tone, broken, gone, packed = file("tone.wav"), file("broken.wav"), file("gone.wav"), file("packed.wav")
strips("tone").new_sound("s", tone, 1, 1)
strips("muted").new_sound("s", tone, 1, 1).mute = True
strips("gone").new_sound("s", gone, 1, 1)
strips("packed").new_sound("s", packed, 1, 1)
bpy.data.sounds["packed.wav"].pack()
strips("broken").new_sound("s", broken, 1, 1)
both = strips("both")
both.new_sound("s", tone, 1, 1)
both.new_sound("t", broken, 2, 1)
strips("outer").new_scene("s", bpy.data.scenes["tone"], 1, 1).scene_input = "SEQUENCER"
strips("camera").new_scene("s", bpy.data.scenes["tone"], 1, 1)
strips("speaker")
bpy.context.window.scene = bpy.data.scenes["speaker"]
bpy.ops.object.speaker_add()
speaker = bpy.context.object
speaker.data.sound = bpy.data.sounds["tone.wav"]
for collection in speaker.users_collection:
    collection.objects.unlink(speaker)
bpy.context.scene.collection.objects.link(speaker)
bpy.context.window.scene = scene
open(broken, "wb").write(b"RIFF and nothing that is heard" * 40)
os.remove(gone)
os.remove(packed)
"#;

const RATE: FrameRate = FrameRate { fps: 24, base_millionths: 1_000_000 };

/// Those that were built with sound.
async fn with_sound() -> impl Iterator<Item = &'static Renderer> {
    renderers().await.iter().filter(|renderer| renderer.abilities.has(Ability::Audaspace))
}

/// What goes with frame 3 of a scene, and the warnings.
async fn mixed(
    renderer: &Renderer,
    blend: &Path,
    name: &str,
    sound: &Soundtrack,
    simulate_from: Option<i32>,
) -> (Option<(PathBuf, u64)>, Vec<String>, Worker) {
    let overrides = Overrides { scene: Some(name.into()), ..Overrides::default() };
    let scene = worker_scene(blend, RenderSettings { overrides, simulate_from, ..RenderSettings::default() });
    let dir = blend.parent().unwrap();
    let mut worker = Worker::start(renderer, scene, dir).await.unwrap();
    let out = dir.join(format!("{name} {{3}}.png"));
    let mut drawn = worker.draw(Unit::whole(3), &out, None).await.unwrap();
    worker.mix(&mut drawn, sound).await;
    let rendered = drawn.keep().await.unwrap();
    assert!(out.is_file(), "{name}");
    (rendered.sound, rendered.warnings, worker)
}

#[tokio::test]
async fn what_is_heard_in_a_scene_is_mixed_as_long_as_its_frames() {
    let sound = Soundtrack { first: 3, last: 26, rate: RATE };
    for renderer in with_sound().await {
        let dir = tempfile::tempdir().unwrap();
        let blend = scene(renderer, dir.path(), SCENES);
        for (name, is_heard, warns) in [
            ("tone", true, 0),
            ("packed", true, 0),
            ("outer", true, 0),
            ("speaker", true, 0),
            ("Scene", false, 0),
            ("muted", false, 0),
            ("camera", false, 0),
            ("gone", false, 0),
            ("broken", false, 1),
            ("both", true, 1),
        ] {
            let (found, warnings, mut worker) = mixed(renderer, &blend, name, &sound, None).await;
            let what = format!("{name} by {}: {warnings:?}", renderer.version_text());
            assert_eq!((found.is_some(), warnings.len(), worker.lives()), (is_heard, warns, true), "{what}");
            assert!(warnings.iter().all(|warning| warning.contains("broken.wav")), "{what}");
            let Some((path, bytes)) = found else { continue };
            assert_eq!((flac_seconds(&path).unwrap(), path.metadata().unwrap().len()), (1.0, bytes), "{what}");
            // Silence takes less.
            assert!(bytes > 10_000, "{what}");
            if name == "tone" {
                let next = dir.path().join("next.png");
                let rendered = worker.draw(Unit::whole(4), &next, None).await.unwrap().keep().await.unwrap();
                assert_eq!(rendered.sound, None);
                if rendered.device == "CPU" {
                    assert_eq!(pixels(&next), pixels(&one_frame(renderer, &blend, 4, dir.path())), "{what}");
                }
            }
        }
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{names:?}");
    }
}

#[tokio::test]
async fn sound_that_cannot_fit_the_video_is_a_warning_about_the_frame() {
    for renderer in with_sound().await {
        let dir = tempfile::tempdir().unwrap();
        let blend = scene(renderer, dir.path(), SCENES);
        let ntsc = FrameRate { fps: 24, base_millionths: 1_001_000 };
        for (first, rate, says) in [(3, ntsc, "23.976 frames a second"), (-3, RATE, "before 0")] {
            let sound = Soundtrack { first, last: 26, rate };
            let (found, warnings, _) = mixed(renderer, &blend, "tone", &sound, None).await;
            assert!(found.is_none() && warnings.len() == 1 && warnings[0].contains(says), "{warnings:?}");
        }
    }
}

/// Such as the bpy 4.2 of PyPI.
#[tokio::test]
async fn a_blender_without_sound_says_so_of_a_scene_that_has_some() {
    let without = renderers().await.iter().find(|renderer| !renderer.abilities.has(Ability::Audaspace));
    let (Some(renderer), Some(maker)) = (without, with_sound().await.next()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let blend = scene(maker, dir.path(), SCENES);
    let sound = Soundtrack { first: 3, last: 26, rate: RATE };
    for (name, warns) in [("tone", 1), ("packed", 1), ("Scene", 0), ("gone", 0)] {
        let (found, warnings, _) = mixed(renderer, &blend, name, &sound, None).await;
        assert!(found.is_none() && warnings.len() == warns, "{name}: {warnings:?}");
        assert!(warnings.iter().all(|warning| warning.contains("built without sound")), "{warnings:?}");
    }
}

#[tokio::test]
async fn a_blender_that_simulates_leaves_once_it_has_gone_through_all_frames() {
    let sound = Soundtrack { first: 3, last: 26, rate: RATE };
    for renderer in with_sound().await {
        let dir = tempfile::tempdir().unwrap();
        let blend = scene(renderer, dir.path(), SCENES);
        for (name, leaves) in [("tone", true), ("Scene", false)] {
            let (found, _, worker) = mixed(renderer, &blend, name, &sound, Some(1)).await;
            assert_eq!((found.is_some(), worker.lives()), (leaves, !leaves), "{name}");
        }
    }
}

#[tokio::test]
async fn a_blender_that_is_gone_mixes_nothing_and_the_frame_is_kept() {
    let Some(renderer) = renderers().await.first() else { return };
    let dir = tempfile::tempdir().unwrap();
    let settings = RenderSettings { engine: Some("CYCLES".into()), samples: Some(1), ..RenderSettings::default() };
    let settings = RenderSettings { resolution: Some((64, 36)), percent: Some(100), ..settings };
    let scene = WorkerScene { blend: None, ..worker_scene(dir.path(), settings) };
    let mut worker = Worker::start(renderer, scene, dir.path()).await.unwrap();
    let mut drawn = worker.draw(Unit::whole(1), &dir.path().join("1.png"), None).await.unwrap();
    worker.kill();
    worker.mix(&mut drawn, &Soundtrack { first: 1, last: 2, rate: RATE }).await;
    let rendered = drawn.keep().await.unwrap();
    assert_eq!(rendered.warnings, ["the video has no sound: this Blender was stopped"]);
    assert!(rendered.path.is_file() && rendered.sound.is_none());
}
