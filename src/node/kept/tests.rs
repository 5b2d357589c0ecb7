use super::*;
use crate::node::store::Store;
use std::fs;

const SIZE: (u32, u32) = (8, 4);

struct Folder {
    dir: tempfile::TempDir,
    output: OutputSpec,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("out");
        fs::create_dir(&directory).unwrap();
        let output = crate::wire::tests::spec().output;
        let directory = directory.to_str().unwrap().into();
        let (prefix, suffix) = ("shot_".into(), String::new());
        Self { dir, output: OutputSpec { directory, prefix, suffix, digits: 4, ..output } }
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.output.directory).join(name)
    }

    /// An image with a shade of its own.
    fn image(&self, name: &str, (width, height): (u32, u32), shade: u8) -> PathBuf {
        let image = image::RgbImage::from_pixel(width, height, image::Rgb([shade; 3]));
        image.save(self.path(name)).unwrap();
        self.path(name)
    }

    fn look(&self, frames: &str, sets: &[&[&str]]) -> (Kept, Broken) {
        let sets = sets.iter().map(|set| set.iter().map(|view| (*view).to_owned()).collect()).collect();
        let wanted = Wanted { sets, format: ImageFormat::Png, size: SIZE };
        Kept::look(&self.output, &frames.parse().unwrap(), &wanted, |_| true).unwrap()
    }

    /// Why the only file of a frame cannot be looked at.
    fn refused(&self, frame: i32) -> String {
        let wanted = Wanted { sets: vec![vec![String::new()]], format: ImageFormat::Png, size: SIZE };
        let frames = FrameSet::range(frame, frame, 1).unwrap();
        let error = Kept::look(&self.output, &frames, &wanted, |_| true).unwrap_err();
        assert_eq!(error.kind, ErrorKind::FileUnreadable);
        let name = self.path(&format!("shot_{frame:04}.png"));
        assert!(error.message.starts_with(&format!("{} cannot be looked at (", name.display())), "{}", error.message);
        assert!(error.message.ends_with("or submit without --keep-existing, which replaces it"), "{}", error.message);
        error.message
    }

    fn store(&self) -> std::sync::Arc<Store> {
        Store::open(&self.dir.path().join("store")).unwrap()
    }
}

fn frames(kept: &Kept) -> Vec<i32> {
    kept.0.keys().copied().collect()
}

