//! Colours that a job brings along, against the Blenders of this machine.
#![allow(clippy::unwrap_used)]

use super::chunk::{Chunking, chunk};
use super::render::tests::{pixels, renderers, scene, worker_scene};
use super::render::{Renderer, RendererKind, UnitFailure, Worker, WorkerScene, by_hand};
use super::scene as traced;
use crate::farm::blob::{BlobMap, Manifest};
use crate::farm::id::{ChunkId, Unit};
use crate::farm::job::{Device, RenderSettings};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A configuration whose only view halves what is rendered, by a table in a folder beside its own.
const CONFIG: &str = "\
ocio_profile_version: 1
search_path: ../tables
strictparsing: false
roles: {default: Linear, scene_linear: Linear, rendering: Linear, reference: Linear, data: Raw, color_picking: sRGB,
  default_byte: sRGB, default_float: Linear, default_sequencer: sRGB, texture_paint: Linear, matte_paint: Linear,
  compositing_linear: Linear, color_timing: Linear, XYZ: Linear}
displays:
  sRGB:
    - !<View> {name: Standard, colorspace: sRGB}
active_displays: [sRGB]
active_views: [Standard]
colorspaces:
  - !<ColorSpace> {name: Linear, family: linear, bitdepth: 32f, isdata: false}
  - !<ColorSpace> {name: Raw, family: raw, bitdepth: 32f, isdata: true}
  - !<ColorSpace>
    name: sRGB
    family: \"\"
    bitdepth: 32f
    isdata: false
    from_reference: !<FileTransform> {src: half.spi1d, interpolation: linear}
";
const HALF: &str = "Version 1\nFrom 0 1\nLength 2\nComponents 1\n{\n 0.0\n 0.5\n}\n";
const STANDARD: &str = "scene.view_settings.view_transform = 'Standard'; scene.render.dither_intensity = 0";

/// Chunks in memory.
#[derive(Default)]
struct Memory(BTreeMap<ChunkId, Vec<u8>>);

impl traced::BlobSink for Memory {
    fn put_file(&mut self, reader: &mut dyn Read, chunking: Chunking) -> io::Result<(BlobMap, u64)> {
        let mut keep = |bytes: &[u8], id| {
            self.0.insert(id, bytes.to_vec());
            Ok(())
        };
        chunk(reader, chunking, &mut keep).map(|map| (map, 0))
    }
}

/// The scene and the configuration in a bundle that is laid out in `to`: what a node gets. Those in `from` are gone then.
fn sent(blend: &Path, config: &Path, to: &Path) -> (Manifest, WorkerScene) {
    let mut trace = traced::trace(blend, traced::TraceOptions::default()).unwrap();
    let config = config.to_str().unwrap().to_owned();
    let choice = traced::OcioChoice { config, ..Default::default() };
    traced::trace_ocio(&mut trace, blend, choice).unwrap();
    let mut memory = Memory::default();
    let (manifest, _) = traced::bundle(blend, &trace, &mut memory, &mut |_| {}).unwrap();
    let main = traced::lay_out(&manifest, to, &mut |file, path| {
        let chunks = file.map.chunks.iter().flat_map(|chunk| &memory.0[&chunk.id]).copied();
        std::fs::write(path, chunks.collect::<Vec<u8>>())
    });
    let ocio = traced::ocio_of(&manifest, to).unwrap();
    assert!(ocio.is_some());
    (manifest, wanted(&main.unwrap(), ocio))
}

fn wanted(blend: &Path, ocio: Option<OsString>) -> WorkerScene {
    let settings = RenderSettings { device: Device::Cpu, ..RenderSettings::default() };
    WorkerScene { ocio, ..worker_scene(blend, settings) }
}

/// A frame as a node renders it.
async fn rendered(renderer: &Renderer, scene: WorkerScene, dir: &Path) -> Result<Vec<u8>, UnitFailure> {
    let out = dir.join(format!("{:016x}.png", rand::random::<u64>()));
    let mut worker = Worker::start(renderer, scene, dir).await?;
    worker.draw(Unit::whole(1), &out, None).await?.keep().await?;
    Ok(pixels(&out))
}

