//! The sandbox, alone and around the Blenders of this machine.
#![allow(clippy::unwrap_used)]

use super::super::child::{Child, Event, Mode, cpu_ticks, memory_bytes};
use super::super::tests::{pixels, renderers, scene};
use super::super::worker::{Worker, WorkerScene};
use super::super::{FailureKind, confine, encode_with_blender};
use super::*;
use crate::farm::id::Unit;
use crate::farm::job::{Device, FrameRate, ImageFormat, RenderSettings};
use crate::farm::scripts::Scripts;
use crate::farm::views::Views;
use crate::node::render::Discovery;
use serde_json::json;
use std::net::TcpListener;

/// What a hostile file may try, in a text that runs where scripts are allowed: each line it prints is one thing that it
/// could do. PLACES stands for what the test names.
const HOSTILE: &str = r#"
text = bpy.data.texts.new("hostile.py")
text.use_module = True
text.write('''
import bpy, glob, os, signal, socket, subprocess
places = PLACES

def tries(what, act):
    try:
        act()
        print("could", what)
    except BaseException as error:
        print("could not", what, type(error).__name__)

def connect(kind, address):
    with socket.socket(kind, socket.SOCK_STREAM) as it:
        it.settimeout(5)
        it.connect(address)

def try_all():
    tries("read the key", lambda: open(places["key"]).read())
    tries("read a home", lambda: open(places["home"]).read())
    tries("list a home", lambda: os.listdir(os.path.expanduser("~")).remove(places["in_home"]))
    tries("read shadow", lambda: open("/etc/shadow").read())
    tries("connect", lambda: connect(socket.AF_INET, ("127.0.0.1", places["port"])))
    tries("connect by name", lambda: connect(socket.AF_UNIX, places["socket"]))
    for place in ("/usr/x", "/etc/x", "/x", places["scene"] + "/../x", places["data"] + "/x", places["file"]):
        tries("write " + place, lambda: open(place, "a").write("x"))
    tries("chmod", lambda: os.chmod(places["file"], 0o777))
    tries("kill", lambda: os.kill(places["pid"], 0))
    tries("see others", lambda: [pid for pid in os.listdir("/proc") if pid.isdigit()].remove(str(places["pid"])))
    tries("see a variable", lambda: os.environ["SECRET_OF_A_TEST"])
    tries("write beside", lambda: open(places["scene"] + "/mine", "w").write("x"))
    tries("write to tmp", lambda: open("/tmp/mine", "w").write("x"))
    tries("write to home", lambda: open(os.path.expanduser("~/mine"), "w").write("x"))
    tries("write to the cache", lambda: open(os.path.expanduser("~/.cache/mine"), "w").write("x"))

def before(scene, *rest):
    if scene.frame_current == 3:
        try_all()
    if scene.frame_current == 5:
        subprocess.Popen(["sleep", places["sleep"]], start_new_session=True)
        os.kill(os.getpid(), signal.SIGSEGV)

def after(scene, *rest):
    if scene.frame_current == 6:
        os.remove(scene.render.filepath)
        os.symlink(places["picture"], scene.render.filepath)
bpy.app.handlers.render_pre.append(before)
bpy.app.handlers.render_write.append(after)
''')
"#;

/// A sandbox with its data in `data_dir`; `None` where this machine has none.
async fn sandbox(data_dir: &Path) -> Option<Arc<Sandbox>> {
    match Sandbox::find(data_dir).await {
        Confinement::On(sandbox) => Some(sandbox),
        other => {
            println!("skipped: {other:?}");
            None
        }
    }
}

/// The renderer in one of its own.
pub(in crate::node) async fn sandboxed(renderer: &Renderer, data_dir: &Path) -> Option<Renderer> {
    sandbox(data_dir).await.map(|sandbox| inside(renderer, &sandbox))
}

fn inside(renderer: &Renderer, sandbox: &Arc<Sandbox>) -> Renderer {
    Renderer { sandbox: Some(sandbox.clone()), ..renderer.clone() }
}

