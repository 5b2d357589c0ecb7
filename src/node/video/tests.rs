#![allow(clippy::unwrap_used)]
//! With a real ffmpeg; without one they say so and pass.

use super::*;
use crate::farm::job::FrameRate;
use std::process::Command as Process;
use std::time::Duration;

const SIZE: (u32, u32) = (64, 36);

struct Stage {
    folder: tempfile::TempDir,
    spec: VideoSpec,
    ffmpeg: PathBuf,
}

impl Stage {
    /// `None`, said, when there is no ffmpeg to test with.
    fn new(frames: impl IntoIterator<Item = i32>) -> Option<Self> {
        let Some(ffmpeg) = find_ffmpeg() else {
            println!("skipped: no ffmpeg");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let spec = VideoSpec {
            frames: frames.into_iter().collect(),
            rate: FrameRate { fps: 24, base_millionths: 1_000_000 },
            out: folder.path().join("shot.mp4"),
            work_dir: folder.path().join("work"),
            size: SIZE,
            sound: None,
        };
        Some(Self { folder, spec, ffmpeg })
    }

    async fn open(&self) -> Encoder {
        Encoder::open_with(self.spec.clone(), self.ffmpeg.clone()).await.unwrap()
    }

    fn image(&self, frame: i32) -> PathBuf {
        let path = self.folder.path().join(format!("it's %d \"a\" {frame:04}.png"));
        if !path.exists() {
            grey(frame, self.spec.size).save(&path).unwrap();
        }
        path
    }

    async fn add(&self, encoder: &mut Encoder, frames: impl IntoIterator<Item = i32>) {
        for frame in frames {
            encoder.add(frame, self.image(frame)).await.unwrap();
        }
    }

    /// The frame that each frame of the video shows, told by its brightness.
    fn shown(&self) -> Vec<i32> {
        let output = Process::new(&self.ffmpeg)
            .args(["-nostdin", "-v", "error", "-i"])
            .arg(&self.spec.out)
            .args(["-vf", "scale=1:1,format=gray,scale=out_range=full", "-f", "rawvideo", "-"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout.iter().map(|&level| (f64::from(level) / 4.0).round() as i32).collect()
    }

    fn probe(&self, what: &str) -> String {
        let output = Process::new("ffprobe")
            .args(["-v", "error", "-count_packets", "-show_data_hash", "md5", "-of", "csv=p=0", "-show_entries", what])
            .arg(&self.spec.out)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn segments(&self) -> usize {
        let entries = std::fs::read_dir(&self.spec.work_dir).map(|entries| entries.flatten().collect());
        let entries: Vec<std::fs::DirEntry> = entries.unwrap_or_default();
        entries.iter().filter(|entry| entry.path().extension().is_some_and(|e| e == "json")).count()
    }

    /// Waits until there are so many finished segments.
    async fn until_segments(&self, count: usize) {
        let wait = async {
            while self.segments() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    }
}

/// Brightness tells the frame; four levels a frame survive compression.
fn grey(frame: i32, (width, height): (u32, u32)) -> image::RgbImage {
    image::RgbImage::from_pixel(width, height, image::Rgb([(frame.rem_euclid(64) * 4) as u8; 3]))
}

/// All of them, in an order that only looks random.
fn shuffled(count: i32) -> impl Iterator<Item = i32> {
    (0..count).map(move |i| (i * 37 + 11) % count)
}

#[tokio::test]
async fn frames_in_any_order_and_of_any_name_become_a_video_of_exactly_those_frames() {
    let Some(mut stage) = Stage::new(0..60) else { return };
    stage.spec.out = stage.folder.path().join("-it's %04d: \"a\" v.mp4");
    stage.spec.rate = FrameRate { fps: 24, base_millionths: 1_001_000 };
    let mut encoder = stage.open().await;
    stage.add(&mut encoder, shuffled(60)).await;
    let video = encoder.finish(&[]).await.unwrap();
    assert_eq!((video.frames, video.missing, &video.path), (60, vec![], &stage.spec.out));
    assert_eq!(stage.shown(), (0..60).collect::<Vec<_>>());
    let stream = "stream=codec_name,width,height,pix_fmt,color_range,color_space,color_transfer,color_primaries";
    assert_eq!(stage.probe(stream).trim(), "h264,64,36,yuv420p,tv,bt709,bt709,bt709");
    assert_eq!(
        stage.probe("stream=r_frame_rate,avg_frame_rate,start_time,duration,nb_frames,nb_read_packets").trim(),
        "24000/1001,24000/1001,0.000000,2.502500,60,60"
    );
    let packets = stage.probe("packet=pts");
    let mut times: Vec<i64> = packets.lines().map(|line| line.trim_end_matches(',').parse().unwrap()).collect();
    times.sort_unstable();
    assert_eq!(times, (0..60).map(|frame| frame * 1001).collect::<Vec<_>>());
    assert!(!stage.spec.work_dir.exists(), "segments are gone");
    let files = std::fs::read_dir(stage.folder.path()).unwrap().count();
    assert_eq!(files, 61, "sixty images and the video");
}

/// A tone of so many seconds.
fn tone(stage: &Stage, seconds: u32) -> PathBuf {
    let path = stage.folder.path().join("it's a %d tone.flac");
    let made = Process::new(&stage.ffmpeg)
        .args(["-nostdin", "-v", "error", "-f", "lavfi", "-i", &format!("sine=440:r=48000:d={seconds}")])
        .arg(&path)
        .status();
    assert!(made.unwrap().success());
    path
}

#[tokio::test]
async fn sound_ends_with_the_pictures() {
    let Some(mut stage) = Stage::new(0..60) else { return };
    stage.spec.rate = FrameRate { fps: 24, base_millionths: 1_001_000 };
    stage.spec.out = stage.folder.path().join("-it's %04d: \"a\" v.mp4");
    for sound in [None, Some(stage.folder.path().join("none.flac")), Some(tone(&stage, 9))] {
        let is_heard = sound.as_ref().is_some_and(|sound| sound.is_file());
        stage.spec.sound = sound;
        let mut encoder = stage.open().await;
        stage.add(&mut encoder, shuffled(60)).await;
        assert_eq!(encoder.finish(&[]).await.unwrap().silent, None);
        assert_eq!(stage.shown(), (0..60).collect::<Vec<_>>());
        let streams = stage.probe("stream=codec_name,r_frame_rate,start_time,duration,nb_frames");
        let streams: Vec<Vec<&str>> = streams.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(streams[0][..5], ["h264", "24000/1001", "0.000000", "2.502500", "60"]);
        assert_eq!(streams.len(), if is_heard { 2 } else { 1 });
        let Some(sound) = streams.get(1) else { continue };
        assert_eq!((sound[0], sound[2]), ("aac", "0.000000"));
        let (seconds, packet) = (sound[3].parse::<f64>().unwrap(), 1024.0 / 48_000.0);
        assert!((seconds - 2.5025).abs() <= packet, "{seconds}");
        let bytes = std::fs::read(&stage.spec.out).unwrap();
        let at = |name: &[u8]| bytes.windows(4).position(|word| word == name).unwrap();
        assert!(at(b"moov") < at(b"mdat"), "it can be played before it is all there");
        assert!(!stage.spec.work_dir.exists(), "segments are gone");
    }
}

#[tokio::test]
async fn sound_is_added_without_touching_a_picture() {
    let Some(mut stage) = Stage::new(0..30) else { return };
    let mut encoder = stage.open().await;
    stage.add(&mut encoder, 0..30).await;
    encoder.finish(&[]).await.unwrap();
    let pictures = |stage: &Stage| {
        let told = stage.probe("packet=stream_index,pts,dts,size,flags,data_hash");
        told.lines().filter(|line| line.starts_with("0,")).map(str::to_owned).collect::<Vec<_>>()
    };
    let (before, silent) = (pictures(&stage), stage.spec.out.clone());
    stage.spec.out = stage.folder.path().join("heard.mp4");
    let rate = Rate::new(24, 1_000_000).unwrap();
    let (sound, out) = (&*tone(&stage, 2), &*stage.spec.out);
    let dub = ffmpeg::Dub { pictures: &silent, sound, frames: 30, seconds: rate.seconds(30), rate, out };
    Ffmpeg::probe(stage.ffmpeg.clone()).await.unwrap().add_sound(&dub).await.unwrap();
    assert_eq!(join::tracks(&stage.spec.out).unwrap()[0], (join::PICTURES, 30));
    assert_eq!((pictures(&stage), before.len()), (before, 30));
}

#[tokio::test]
async fn sound_that_cannot_be_decoded_costs_the_sound_and_not_the_video() {
    let Some(mut stage) = Stage::new(0..30) else { return };
    let path = tone(&stage, 2);
    let whole = std::fs::read(&path).unwrap();
    let damaged = [&whole[..8000], &[0x5a; 9000], &whole[17_000..]].concat();
    for bytes in [&b"no sound at all"[..], &whole[..whole.len() / 2], &damaged] {
        std::fs::write(&path, bytes).unwrap();
        stage.spec.sound = Some(path.clone());
        let mut encoder = stage.open().await;
        stage.add(&mut encoder, 0..30).await;
        let silent = encoder.finish(&[]).await.unwrap().silent.unwrap();
        assert!(silent.starts_with("ffmpeg failed while adding the sound: "), "{silent}");
        assert_eq!(stage.probe("stream=codec_name").trim(), "h264");
        assert_eq!(stage.shown(), (0..30).collect::<Vec<_>>());
    }
    let files = std::fs::read_dir(stage.folder.path()).unwrap().count();
    assert_eq!(files, 32, "thirty images, a sound and the video");
}

#[tokio::test]
async fn odd_sizes_are_padded_and_a_single_frame_is_a_video() {
    let Some(mut stage) = Stage::new([-7]) else { return };
    stage.spec.size = (33, 17);
    let mut encoder = stage.open().await;
    stage.add(&mut encoder, [-7]).await;
    encoder.finish(&[]).await.unwrap();
    assert_eq!(stage.probe("stream=width,height,nb_frames,duration").trim(), "34,18,0.041667,1");
}

#[tokio::test]
async fn a_failed_frame_holds_the_one_before_and_is_listed() {
    let Some(stage) = Stage::new(0..40) else { return };
    let mut encoder = stage.open().await;
    let failed = [0, 1, 20, 21, 39];
    stage.add(&mut encoder, (0..40).filter(|frame| !failed.contains(frame))).await;
    let video = encoder.finish(&failed).await.unwrap();
    assert_eq!(video.missing, failed);
    let expected: Vec<i32> = [2, 2].into_iter().chain(2..20).chain([19, 19]).chain(22..39).chain([38]).collect();
    assert_eq!(stage.shown(), expected);
}

#[tokio::test]
async fn a_frame_that_neither_came_nor_failed_is_an_error() {
    let Some(stage) = Stage::new(0..5) else { return };
    let mut encoder = stage.open().await;
    stage.add(&mut encoder, [0, 1, 4]).await;
    let error = encoder.finish(&[2]).await.unwrap_err();
    assert!(matches!(error, VideoError::Absent { first: 3, count: 1 }), "{error}");
    assert!(!stage.spec.out.exists());
    let error = stage.open().await.finish(&[0, 1, 2, 3, 4]).await.unwrap_err();
    assert!(matches!(error, VideoError::NoFrames), "{error}");
}

#[tokio::test]
async fn a_restart_encodes_again_only_what_changed() {
    let Some(stage) = Stage::new(0..96) else { return };
    let mut encoder = stage.open().await;
    stage.add(&mut encoder, 0..48).await;
    stage.until_segments(2).await;
    drop(encoder);
    let first = stage.spec.work_dir.join("seg-0000000-0000024.mp4");
    let second = stage.spec.work_dir.join("seg-0000024-0000048.mp4");
    let written = |path: &Path| path.metadata().unwrap().modified().unwrap();
    let before = (written(&first), written(&second));
    // What a kill leaves, and one frame rendered anew.
    std::fs::write(stage.spec.work_dir.join("seg-0000048-0000072.mp4"), b"torn").unwrap();
    std::fs::write(stage.spec.work_dir.join("seg-0000048-0000072.part"), b"torn").unwrap();
    grey(63, (64, 36)).save(stage.image(30)).unwrap();

    let mut encoder = stage.open().await;
    stage.add(&mut encoder, (0..72).rev()).await;
    stage.until_segments(3).await;
    assert_eq!(written(&first), before.0, "kept");
    assert_ne!(written(&second), before.1, "made anew");
    stage.add(&mut encoder, 72..96).await;
    encoder.finish(&[]).await.unwrap();
    let shown = stage.shown();
    assert_eq!((shown.len(), shown[29], shown[30], shown[31], shown[95]), (96, 29, 63, 31, 31));
}

#[tokio::test]
async fn another_size_and_another_format_and_no_image_are_errors_that_name_the_frame() {
    let Some(stage) = Stage::new(0..9) else { return };
    let mut encoder = stage.open().await;
    let other = |name: &str| stage.folder.path().join(name);
    stage.add(&mut encoder, [0]).await;
    grey(1, (64, 38)).save(other("big.png")).unwrap();
    let error = encoder.add(1, other("big.png")).await.unwrap_err();
    assert!(matches!(error, VideoError::Size { frame: 1, found: (64, 38), expected: (64, 36), .. }), "{error}");
    grey(1, (64, 36)).save(other("a.jpg")).unwrap();
    let error = encoder.add(1, other("a.jpg")).await.unwrap_err();
    assert!(matches!(error, VideoError::Format { frame: 1, found: "jpg", expected: "png", .. }), "{error}");
    std::fs::write(other("text.png"), "not an image").unwrap();
    let error = encoder.add(1, other("text.png")).await.unwrap_err();
    assert!(matches!(error, VideoError::NotAnImage { frame: 1, .. }), "{error}");
    let error = encoder.add(1, other("none.png")).await.unwrap_err();
    assert!(matches!(error, VideoError::FrameFile { frame: 1, .. }), "{error}");
    let error = encoder.add(10, stage.image(0)).await.unwrap_err();
    assert!(matches!(error, VideoError::UnknownFrame(10)), "{error}");
}

#[tokio::test]
async fn an_image_that_vanished_is_named() {
    let Some(stage) = Stage::new(0..50) else { return };
    let mut encoder = stage.open().await;
    stage.add(&mut encoder, 0..23).await;
    std::fs::remove_file(stage.image(7)).unwrap();
    stage.add(&mut encoder, [23]).await;
    let error = encoder.finish(&(24..50).collect::<Vec<_>>()).await.unwrap_err();
    assert!(matches!(error, VideoError::FrameFile { frame: 7, .. }), "{error}");
}

#[tokio::test]
async fn other_formats_become_videos_too() {
    for extension in ["jpg", "webp", "tiff", "exr"] {
        let Some(stage) = Stage::new(0..6) else { return };
        let mut encoder = stage.open().await;
        for frame in 0..6 {
            let path = stage.folder.path().join(format!("{frame}.{extension}"));
            match extension {
                "exr" => {
                    // Linear light, as Blender writes it.
                    let level = ((frame * 4) as f32 / 255.0 + 0.055) / 1.055;
                    let level = if frame * 4 > 10 { level.powf(2.4) } else { (frame * 4) as f32 / 255.0 / 12.92 };
                    image::Rgb32FImage::from_pixel(64, 36, image::Rgb([level; 3])).save(&path).unwrap();
                }
                _ => grey(frame, SIZE).save(&path).unwrap(),
            }
            encoder.add(frame, path).await.unwrap();
        }
        encoder.finish(&[]).await.unwrap_or_else(|error| panic!("{extension}: {error}"));
        assert_eq!(stage.shown(), (0..6).collect::<Vec<_>>(), "{extension}");
    }
}

#[tokio::test]
async fn an_ffmpeg_that_is_none_is_an_error_that_says_what_to_do() {
    let Some(stage) = Stage::new(0..3) else { return };
    let open = async |program: &str| Encoder::open_with(stage.spec.clone(), program.into()).await.unwrap_err();
    let error = open("/nowhere/ffmpeg").await;
    assert!(matches!(error, VideoError::CannotStart { .. }), "{error}");
    let error = open("true").await;
    assert!(matches!(error, VideoError::NoX264 { .. }), "{error}");
}

/// As on a disk that fills up while ffmpeg writes.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_disk_that_is_full_for_ffmpeg_is_told_from_other_failures() {
    let Some(stage) = Stage::new(0..3) else { return };
    let folder = stage.folder.path().to_path_buf();
    let ffmpeg = Ffmpeg::probe(stage.ffmpeg.clone()).await.unwrap();
    let mut run = ffmpeg::Run {
        folder: folder.clone(),
        images: (0..3).map(|frame| stage.image(frame)).collect(),
        extension: "png",
        rate: Rate::new(24, 1_000_000).unwrap(),
        pixels: 64 * 36,
        out: "full.mp4".into(),
    };
    std::os::unix::fs::symlink("/dev/full", folder.join(&run.out)).unwrap();
    let error = ffmpeg.encode(&run).await.unwrap_err();
    assert_eq!(error.full_disk(), Some(folder.as_path()), "{error}");
    run.out = "nowhere/full.mp4".into();
    let error = ffmpeg.encode(&run).await.unwrap_err();
    assert_eq!(error.full_disk(), None, "{error}");
}