/// The same by hand in a shell that has `OCIO` set.
fn by_hand_with(renderer: &Renderer, blend: &Path, ocio: &Path, dir: &Path) -> Vec<u8> {
    const FRAME: &str = "import bpy, os, sys\nbpy.ops.wm.open_mainfile(filepath=sys.argv[-2])\n\
        bpy.context.scene.render.filepath = sys.argv[-1]\nbpy.context.scene.frame_set(1)\n\
        bpy.ops.render.render(write_still=True)\nos._exit(0)\n";
    let (script, out) = (dir.join("frame.py"), dir.join("by_hand.png"));
    std::fs::write(&script, FRAME).unwrap();
    let mut command = Command::new(&renderer.path);
    if renderer.kind == RendererKind::Executable {
        command.args(["-b", "--factory-startup", "--python"]);
    }
    command.arg(&script);
    if renderer.kind == RendererKind::Executable {
        command.arg("--");
    }
    let run = command.arg(blend).arg(&out).env("OCIO", ocio).output().unwrap();
    assert!(run.status.success(), "{run:?}");
    pixels(&out)
}

struct Studio {
    dir: tempfile::TempDir,
    blend: PathBuf,
    config: PathBuf,
}

fn studio(renderer: &Renderer) -> Studio {
    let dir = tempfile::tempdir().unwrap();
    let blend = scene(renderer, dir.path(), STANDARD);
    let config = dir.path().join("ocio/config.ocio");
    for folder in ["ocio", "tables"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    std::fs::write(&config, CONFIG).unwrap();
    std::fs::write(dir.path().join("tables/half.spi1d"), HALF).unwrap();
    Studio { dir, blend, config }
}

#[tokio::test]
async fn a_frame_has_the_colours_of_the_job_where_its_configuration_never_was() {
    for renderer in renderers().await {
        let studio = studio(renderer);
        let work = tempfile::tempdir().unwrap();
        let seen = by_hand_with(renderer, &studio.blend, &studio.config, work.path());
        let own = rendered(renderer, wanted(&studio.blend, None), work.path()).await.unwrap();
        assert!(own != seen, "the configuration changes nothing in Blender {}", renderer.version_text());
        let (_, sent) = sent(&studio.blend, &studio.config, work.path());
        drop(studio.dir);
        assert!(rendered(renderer, sent.clone(), work.path()).await.unwrap() == seen, "by {}", renderer.version_text());
        // The command that people are given does the same, in a shell with another `OCIO`.
        let (image, dir) = (work.path().join("debug.png"), work.path());
        let command = by_hand(renderer, &sent, 1, &image, dir).unwrap();
        let run = Command::new(&command[0]).args(&command[1..]).env("OCIO", "/nowhere/config.ocio").output().unwrap();
        assert!(run.status.success() && pixels(&image) == seen, "{run:?}");
    }
}

/// Blender 4.5 and 5.0 render on in other colours and exit with 0 (measured); 3.4 crashes.
#[tokio::test]
async fn a_configuration_that_does_not_work_fails_the_frame_by_name() {
    for renderer in renderers().await {
        let studio = studio(renderer);
        let work = tempfile::tempdir().unwrap();
        let (manifest, sent) = sent(&studio.blend, &studio.config, work.path());
        let table = manifest.files.iter().find(|file| file.path.ends_with("half.spi1d")).unwrap();
        let ocio = work.path().join("f/ocio/config.ocio");
        std::fs::remove_file(work.path().join(&table.path)).unwrap();
        let failure = rendered(renderer, sent.clone(), work.path()).await.unwrap_err();
        assert!(failure.message.contains("half.spi1d"), "{}", failure.message);
        for config in ["this: is: no: yaml", ""] {
            std::fs::write(&ocio, config).unwrap();
            let failure = rendered(renderer, sent.clone(), work.path()).await.unwrap_err();
            assert!(failure.message.contains("OCIO"), "{}", failure.message);
        }
        std::fs::remove_file(&ocio).unwrap();
        let failure = rendered(renderer, sent, work.path()).await.unwrap_err();
        assert!(failure.message.contains("config.ocio"), "{}", failure.message);
    }
}