fn wanted(blend: &Path, engine: &str, in_files: bool) -> WorkerScene {
    let scripts = Scripts { in_files, file: None };
    let settings = RenderSettings {
        device: Device::Cpu,
        engine: Some(engine.into()),
        samples: Some(1),
        scripts,
        ..RenderSettings::default()
    };
    let (format, size) = (ImageFormat::Png, (64, 36));
    let disk = Disk::default();
    let (blend, views, threads) = (Some(blend.into()), Views::default(), Some(1));
    WorkerScene { blend, settings, format, size, views, threads, ocio: None, gpus: None, disk }
}

/// Longest wait for what happens within a second or two on a machine that is not busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until no process has these words in its command line.
async fn gone(words: &str) {
    until(words, || !is_there(words)).await;
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let so = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, so).await.expect(what);
}

/// Waits until nobody has that number: what is dead does until somebody asks how it ended.
async fn over(group: u32) {
    until("the processes are gone", || cpu_ticks(group).is_none()).await;
}

fn is_there(words: &str) -> bool {
    let named = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(words)
    };
    std::fs::read_dir("/proc").unwrap().flatten().any(named)
}

#[tokio::test]
async fn a_hostile_scene_gets_at_nothing_and_a_crash_is_told_as_ever() {
    let home = std::env::home_dir().unwrap();
    let in_home = tempfile::Builder::new().prefix(".swarm-test-").tempdir_in(&home).unwrap();
    std::fs::write(in_home.path().join("id_ed25519"), "private").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for (number, renderer) in renderers().await.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().canonicalize().unwrap();
        let place = |name: &str| data.join(name);
        let Some(sandbox) = sandbox(&data).await else { return };
        let (scenes, work_dir) = (place("scenes/one"), place("scratch"));
        std::fs::create_dir_all(&scenes).unwrap();
        std::fs::write(place("key"), "private").unwrap();
        std::fs::write(scenes.join("texture"), "of the store").unwrap();
        image::RgbImage::new(64, 36).save_with_format(place("picture"), image::ImageFormat::Png).unwrap();
        let _by_name = std::os::unix::net::UnixListener::bind(place("socket")).unwrap();
        let sleep = format!("61{}.{number}", std::process::id());
        let places = json!({
            "key": place("key"), "home": in_home.path().join("id_ed25519"), "in_home": in_home.path().file_name().unwrap().to_str(),
            "port": listener.local_addr().unwrap().port(), "socket": place("socket"), "scene": scenes, "data": data,
            "file": scenes.join("texture"), "pid": std::process::id(), "sleep": sleep, "picture": place("picture"),
        });
        let blend = scene(renderer, &scenes, &HOSTILE.replace("PLACES", &places.to_string()));
        let out = work_dir.join("out.png");
        let worker = Worker::start(&inside(renderer, &sandbox), wanted(&blend, "CYCLES", true), &work_dir).await;
        let mut worker = worker.unwrap();
        let rendered = worker.draw(Unit::whole(3), &out, None).await.unwrap().keep().await.unwrap();
        let mut could: Vec<&str> = rendered.log.lines().filter_map(|line| line.strip_prefix("could ")).collect();
        assert!(could.iter().filter(|what| what.starts_with("not ")).count() >= 16, "{}", rendered.log);
        could.retain(|what| !what.starts_with("not "));
        assert_eq!(could, ["write beside", "write to tmp", "write to home", "write to the cache"]);
        assert!(!home.join("mine").exists() && !scenes.join("mine").exists() && !Path::new("/tmp/mine").exists());
        assert!(place(SHADERS).join("mine").exists());
        assert_eq!(std::fs::read(scenes.join("texture")).unwrap(), b"of the store");

        let failure = worker.draw(Unit::whole(6), &out, None).await.unwrap().keep().await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::BadOutput, "{failure:?}");
        assert!(failure.message.contains("is no file"), "a link to what lies outside is not followed: {failure:?}");

        let failure = worker.draw(Unit::whole(5), &out, None).await.unwrap_err();
        assert_eq!((failure.kind, failure.worker_lives), (FailureKind::Crash, false), "{failure:?}");
        assert!(failure.message.contains("crashed (signal 11) at frame 5"), "{failure:?}");
        gone(&format!("sleep {sleep}")).await;
        drop(worker);
        assert_eq!(std::fs::read_dir(work_dir.join("cells")).unwrap().count(), 0, "what it wrote went with it");
    }
}

