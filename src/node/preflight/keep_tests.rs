//! `--keep-existing` in scenes that the Blenders of this machine made.
#![allow(clippy::unwrap_used)]

use super::super::http::{FormatChoice, Reply};
use super::super::render::discover;
use super::tests::make;
use super::*;
use crate::farm::frames::FrameSet;

/// Five frames with sound and a File Output node, as wide as they are high.
const SCENE: &str = r#"
import wave
scene = bpy.context.scene
scene.frame_end = 5
scene.render.resolution_x = scene.render.resolution_y = 8
scene.render.resolution_percentage = 100
place = os.path.join(os.path.dirname(args[0]), "beep.wav")
with wave.open(place, "wb") as file:
    file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
    file.writeframes(bytes(16000))
scene.sequence_editor_create()
strips = getattr(scene.sequence_editor, "strips", None) or scene.sequence_editor.sequences
strips.new_sound("Beep", place, 1, 1)
scene.use_nodes = True
scene.node_tree.nodes.new("CompositorNodeOutputFile")
"#;

/// What `check` finds in a swarm whose machines have no Blender, or one of this series; and what it tells.
async fn checked(request: &SubmitRequest, series: Option<Series>) -> Checked {
    let (events, mut asked) = mpsc::channel(8);
    let (told, mut heard) = mpsc::channel(64);
    let stream = Stream::of(Reply::Stream(told)).unwrap();
    let answers = async {
        while let Some(event) = asked.recv().await {
            match event {
                Event::WhoCan(question) => {
                    let none = || ApiError::new(ErrorKind::NoBlender, "there is no Blender; install one");
                    let file = Some(question.file).filter(|_| !question.renders);
                    let found = series.or(file).ok_or_else(none);
                    let found = found.map(|series| Found { series, warning: None, after: None });
                    let _ = question.reply.send(Choice { pinned: None, found });
                }
                Event::Prospect(question) => {
                    let outlook = Outlook {
                        nodes: json!([]),
                        nobody: None,
                        in_the_way: None,
                        small: Vec::new(),
                        seconds: Some((question.spec.frames.len() - question.kept) as f64),
                        basis: "measured",
                    };
                    let _ = question.reply.send(outlook);
                }
                _ => {}
            }
        }
    };
    tokio::select! {
        checked = check(request, &events, &stream) => checked.unwrap(),
        () = answers => panic!("the check is not over"),
        () = async { while heard.recv().await.is_some() {} } => panic!("the stream is here"),
    }
}

fn told(checked: &Checked, kind: &str) -> Vec<String> {
    let of_kind = |problem: &&Problem| match problem.severity {
        Severity::Error(is) => is.as_str() == kind,
        Severity::Warning(is) => is == kind,
    };
    checked.looked.problems.iter().filter(of_kind).map(Problem::sentence).collect()
}

