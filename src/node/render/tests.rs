//! What the tests against a real Blender share: the Blenders of this machine, and scenes they make themselves.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::farm::job::{FrameRate, ImageFormat, RenderSettings};
use crate::farm::views;
use std::path::Path;
use std::process::{Command, Stdio};
use tokio::sync::OnceCell;

/// A scene whose cube turns, 64×36, one sample, that every Blender opens which is not older; lines of Python change it.
const SCENE: &str = r#"
import bpy, os, sys
args = sys.argv[sys.argv.index("--") + 1:] if "--" in sys.argv else sys.argv[1:]
bpy.ops.wm.read_factory_settings()
scene = bpy.context.scene
render = scene.render
render.engine = "CYCLES"
scene.cycles.samples = 1
scene.cycles.use_denoising = False
render.resolution_x, render.resolution_y = 64, 36
render.filepath = "//nowhere/"
cube = bpy.data.objects["Cube"]
for frame in (1, 10):
    cube.rotation_euler.z = frame / 3
    cube.keyframe_insert("rotation_euler", frame=frame)
exec(args[1])
bpy.ops.wm.save_as_mainfile(filepath=args[0])
sys.stdout.flush()
os._exit(0)
"#;

/// Opens a scene afresh and renders one frame, as people do without swarm.
const ONE_FRAME: &str = r#"
import bpy, os, sys
bpy.ops.wm.open_mainfile(filepath=sys.argv[1])
bpy.context.scene.frame_set(int(sys.argv[2]))
bpy.context.scene.render.filepath = sys.argv[3]
bpy.ops.render.render(write_still=True)
os._exit(0)
"#;

/// The Blenders of this machine; none skips the test, with a word.
pub(in crate::node) async fn renderers() -> &'static [Renderer] {
    static FOUND: OnceCell<Vec<Renderer>> = OnceCell::const_new();
    let found = FOUND.get_or_init(async || {
        let dir = tempfile::tempdir().unwrap();
        discover(&[], &dir.path().join("cache.json")).await.renderers
    });
    let found = found.await;
    if found.is_empty() {
        println!("skipped: there is no Blender on this machine");
    }
    found
}

/// What a worker opens of such a scene: PNG, and one thread.
pub(in crate::node) fn worker_scene(blend: &Path, settings: RenderSettings) -> WorkerScene {
    let (format, size) = (ImageFormat::Png, (64, 36));
    WorkerScene {
        blend: Some(blend.into()),
        settings,
        format,
        size,
        views: views::Views::default(),
        threads: Some(1),
        ocio: None,
        gpus: None,
        disk: Disk::default(),
    }
}

fn run(mut command: Command, renderer: &Renderer) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}: {}", renderer.path.display(), String::from_utf8_lossy(&output.stdout));
}

/// A scene in `dir` made by `renderer`.
pub(in crate::node) fn scene(renderer: &Renderer, dir: &Path, change: &str) -> PathBuf {
    let (script, blend) = (dir.join("scene.py"), dir.join("scene.blend"));
    std::fs::write(&script, SCENE).unwrap();
    let mut command = Command::new(&renderer.path);
    match renderer.kind {
        RendererKind::Executable => command.args(["-b", "--factory-startup", "--python"]).arg(&script).arg("--"),
        RendererKind::Python => command.arg(&script),
    };
    command.arg(&blend).arg(change);
    run(command, renderer);
    assert!(blend.exists(), "no scene by {}", renderer.path.display());
    blend
}

/// One frame as `blender -f` renders it.
pub(super) fn one_frame(renderer: &Renderer, blend: &Path, frame: i32, dir: &Path) -> PathBuf {
    let mut command = Command::new(&renderer.path);
    match renderer.kind {
        RendererKind::Executable => {
            command.arg("-b").arg(blend).arg("-o").arg(dir.join("alone_####")).args(["-F", "PNG", "-x", "1", "-f"]);
            command.arg(frame.to_string());
        }
        RendererKind::Python => {
            command.arg("-c").arg(ONE_FRAME).arg(blend).arg(frame.to_string());
            command.arg(dir.join(format!("alone_{frame:04}.png")));
        }
    }
    run(command, renderer);
    dir.join(format!("alone_{frame:04}.png"))
}

pub(in crate::node) fn pixels(path: &Path) -> Vec<u8> {
    image::ImageReader::open(path).unwrap().with_guessed_format().unwrap().decode().unwrap().into_bytes()
}