#[tokio::test]
async fn pixels_are_the_same_inside_as_outside_by_every_engine() {
    let dir = tempfile::tempdir().unwrap();
    // Compiling Eevee's shaders takes a minute the first time: they are kept where this program was built.
    let shaders = std::env::current_exe().unwrap().with_file_name("shader-cache-of-tests");
    std::fs::create_dir_all(&shaders).unwrap();
    std::os::unix::fs::symlink(shaders, dir.path().join(SHADERS)).unwrap();
    let Some(sandbox) = sandbox(dir.path()).await else { return };
    for renderer in renderers().await {
        let (blend, out) = (scene(renderer, dir.path(), ""), dir.path().join("out.png"));
        for engine in ["CYCLES", "BLENDER_EEVEE", "BLENDER_WORKBENCH"] {
            let mut seen = Vec::new();
            for renderer in [renderer, &inside(renderer, &sandbox)] {
                let mut worker = Worker::start(renderer, wanted(&blend, engine, false), dir.path()).await.unwrap();
                let rendered = worker.draw(Unit::whole(4), &out, None).await.unwrap().keep().await.unwrap();
                seen.push((pixels(&out), rendered.device));
                worker.close().await;
            }
            assert!(seen[0] == seen[1], "{engine} by {}", renderer.version_text());
        }
    }
}

#[tokio::test]
async fn a_sandboxed_blender_is_counted_and_killed_as_one_that_is_not() {
    use rustix::process::{Pid, Signal, kill_process_group};
    let dir = tempfile::tempdir().unwrap();
    let Some(sandbox) = sandbox(dir.path()).await else { return };
    for renderer in renderers().await {
        let start = async || {
            let cell = Cell::new(&sandbox, renderer, &Disk::default(), None, dir.path()).unwrap();
            let started =
                Child::start(&renderer.path, renderer.kind, Mode::Serve, Some(1), None, dir.path(), Some(&cell));
            let mut child = started.await.unwrap();
            child.send(&json!({ "blend": null, "device": "cpu", "format": "PNG" })).await.unwrap();
            while !matches!(child.next().await, Event::Answer(answer) if answer["event"] == "ready") {}
            (child, cell)
        };
        let (child, cell) = start().await;
        let group = child.group().id();
        // Bubblewrap has some hundred KiB, and no use of the processor to speak of.
        assert!(memory_bytes(group).unwrap() > 30 << 20, "Blender's memory");
        assert!(cpu_ticks(group).unwrap() > 10, "Blender's use of the processor");
        let words = cell.folder.0.display().to_string();
        let nice = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
            std::fs::read_to_string(entry.path().join("stat")).is_ok_and(|stat| {
                let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
                fields[2] == group.to_string() && fields[16] == "19"
            })
        });
        assert_eq!(nice.count(), 3, "bubblewrap, the first process inside, and Blender");
        drop(child);
        gone(&words).await;
        over(group).await;

        // As the system does when memory runs out, and as an administrator may.
        let (mut child, _cell) = start().await;
        kill_process_group(Pid::from_raw(child.group().id() as i32).unwrap(), Signal::KILL).unwrap();
        let ended = loop {
            if let Event::Gone(gone) = child.next().await {
                break gone.to_string();
            }
        };
        assert!(ended.starts_with("was killed (signal 9"), "{ended}");

        let (child, _cell) = start().await;
        let group = child.group().id();
        child.close().await;
        over(group).await;
    }
}