#[tokio::test]
async fn how_many_frames_are_kept_is_told_and_nothing_is_asked_of_anybody_where_all_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let renderers = discover(&[], &path("cache.json")).await.renderers;
    let renderer = renderers.into_iter().next().unwrap();
    make(&renderer, &path("shot.blend"), SCENE);
    std::fs::create_dir(path("out")).unwrap();
    let out = path("out").to_str().unwrap().to_owned();
    let series = Some(renderer.series);
    let image = |frame: i32, size: u32| {
        image::RgbImage::new(size, 8).save(path(&format!("out/shot_{frame:04}.png"))).unwrap();
    };
    let plain =
        SubmitRequest { file: path("shot.blend"), output: Some(path("out")), check: true, ..SubmitRequest::default() };
    let keeping = SubmitRequest { keep_existing: true, ..plain.clone() };
    let none = checked(&keeping, series).await;
    assert_eq!(told(&none, "kept"), [format!("none of the 5 frames is in {out}, so all are rendered")]);
    (1..=5).for_each(|frame| image(frame, 9));
    let other = checked(&keeping, series).await;
    assert_eq!(
        told(&other, "kept"),
        [format!("none of the 5 frames can be kept as it is in {out}, so all are rendered")]
    );
    let [replaced] = &told(&other, "replaces")[..] else { panic!("{:?}", other.looked.problems) };
    assert!(replaced.starts_with(&format!("5 frames in {out} cannot be kept and will be replaced (shot_0001.png: ")));
    std::fs::remove_file(path("out/shot_0005.png")).unwrap();
    std::fs::remove_file(path("out/shot_0004.png")).unwrap();
    std::fs::create_dir(path("out/shot_0004.png")).unwrap();
    let refused = told(&checked(&keeping, series).await, "file_unreadable");
    assert!(refused.len() == 1 && refused[0].contains("shot_0004.png cannot be looked at"), "{refused:?}");
    std::fs::remove_dir(path("out/shot_0004.png")).unwrap();
    [1, 2, 4].into_iter().for_each(|frame| image(frame, 8));
    image(3, 9);
    let some = checked(&keeping, series).await;
    let [count, aux] = &told(&some, "kept")[..] else { panic!("{:?}", some.looked.problems) };
    assert_eq!(*count, format!("3 of 5 frames are in {out} already and are kept; 2 to render"));
    assert!(aux.contains("File Output nodes"), "{aux}");
    let [replaced] = &told(&some, "replaces")[..] else { panic!("{:?}", some.looked.problems) };
    assert!(
        replaced.starts_with("1 frame in ") && replaced.contains("(shot_0003.png: the image has 9×8"),
        "{replaced}"
    );
    let json = some.to_json(None);
    assert_eq!((&json["kept"], &json["ok"], &json["estimate"]["seconds"]), (&json!(3), &json!(true), &json!(2.0)));
    assert!(told(&some, "sound").is_empty(), "it is mixed with frame 3");
    let all_anew = checked(&plain, series).await;
    assert_eq!(told(&all_anew, "replaces"), [format!("4 frames already in {out} will be replaced by new ones")]);
    assert_eq!((all_anew.kept.len(), all_anew.to_json(None)["kept"].clone()), (0, json!(0)));
    // Without a Blender no frame can be rendered, and none has to be.
    assert_eq!(told(&checked(&keeping, None).await, "no_blender").len(), 1);
    [3, 5].into_iter().for_each(|frame| image(frame, 8));
    let all = checked(&keeping, None).await;
    assert!(all.spec.is_some() && !all.looked.problems.iter().any(Problem::is_error), "{:?}", all.looked.problems);
    assert_eq!(told(&all, "kept")[0], format!("all 5 frames are in {out} already and are kept: nothing is rendered"));
    let [silent] = &told(&all, "sound")[..] else { panic!("{:?}", all.looked.problems) };
    assert!(silent.contains("the video has no sound") && silent.contains("job requeue --frames 1"), "{silent}");
    let mute = SubmitRequest { no_audio: true, ..keeping.clone() };
    assert!(told(&checked(&mute, None).await, "sound").is_empty());
}

#[tokio::test]
async fn frames_are_not_kept_where_the_video_or_the_frames_beside_them_would_come_out_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let blend = dir.path().join("shot.blend");
    let renderers = discover(&[], &dir.path().join("cache.json")).await.renderers;
    let renderer = renderers.into_iter().next().unwrap();
    make(&renderer, &blend, "bpy.context.object.modifiers.new('Mod', 'CLOTH')");
    let mut request = SubmitRequest { file: blend, keep_existing: true, check: true, ..SubmitRequest::default() };
    request.frames = Some(FrameSet::range(1, 2, 1).unwrap().to_string());
    request.rules.chunk = Some(Chunk::All);
    let refused =
        |request: SubmitRequest| async move { told(&checked(&request, Some(renderer.series)).await, "bad_request") };
    let played = refused(request.clone()).await;
    assert!(played.len() == 1 && played[0].contains("plays forward (--chunk all)"), "{played:?}");
    request.rules.chunk = None;
    request.allow_unbaked = true;
    assert!(refused(request.clone()).await.is_empty(), "whoever takes frames as they come may keep some");
    request.format = Some(FormatChoice::Exr);
    let exr = refused(request.clone()).await;
    assert!(exr.len() == 1 && exr[0].contains("--no-video"), "{exr:?}");
    request.video = VideoChoice::None;
    assert!(refused(request).await.is_empty());
}

#[tokio::test]
async fn what_is_kept_is_told_once_of_the_format_that_is_written_after_all() {
    let dir = tempfile::tempdir().unwrap();
    let blend = dir.path().join("shot.blend");
    let renderers = discover(&[], &dir.path().join("cache.json")).await.renderers;
    let renderer = renderers.into_iter().next().unwrap();
    make(&renderer, &blend, "bpy.context.scene.render.image_settings.file_format = 'WEBP'");
    let out = dir.path().join("out");
    std::fs::create_dir_all(out.join("shot_0002.webp")).unwrap();
    std::fs::write(out.join("shot_0001.webp"), "").unwrap();
    std::fs::write(out.join("shot_0001.png"), "").unwrap();
    let frames = Some("1-2".into());
    let output = Some(out);
    let request =
        SubmitRequest { file: blend, output, frames, keep_existing: true, check: true, ..SubmitRequest::default() };
    let checked = checked(&request, Some(Series { major: 2, minor: 93 })).await;
    assert!(told(&checked, "format")[0].contains("rendered as PNG"), "{:?}", checked.looked.problems);
    assert_eq!((told(&checked, "kept").len(), told(&checked, "file_unreadable").len()), (1, 0));
    let [replaced] = &told(&checked, "replaces")[..] else { panic!("{:?}", checked.looked.problems) };
    assert!(replaced.contains("(shot_0001.png: "), "{replaced}");
}