#[tokio::test]
async fn a_second_look_asks_no_blender_and_finds_the_same() {
    let Some(renderer) = renderers().await.first() else { return };
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache.json");
    let search = Search { named: vec![renderer.path.clone()], usual: vec![renderer.path.clone()] };
    let first = discover_in(search.clone(), &cache).await;
    assert_eq!(first.problems, []);
    assert_eq!(first.renderers, std::slice::from_ref(renderer));
    assert!(renderer.devices.iter().any(|device| device.backend == "CPU"), "{:?}", renderer.devices);
    // What is kept is believed as long as nothing changed, so a mark put there comes back.
    let text = std::fs::read_to_string(&cache).unwrap();
    std::fs::write(&cache, text.replace(&renderer.build_hash, "from the cache")).unwrap();
    let second = discover_in(search.clone(), &cache).await;
    assert_eq!(second.renderers[0].build_hash, "from the cache");
    // A torn cache is asked again.
    std::fs::write(&cache, "{").unwrap();
    assert_eq!(discover_in(search, &cache).await.renderers, first.renderers);
}

#[tokio::test]
async fn blender_itself_makes_the_video_where_there_is_no_ffmpeg() {
    let dir = tempfile::tempdir().unwrap();
    let frames: Vec<PathBuf> = (1..=5).map(|frame| dir.path().join(format!("f_{frame:04}.png"))).collect();
    for (at, frame) in frames.iter().enumerate() {
        image::RgbImage::from_pixel(65, 37, image::Rgb([at as u8 * 40, 90, 200])).save(frame).unwrap();
    }
    for renderer in renderers().await {
        let out = dir.path().join(format!("shot ## {}.mp4", renderer.series));
        let rate = FrameRate { fps: 30, base_millionths: 1_001_000 };
        encode_with_blender(renderer, &frames, rate, &out, dir.path()).await.unwrap();
        let bytes = std::fs::read(&out).unwrap();
        assert_eq!(&bytes[4..8], b"ftyp");
        assert!(bytes.windows(4).any(|word| word == b"avc1"), "not h264");
        let error = encode_with_blender(renderer, &[dir.path().join("gap.png")], rate, &out, dir.path()).await;
        assert!(matches!(error, Err(EncodeError::Failed { .. })), "{error:?}");
    }
    let names = std::fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".part.mp4")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn blenders_own_files_of_each_format_pass_the_check() {
    let formats = [
        (ImageFormat::Jpeg, "Z"),
        (ImageFormat::Exr, "ZIP"),
        (ImageFormat::Exr, "PIZ"),
        (ImageFormat::Exr, "DWAA"),
        (ImageFormat::ExrMultilayer, "ZIP"),
        (ImageFormat::ExrMultilayer, "PXR24"),
        (ImageFormat::Tiff, "Z"),
        (ImageFormat::Webp, "Z"),
    ];
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let script = formats.iter().enumerate().map(|(at, (format, codec))| {
            let name = format.blender_name();
            format!(
                "s = render.image_settings\n\
                 if hasattr(s, 'media_type'): s.media_type = 'MULTI_LAYER_IMAGE' if 'MULTI' in '{name}' else 'IMAGE'\n\
                 s.file_format = '{name}'\n\
                 if 'EXR' in '{name}': s.exr_codec = '{codec}'\n\
                 render.use_file_extension = False\n\
                 render.filepath = os.path.dirname(args[0]) + '/image{at}'\n\
                 bpy.ops.render.render(write_still=True)\n"
            )
        });
        scene(renderer, dir.path(), &script.collect::<String>());
        for (at, (format, codec)) in formats.into_iter().enumerate() {
            let path = dir.path().join(format!("image{at}"));
            let what = format!("{format:?} {codec} by {}", renderer.version_text());
            check_image(&path, format, (64, 36)).unwrap_or_else(|e| panic!("{what}: {e:?}"));
            assert!(matches!(check_image(&path, format, (32, 36)), Err(CheckError::Size { .. })), "{what}");
            let whole = std::fs::read(&path).unwrap();
            for keep in [whole.len() / 2, whole.len() - 30] {
                std::fs::write(&path, &whole[..keep]).unwrap();
                assert!(check_image(&path, format, (64, 36)).is_err(), "{what}: {keep} of {} bytes", whole.len());
            }
        }
    }
}
