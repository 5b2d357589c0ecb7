//! The command that renders one frame by hand as a worker does: same driver, same settings, and all output in the open.

use super::child::{DRIVER, OCIO_VARIABLES, arguments};
use super::{Renderer, WorkerScene};
use crate::wire::FILE_OUTPUTS;
use serde_json::json;
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// Writes what the command needs into `dir`, which is absolute, and gives the command: the program first. It leaves the
/// image at `image`, and what File Output nodes write in a folder of `dir`.
///
/// # Errors
/// What the disk says, and `InvalidInput` where a path is not UTF-8.
pub fn by_hand(
    renderer: &Renderer,
    scene: &WorkerScene,
    frame: i32,
    image: &Path,
    dir: &Path,
) -> io::Result<Vec<OsString>> {
    let text = |path: &Path| {
        let error = || io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not UTF-8", path.display()));
        path.to_str().map(str::to_owned).ok_or_else(error)
    };
    let (script, asked) = (dir.join("driver.py"), dir.join("frame.json"));
    let blend = scene.blend.as_deref().map(text).transpose()?;
    let asked_json = json!({
        "scene": scene.to_json(blend.as_deref()),
        "ocio": scene.ocio.as_deref().map(|ocio| text(Path::new(ocio))).transpose()?,
        "unit": {"frame": frame, "out": text(image)?, "files": text(&dir.join(FILE_OUTPUTS))?},
    });
    std::fs::write(&script, DRIVER)?;
    std::fs::write(&asked, format!("{asked_json:#}\n"))?;
    let mut command = in_colours_of(scene);
    command.push(renderer.path.clone().into_os_string());
    command.extend(arguments(renderer.kind, scene.threads, &script));
    command.extend(["frame".into(), asked.into_os_string()]);
    Ok(command)
}

/// What comes before a program that is to have the environment a worker has, whatever that of the shell is. Windows has no
/// program for that: there the driver says what to set.
fn in_colours_of(scene: &WorkerScene) -> Vec<OsString> {
    if cfg!(windows) {
        return Vec::new();
    }
    let mut words: Vec<OsString> = vec!["env".into()];
    words.extend(OCIO_VARIABLES.iter().flat_map(|variable| ["-u".into(), (*variable).into()]));
    words.extend(scene.ocio.as_deref().map(|ocio| {
        let mut word = OsString::from("OCIO=");
        word.push(ocio);
        word
    }));
    words
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Disk;
    use super::super::tests::{pixels, renderers, scene};
    use super::super::worker::Worker;
    use super::*;
    use crate::farm::id::Unit;
    use crate::farm::job::{ImageFormat, RenderSettings};
    use crate::farm::overrides::Overrides;
    use crate::farm::views::Views;

    #[tokio::test]
    async fn a_frame_rendered_by_hand_is_the_workers() {
        for renderer in renderers().await {
            let dir = tempfile::tempdir().unwrap();
            let set = vec![r#"bpy.data.objects["Cube"].scale[0]=0.5"#.parse().unwrap()];
            let overrides =
                Overrides { scene: Some("Other".into()), camera: Some("Camera".into()), set, ..Default::default() };
            let settings = RenderSettings { samples: Some(2), percent: Some(50), overrides, ..Default::default() };
            let other = "other = scene.copy(); other.name = 'Other'; other.use_fake_user = True; other.camera = other.world = None";
            let wanted = WorkerScene {
                blend: Some(scene(renderer, dir.path(), other)),
                settings,
                format: ImageFormat::Png,
                size: (32, 18),
                views: Views::default(),
                threads: Some(1),
                ocio: None,
                gpus: None,
                disk: Disk::default(),
            };
            let (ours, theirs) = (dir.path().join("by hand {7}.png"), dir.path().join("worker.png"));
            let mut worker = Worker::start(renderer, wanted.clone(), dir.path()).await.unwrap();
            worker.draw(Unit::whole(7), &theirs, None).await.unwrap().keep().await.unwrap();
            let command = by_hand(renderer, &wanted, 7, &ours, dir.path()).unwrap();
            let run = std::process::Command::new(&command[0]).args(&command[1..]).output().unwrap();
            let said = String::from_utf8_lossy(&run.stdout);
            assert!(run.status.success() && said.contains("rendering frame 7 on "), "{said}");
            assert_eq!(pixels(&ours), pixels(&theirs), "{said}");
            std::fs::remove_file(wanted.blend.unwrap()).unwrap();
            let run = std::process::Command::new(&command[0]).args(&command[1..]).output().unwrap();
            assert_eq!(run.status.code(), Some(3), "{run:?}");
        }
    }
}