#[tokio::test]
async fn renderers_that_are_themselves_inside_are_sandboxed_and_others_are_told() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let Some(sandbox) = sandbox(dir.path()).await else { return };
    let Some(renderer) = renderers().await.first() else { return };
    // What only starts another program, from a place that is not seen inside.
    let kept = dir.path().join("sandboxed.json");
    std::fs::write(dir.path().join("real"), format!("#!/bin/sh\nexec '{}' \"$@\"\n", renderer.path.display())).unwrap();
    std::fs::create_dir(dir.path().join("bin")).unwrap();
    let moved = dir.path().join("bin/blender");
    std::fs::write(&moved, format!("#!/bin/sh\nexec '{}/real' \"$@\"\n", dir.path().display())).unwrap();
    std::fs::set_permissions(&moved, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(dir.path().join("real"), PermissionsExt::from_mode(0o755)).unwrap();
    let starts_another = Renderer { path: moved, ..renderer.clone() };
    let found = || Discovery { renderers: vec![renderer.clone(), starts_another.clone()], ..Discovery::default() };
    let on = || Confinement::On(sandbox.clone());
    let first = confine(found(), on(), &kept).await;
    assert_eq!(first.renderers[0].sandbox.as_ref(), Some(&sandbox));
    assert_eq!(first.renderers[1].sandbox, None);
    let [problem] = &first.problems[..] else { panic!("{:?}", first.problems) };
    assert!(problem.message.contains("is not sandboxed: ") && problem.kind == "sandbox", "{problem:?}");
    let text = std::fs::read_to_string(&kept).unwrap();
    assert!(
        text.contains(&*renderer.path.to_string_lossy()) && !text.contains(&*starts_another.path.to_string_lossy()),
        "{text}"
    );
    for other in [Confinement::Off, Confinement::Unavailable, Confinement::Broken(problem.clone())] {
        let all = confine(found(), other.clone(), &kept).await;
        assert!(all.renderers.iter().all(|renderer| renderer.sandbox.is_none()));
        assert_eq!(all.problems.len(), usize::from(matches!(other, Confinement::Broken(_))));
    }
}

#[tokio::test]
async fn a_sandboxed_encoder_reads_the_frames_and_writes_the_video() {
    let dir = tempfile::tempdir().unwrap();
    let Some(sandbox) = sandbox(&dir.path().canonicalize().unwrap()).await else { return };
    let place = |name: &str| dir.path().canonicalize().unwrap().join(name);
    std::fs::create_dir(place("shots")).unwrap();
    let frames: Vec<PathBuf> = (1..=3).map(|frame| place(&format!("shots/{frame}.png"))).collect();
    for frame in &frames {
        image::RgbImage::from_pixel(64, 36, image::Rgb([40, 90, 200])).save(frame).unwrap();
    }
    for renderer in renderers().await {
        let out = place("video.mp4");
        let rate = FrameRate { fps: 24, base_millionths: 1_000_000 };
        encode_with_blender(&inside(renderer, &sandbox), &frames, rate, &out, &place("scratch")).await.unwrap();
        assert_eq!(&std::fs::read(&out).unwrap()[4..8], b"ftyp");
        std::fs::remove_file(out).unwrap();
    }
    let left = std::fs::read_dir(place("")).unwrap().flatten().map(|entry| entry.file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().starts_with(".swarm-")));
}

#[tokio::test]
async fn a_sandbox_that_is_missing_or_forbidden_is_told_with_its_reason_and_a_mend() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let fake = dir.path().join("fake-bwrap");
    let says = "setting up uid map: Permission denied";
    std::fs::write(&fake, format!("#!/bin/sh\necho 'bwrap: {says}' >&2\nexit 1\n")).unwrap();
    std::fs::set_permissions(&fake, PermissionsExt::from_mode(0o755)).unwrap();
    let told = async |bwrap: PathBuf| match Sandbox::tried(bwrap, dir.path()).await {
        Confinement::Broken(problem) => problem,
        other => panic!("{other:?}"),
    };
    let problem = told(fake.clone()).await;
    assert_eq!(problem.kind, "sandbox");
    assert!(problem.message.ends_with(&format!("bubblewrap does not work here: {says}")), "{problem:?}");
    assert!(!problem.fix.is_empty());
    assert!(told(dir.path().join("nowhere")).await.message.contains("cannot be tried"));
    // One that worked when the daemon was started, and does not any more.
    if let Some(renderer) = renderers().await.first() {
        let gone = Arc::new(Sandbox { bwrap: fake, data_dir: dir.path().into(), home: NO_HOME.into() });
        let scene = WorkerScene { blend: None, ..wanted(dir.path(), "CYCLES", false) };
        let error = Worker::start(&inside(renderer, &gone), scene, dir.path()).await.unwrap_err().to_string();
        assert!(error.contains(&format!("its sandbox cannot be made: {says}; start swarm again")), "{error}");
    }

    let with =
        |file: &'static str, value: &'static str| mend(move |asked| (asked == file).then(|| format!("{value}\n")));
    assert!(with("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1").contains("/etc/apparmor.d/bwrap"));
    assert!(with("/proc/sys/kernel/unprivileged_userns_clone", "0").contains("unprivileged_userns_clone=1"));
    assert!(with("/proc/sys/user/max_user_namespaces", "0").contains("max_user_namespaces="));
    assert!(with("/proc/sys/user/max_user_namespaces", "15000").contains("--no-sandbox"));
}

