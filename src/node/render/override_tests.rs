//! What a job chooses and sets in its file, against the Blenders of this machine.
#![allow(clippy::unwrap_used)]

use super::tests::{one_frame, pixels, renderers, scene};
use super::*;
use crate::farm::id::Unit;
use crate::farm::job::{Device, ImageFormat, RenderSettings};
use crate::farm::overrides::Overrides;
use std::path::Path;

/// Two scenes under skies of their own, each with the cube before its camera; cameras that see nothing but sky, one of them
/// of a library; in `Other` a view layer without the cube.
const TWO_SCENES: &str = r#"
scene.view_settings.view_transform = "Standard"
def sky(scene, *color):
    scene.world = bpy.data.worlds.new("Sky")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs[0].default_value = (*color, 1)
def looks_away(name, collection):
    camera = bpy.data.objects.new(name, bpy.data.cameras.new(name))
    camera.location.z = -50
    collection.objects.link(camera)
    return camera
scene.render.dither_intensity = 0
sky(scene, 1, 0, 0)
looks_away("Away", scene.collection)
scene.timeline_markers.new("Cut", frame=2).camera = scene.camera
cube["kind"] = 1
rig = bpy.data.collections.new("Rig")
far = looks_away("Far", rig)
library = os.path.dirname(args[0]) + "/rig.blend"
bpy.data.libraries.write(library, {rig})
bpy.data.objects.remove(far)
bpy.data.collections.remove(rig)
with bpy.data.libraries.load(library, link=True) as (there, wanted):
    wanted.collections = ["Rig"]
scene.collection.children.link(bpy.data.collections["Rig"])
other = bpy.data.scenes.new("Other")
other.render.engine = "CYCLES"
other.render.dither_intensity = 0
other.cycles.samples = 1
other.cycles.use_denoising = False
other.render.resolution_x, other.render.resolution_y = 64, 36
other.view_settings.view_transform = "Standard"
sky(other, 0, 0, 1)
other.camera = scene.camera.copy()
other.camera.name = "Eye"
other.camera.location.x += 1
other.collection.objects.link(other.camera)
things = bpy.data.collections.new("Things")
other.collection.children.link(things)
things.objects.link(cube)
other.view_layers.new("Empty").layer_collection.children["Things"].exclude = True
"#;
const RED: [u8; 3] = [255, 0, 0];
const BLUE: [u8; 3] = [0, 0, 255];