#[test]
fn a_frame_is_kept_if_its_file_is_whole_and_as_it_would_be_rendered() {
    let folder = Folder::new();
    for frame in [1, 3, 5, 11] {
        folder.image(&format!("shot_{frame:04}.png"), SIZE, frame);
    }
    let torn = folder.path("shot_0003.png");
    let bytes = fs::read(&torn).unwrap();
    fs::write(&torn, &bytes[..bytes.len() - 5]).unwrap();
    folder.image("shot_0004.png", (4, 8), 4);
    let other = folder.path("shot_0006.jpg");
    image::RgbImage::new(8, 4).save(&other).unwrap();
    fs::rename(&other, folder.path("shot_0006.png")).unwrap();
    fs::write(folder.path("shot_0007.png"), "").unwrap();
    let (kept, broken) = folder.look("1-10", &[&[""]]);
    assert_eq!((frames(&kept), broken.frames), (vec![1, 5], 4));
    assert_eq!(broken.why, "shot_0003.png: the image is cut short (its end is missing)");
    assert_eq!(folder.look("4", &[&[""]]).1.why, "shot_0004.png: the image has 4×8 pixels and 8×4 were to be rendered");
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_no_file_is_refused_and_not_waited_for_and_a_link_is_followed() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let folder = Folder::new();
    mknodat(CWD, folder.path("shot_0001.png"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    std::os::unix::fs::symlink(folder.image("elsewhere.png", SIZE, 9), folder.path("shot_0002.png")).unwrap();
    std::os::unix::fs::symlink(folder.path("nowhere.png"), folder.path("shot_0003.png")).unwrap();
    let (kept, broken) = folder.look("2-3", &[&[""]]);
    assert_eq!((frames(&kept), broken.frames), (vec![2], 0));
    fs::create_dir(folder.path("shot_0004.png")).unwrap();
    std::os::unix::fs::symlink(folder.path("shot_0005.png"), folder.path("shot_0005.png")).unwrap();
    for (frame, why) in [(1, "it is not a plain file"), (4, "it is not a plain file"), (5, "symbolic links")] {
        let told = folder.refused(frame);
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn a_file_that_the_disk_does_not_give_or_that_is_too_large_is_not_called_broken() {
    use image::error::{DecodingError, ImageFormatHint, LimitError, LimitErrorKind};
    let failed = || io::Error::from_raw_os_error(5);
    let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let within = |error: io::Error| ImageError::Decoding(DecodingError::new(ImageFormatHint::Unknown, error));
    let limits = ImageError::Limits(LimitError::from_kind(LimitErrorKind::InsufficientMemory));
    for error in [
        CheckError::Io(failed()),
        CheckError::Decode(ImageError::IoError(failed())),
        CheckError::Decode(within(failed())),
        CheckError::Decode(limits),
        CheckError::TooLarge(1, 1),
    ] {
        assert!(tells_nothing(&error), "{error:?}");
    }
    for error in [
        CheckError::Io(ended()),
        CheckError::Decode(ImageError::IoError(ended())),
        CheckError::Decode(within(ended())),
        CheckError::Empty,
        CheckError::Size { is: (1, 1), wanted: SIZE },
    ] {
        assert!(!tells_nothing(&error), "{error:?}");
    }
}

#[test]
fn of_a_frame_of_several_views_every_file_has_to_be_there() {
    let folder = Folder::new();
    for (name, size) in [
        ("shot_0001_L.png", SIZE),
        ("shot_0001_R.png", SIZE),
        ("shot_0002_L.png", SIZE),
        ("shot_0003_L.png", SIZE),
        ("shot_0003_R.png", (4, 4)),
        ("shot_0004.png", SIZE),
    ] {
        folder.image(name, size, 1);
    }
    let (kept, broken) = folder.look("1-5", &[&["_L", "_R"]]);
    assert_eq!((frames(&kept), broken.frames), (vec![1], 2));
    assert_eq!(broken.why, "frame 2 lacks files of views");
    // A view alone is called in one of two ways.
    let (kept, broken) = folder.look("1-5", &[&["_L"], &[""]]);
    assert_eq!((frames(&kept), broken.frames), (vec![1, 2, 3, 4], 0));
    let store = folder.store();
    let taken = folder.look("1", &[&["_L", "_R"]]).0.take_in(&store, |_| true).unwrap();
    let named: Vec<(&str, OutputRole)> = taken[0].outputs.iter().map(|output| (&*output.path, output.role)).collect();
    assert_eq!(named, [("shot_0001_L.png", OutputRole::Image), ("shot_0001_R.png", OutputRole::Aux)]);
}

#[test]
fn what_is_kept_is_taken_in_as_it_is_and_stays_where_it_is() {
    let folder = Folder::new();
    let paths = [1, 2].map(|frame| folder.image(&format!("shot_{frame:04}.png"), SIZE, frame));
    let before = paths.clone().map(|path| (fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap()));
    let store = folder.store();
    let taken = folder.look("1-3", &[&[""]]).0.take_in(&store, |_| true).unwrap();
    let units: Vec<Unit> = taken.iter().map(|frame| frame.unit).collect();
    assert_eq!(units, [Unit::whole(1), Unit::whole(2)]);
    for ((frame, path), (bytes, modified)) in taken.iter().zip(&paths).zip(before) {
        let [output] = &frame.outputs[..] else { panic!("{frame:?}") };
        let mut stored = Vec::new();
        io::Read::read_to_end(&mut store.open_blob(output.blob).unwrap(), &mut stored).unwrap();
        assert_eq!((&stored, output.bytes), (&bytes, bytes.len() as u64));
        assert_eq!((fs::read(path).unwrap(), path.metadata().unwrap().modified().unwrap()), (bytes, modified));
    }
}

#[test]
fn a_file_that_changed_since_it_was_looked_at_is_named() {
    let folder = Folder::new();
    let path = folder.image("shot_0001.png", SIZE, 1);
    let (kept, _) = folder.look("1", &[&[""]]);
    folder.image("shot_0001.png", (9, 9), 7);
    let error = kept.clone().take_in(&folder.store(), |_| true).unwrap_err();
    assert!(error.kind == ErrorKind::FileUnreadable && error.message.contains("shot_0001.png changed"), "{error:?}");
    fs::remove_file(path).unwrap();
    let error = kept.take_in(&folder.store(), |_| true).unwrap_err();
    assert!(error.message.contains("shot_0001.png"), "{error:?}");
}