#[test]
fn what_is_deeper_is_mounted_later_and_what_is_closed_is_closed_at_the_end() {
    let mounts: Mounts = [
        ("/home/me/data/scratch/out", Mount::Write("/home/me/data/scratch/out".into())),
        ("/home/me/data", Mount::Closed),
        ("/home/me", Mount::Fresh),
        ("/home/me/blender-4.5", Mount::Read("/home/me/blender-4.5".into())),
        ("/etc/shadow", Mount::Blank),
        ("/dev/dri", Mount::Device("/dev/dri".into())),
    ]
    .map(|(path, mount)| (path.into(), mount))
    .into();
    let told: Vec<String> = arguments(&mounts).iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let expected = "--unshare-all --die-with-parent --cap-drop ALL --proc /proc --dev /dev \
                    --dev-bind-try /dev/dri /dev/dri --ro-bind /dev/null /etc/shadow --tmpfs /home/me \
                    --ro-bind-try /home/me/blender-4.5 /home/me/blender-4.5 --tmpfs /home/me/data \
                    --bind /home/me/data/scratch/out /home/me/data/scratch/out --remount-ro /home/me/data \
                    --remount-ro / --chdir /tmp";
    assert_eq!(told.join(" "), expected);
}

#[test]
fn no_more_of_a_home_is_shown_than_the_renderer_needs() {
    let sandbox = Sandbox { bwrap: "/usr/bin/bwrap".into(), data_dir: "/home/me/farm".into(), home: "/home/me".into() };
    let shown = |path: &str| {
        let mut mounts = Mounts::new();
        sandbox.show(&mut mounts, Path::new(path));
        !mounts.is_empty()
    };
    assert!(shown("/home/me/blender-4.5") && shown("/apps/blender"));
    for path in ["/usr/share/blender", "/home/me", "/home", "/", "/home/me/farm", "relative"] {
        assert!(!shown(path), "{path}");
    }
    let of = |file: &str| sandbox.shown_for(&[file.to_owned()])[0].display().to_string();
    assert_eq!(of("/home/me/shots/1.png"), "/home/me/shots");
    assert_eq!([of("/home/me/1.png"), of("/tmp/1.png")], ["/home/me/1.png", "/tmp/1.png"]);
    assert!(may_be_home(Path::new("/home/me")) && may_be_home(Path::new("/var/lib/swarm")));
    assert!(
        !may_be_home(Path::new("/")) && !may_be_home(Path::new("/usr/nonexistent")) && !may_be_home(Path::new("me"))
    );
}

#[test]
fn variables_that_change_what_is_rendered_go_along_and_keys_do_not() {
    for name in ["PATH", "LANG", "LC_ALL", "CUDA_VISIBLE_DEVICES", "LIBGL_ALWAYS_SOFTWARE", "__GLX_VENDOR_LIBRARY_NAME"]
    {
        assert!(goes_along(OsStr::new(name)), "{name}");
    }
    for name in ["AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "WAYLAND_DISPLAY", "DISPLAY"] {
        assert!(!goes_along(OsStr::new(name)), "{name}");
    }
}