fn overrides(scene: Option<&str>, camera: Option<&str>, view_layers: &[&str], set: &[&str]) -> Overrides {
    Overrides {
        scene: scene.map(str::to_owned),
        camera: camera.map(str::to_owned),
        view_layers: view_layers.iter().map(|layer| (*layer).to_owned()).collect(),
        set: set.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

async fn worker(renderer: &Renderer, blend: &Path, overrides: Overrides) -> Result<Worker, RenderError> {
    let settings = RenderSettings { device: Device::Cpu, overrides, ..RenderSettings::default() };
    let (format, size) = (ImageFormat::Png, (64, 36));
    let wanted = WorkerScene {
        blend: Some(blend.into()),
        settings,
        format,
        size,
        threads: Some(1),
        ocio: None,
        gpus: None,
        disk: Disk::default(),
    };
    Worker::start(renderer, wanted, blend.parent().unwrap()).await
}

/// What a new Blender renders of frame 3 and then of frame 7; the pixels of the last.
async fn rendered(renderer: &Renderer, blend: &Path, overrides: Overrides) -> Vec<u8> {
    let mut worker = worker(renderer, blend, overrides).await.unwrap();
    let out = blend.with_file_name("out.png");
    for frame in [3, 7] {
        worker.draw(Unit::whole(frame), &out, None).await.unwrap().keep().await.unwrap();
    }
    pixels(&out)
}

/// Whether an image of three or four channels is all of one colour.
fn is_all(color: [u8; 3], pixels: &[u8]) -> bool {
    let channels = pixels.len() / (64 * 36);
    pixels.chunks(channels).all(|pixel| pixel.starts_with(&color))
}

#[tokio::test]
async fn each_scene_camera_and_view_layer_gives_its_own_pixels() {
    for renderer in renderers().await {
        let (dir, alone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let blend = scene(renderer, dir.path(), TWO_SCENES);
        let current = scene(renderer, alone.path(), &[TWO_SCENES, "bpy.context.window.scene = other\n"].concat());
        let wanted = pixels(&one_frame(renderer, &current, 7, alone.path()));
        let version = renderer.version_text();

        let other = rendered(renderer, &blend, overrides(Some("Other"), None, &[], &[])).await;
        assert!(other == wanted && !is_all(BLUE, &other), "as if it were the current one, by {version}");
        let empty = rendered(renderer, &blend, overrides(Some("Other"), None, &["Empty"], &[])).await;
        assert!(is_all(BLUE, &empty), "without the cube, by {version}");
        let away = rendered(renderer, &blend, overrides(Some("Other"), Some("Away"), &[], &[])).await;
        assert!(is_all(BLUE, &away), "through the camera of another scene, by {version}");

        let plain = rendered(renderer, &blend, Overrides::default()).await;
        assert!(!is_all(RED, &plain) && plain != other);
        for camera in ["Away", "Far"] {
            let away = rendered(renderer, &blend, overrides(None, Some(camera), &[], &[])).await;
            assert!(is_all(RED, &away), "the marker binds another and {camera} is used, by {version}");
        }
    }
}

#[tokio::test]
async fn what_the_file_does_not_have_is_not_rendered() {
    let Some(renderer) = renderers().await.last() else { return };
    let dir = tempfile::tempdir().unwrap();
    let blend = scene(renderer, dir.path(), TWO_SCENES);
    for (wrong, says) in [
        (overrides(Some("Nope"), None, &[], &[]), "no scene `Nope`"),
        (overrides(None, Some("Cube"), &[], &[]), "no camera `Cube`"),
        (overrides(None, None, &["Empty"], &[]), "no view layer `Empty`"),
    ] {
        let error = worker(renderer, &blend, wrong).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn properties_are_set_before_rendering() {
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let blend = scene(renderer, dir.path(), TWO_SCENES);
        let set = [
            r#"bpy.data.objects["Cube"].location=(0, 0, -5e2)"#,
            r#"bpy.data.objects["Cube"].scale[2]=0.5"#,
            r#"bpy.data.objects["Cube"]["kind"]=2"#,
            "scene.cycles.max_bounces=4",
            "scene.cycles.use_adaptive_sampling=false",
            "scene.view_settings.view_transform='Standard'",
            "scene.render.image_settings.color_mode=RGB",
        ];
        let hidden = rendered(renderer, &blend, overrides(None, None, &[], &set)).await;
        assert!(is_all(RED, &hidden) && hidden.len() == 64 * 36 * 3, "by {}", renderer.version_text());
        // The first of the scene's objects, whichever it is, hides nothing that others do not.
        let hide = [r#"bpy.data.objects["Cube"].hide_render=true"#, "scene.objects[0].hide_render=True"];
        assert!(is_all(RED, &rendered(renderer, &blend, overrides(None, None, &[], &hide)).await));
    }
}

#[tokio::test]
async fn a_property_that_cannot_be_set_fails_the_unit_and_is_named() {
    let Some(renderer) = renderers().await.last() else { return };
    let dir = tempfile::tempdir().unwrap();
    let blend = scene(renderer, dir.path(), TWO_SCENES);
    for (set, says) in [
        ("scene.nothing=1", "has no property `nothing`"),
        (r#"bpy.data.objects["Kube"].hide_render=true"#, "Kube"),
        ("scene.cycles.max_bounces=many", "max_bounces"),
        ("scene.cycles.max_bounces=-1", "it must be from 0 to "),
        ("scene.view_settings.view_transform=Odd", "Odd"),
        ("scene.objects=1", "read-only"),
        ("scene.frame_set=1", "has no property `frame_set`"),
        (r#"bpy.data.objects["Cube"]["none"]=1"#, "none"),
        (r#"bpy.data.objects["Cube"]["kind"]=x"#, "it is a number"),
    ] {
        let error = worker(renderer, &blend, overrides(None, None, &[], &[set])).await.unwrap_err().to_string();
        assert!(error.contains(&format!("--set {set} cannot be done: ")) && error.contains(says), "{error}");
    }
    // The cube turns.
    let turned = r#"bpy.data.objects["Cube"].rotation_euler[2]=9"#;
    let mut worker = worker(renderer, &blend, overrides(None, None, &[], &[turned])).await.unwrap();
    let out = dir.path().join("never.png");
    let failure = worker.draw(Unit::whole(3), &out, None).await.unwrap_err();
    assert!(failure.message.contains(turned) && failure.message.contains("is animated"), "{failure:?}");
    assert!(failure.worker_lives && !out.exists());
}
