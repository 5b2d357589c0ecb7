//! What Blender prints while it renders: the log of a unit, its progress, and the lines that mean trouble.
//!
//! Blender prints `Saved:` and exits with 0 over broken images, so a line that names an error outranks both. The lines
//! are those seen with Blender 3.4 to 5.0 and those other farms look for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most bytes of a unit's log that are kept, the last ones (DESIGN §6 via the failure's log blob; guess).
pub(super) const LOG_MAX_BYTES: usize = 64 * 1024;
/// Of these for the line that says how much is not kept, bytes: its words and the longest number.
const HEAD_MAX_BYTES: usize = 64;
/// Most warnings kept for one unit, lines (guess).
pub(super) const WARNINGS_MAX: usize = 50;
/// Longest warning or error kept, bytes (guess).
const NOTE_MAX_BYTES: usize = 1000;

/// What a line means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Line {
    /// How far the frame is, 0 to 1.
    Progress(f32),
    /// The frame is not right, whatever else is said.
    Error,
    /// The person should know.
    Warning,
    /// Anything else.
    Plain,
}

/// What a configuration that does not work is told by, before a scene is opened: Blender 4.5 and 5.0 go on with their own
/// colours (measured). It is about every scene.
const LASTING: &str = "OpenColorIO Error";

/// Lines that contain one of these are errors, whatever Blender says after.
const ERRORS: &[&str] = &[LASTING, "Render error", "Error: Cannot ", "cannot save", "Build without OpenImageDenoise"];

/// How bubblewrap begins what it says, where it cannot start Blender at all.
pub(super) const SANDBOX: &str = "bwrap: ";

/// Errors after which this Blender is not trusted with another frame: what it holds of a GPU, or of memory, is in doubt.
const POISONS: &[&str] = &[
    "CUDA error",
    "HIP error",
    "OptiX error",
    "OPTIX_ERROR",
    "Metal error",
    "Failed to create CUDA context",
    "Failed to create HIP context",
    "Out of memory",
    "out of memory",
    "Out of GPU memory",
];

/// Lines that contain one of these are warnings.
const WARNINGS: &[&str] = &[
    "Warning: Unable to open",
    "Unable to open",
    "Cannot read",
    "cannot read",
    "not found",
    "No such file",
    "Error in Driver",
    "Error in PyDriver",
    "skipping driver",
    "expect loss of data",
];

/// What `line` means.
pub(super) fn classify(line: &str) -> Line {
    if let Some(progress) = progress(line) {
        return Line::Progress(progress);
    }
    // The driver gives Eevee the name that this Blender knows it by.
    if line.contains("Engine 'BLENDER_EEVEE") {
        return Line::Plain;
    }
    if ERRORS.iter().chain(POISONS).any(|word| line.contains(word))
        || line.starts_with(SANDBOX)
        || (["Color management:", "color_management |"].iter().any(|word| line.contains(word))
            && line.contains("not found"))
    {
        Line::Error
    } else if WARNINGS.iter().any(|word| line.contains(word)) || line.trim_start().starts_with("Error:") {
        Line::Warning
    } else {
        Line::Plain
    }
}

/// Whether a Blender with this error should render nothing more.
pub(super) fn poisons(error: &str) -> bool {
    POISONS.iter().any(|word| error.contains(word))
}

/// How far a frame is by Blender's words: Cycles' `Sample 33/64`, before it `Rendered 1/4 Tiles` where it works in tiles,
/// and Eevee's `Rendering 1 / 8 samples`.
pub(super) fn progress(line: &str) -> Option<f32> {
    let eevee = || fraction(line, "Rendering ").filter(|_| line.trim_end().ends_with(" samples"));
    let (done, of) = fraction(line, "Sample ").or_else(eevee)?;
    let within = done / of;
    let whole = match fraction(line, "Rendered ") {
        Some((tiles, of)) => (tiles + within) / of,
        None => within,
    };
    Some(whole.clamp(0.0, 1.0))
}

fn fraction(line: &str, word: &str) -> Option<(f32, f32)> {
    let (_, rest) = line.rsplit_once(word)?;
    let (done, rest) = rest.split_once('/')?;
    let rest = rest.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (done, of): (f32, f32) = (done.trim().parse().ok()?, rest[..digits].parse().ok()?);
    (of > 0.0).then_some((done, of))
}

/// `text` up to `max` bytes, cut between characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Before and after the number of bytes that a log does not have any more, on its first line.
const HEAD: (&str, &str) = ("[", " bytes before this are not kept]\n");

/// How many bytes were printed before what a log's text has, and the rest of that text.
pub fn split_log(text: &str) -> (u64, &str) {
    let head = text.strip_prefix(HEAD.0).and_then(|rest| rest.split_once(HEAD.1));
    head.and_then(|(number, rest)| Some((number.parse().ok()?, rest))).unwrap_or((0, text))
}

/// The last lines of what is printed, for whoever looks on while they come.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
    dropped_bytes: u64,
}

impl Lines {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: String) {
        let mut kept = self.kept();
        kept.bytes += line.len() + 1;
        kept.lines.push_back(line);
        while kept.bytes > LOG_MAX_BYTES - HEAD_MAX_BYTES {
            let Some(first) = kept.lines.pop_front() else { break };
            kept.bytes -= first.len() + 1;
            kept.dropped_bytes += first.len() as u64 + 1;
        }
    }

    fn last(&self) -> Option<String> {
        self.kept().lines.back().map(|line| cut(line.trim(), NOTE_MAX_BYTES).to_owned())
    }

    /// The text so far, at most 64 KiB, as [`split_log`] takes it.
    pub fn text(&self) -> String {
        let kept = self.kept();
        let mut text = String::with_capacity(kept.bytes + HEAD_MAX_BYTES);
        if kept.dropped_bytes > 0 {
            text = format!("{}{}{}", HEAD.0, kept.dropped_bytes, HEAD.1);
        }
        for line in &kept.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// The log of one unit.
#[derive(Debug, Default)]
pub(super) struct Log {
    lines: Lines,
    /// First error line.
    pub error: Option<String>,
    /// Warnings, in order, without repeats.
    pub warnings: Vec<String>,
}

impl Log {
    /// A log whose lines can be looked at.
    pub fn on(lines: Lines) -> Self {
        Self { lines, ..Self::default() }
    }

    /// Takes a line in; the progress it tells, if any.
    pub fn push(&mut self, line: String) -> Option<f32> {
        if line.trim().is_empty() {
            return None;
        }
        let meaning = classify(&line);
        let note = cut(line.trim(), NOTE_MAX_BYTES);
        match meaning {
            Line::Error if self.error.is_none() || (line.contains(LASTING) && !self.lasts()) => {
                self.error = Some(note.to_string());
            }
            Line::Warning => self.warn(note),
            Line::Error | Line::Progress(_) | Line::Plain => {}
        }
        self.lines.push(line);
        match meaning {
            Line::Progress(progress) => Some(progress),
            Line::Error | Line::Warning | Line::Plain => None,
        }
    }

    /// Notes a warning, once.
    pub fn warn(&mut self, warning: &str) {
        if self.warnings.len() < WARNINGS_MAX && !self.warnings.iter().any(|w| w == warning) {
            self.warnings.push(warning.to_string());
        }
    }

    /// Whether the error is one of every scene.
    fn lasts(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.contains(LASTING))
    }

    /// What was said so far was not about the scene: it stays in the text and counts for nothing, but for what is about every
    /// scene.
    pub fn forgive(&mut self) {
        self.error = self.error.take().filter(|error| error.contains(LASTING));
        self.warnings.clear();
    }

    /// The last line, for a message.
    pub fn last(&self) -> Option<String> {
        self.lines.last()
    }

    /// The text, at most [`LOG_MAX_BYTES`].
    pub fn text(&self) -> String {
        self.lines.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_series_mean_what_they_say() {
        let sample = "Fra:3 Mem:10.93M (Peak 10.93M) | Time:00:01.00 | Mem:144.67M, Peak:144.67M | Scene, ViewLayer | Sample 1/32";
        assert_eq!(classify(sample), Line::Progress(1.0 / 32.0));
        assert_eq!(
            classify("Fra:1 Mem:9M | Scene, ViewLayer | Rendered 1/4 Tiles, Sample 16/32"),
            Line::Progress(1.5 / 4.0)
        );
        assert_eq!(
            classify("Fra:1 Mem:11.09M (Peak 12.20M) | Time:00:21.20 | Rendering 6 / 8 samples"),
            Line::Progress(6.0 / 8.0)
        );
        assert_eq!(classify("Saved: '/tmp/x_0001.png'"), Line::Plain);
        assert_eq!(classify("Error: Build without OpenImageDenoiser"), Line::Error);
        assert_eq!(classify("Render error (No space left on device) cannot save: '/o/x.png'"), Line::Error);
        assert_eq!(
            classify("Color management: display \"sRGB\" used by scene \"Scene\" not found, setting to default"),
            Line::Error
        );
        assert_eq!(
            classify("00:00.210  color_management | WARNING scene view \"AgX\" not found, setting to \"Standard\"."),
            Line::Error
        );
        for before in
            ["", "ERROR (imbuf.color_management): a.cc:19 report_exception: ", "00:00.027  color_management | ERROR "]
        {
            assert_eq!(classify(&format!("{before}OpenColorIO Error: Error could not read '/c.ocio'")), Line::Error);
        }
        assert_eq!(classify("Warning: Unable to open '/t/a.png': No such file"), Line::Warning);
        assert_eq!(classify("Sample 1/0"), Line::Plain);
    }

    #[test]
    fn a_log_keeps_its_last_lines_and_its_first_error() {
        let mut log = Log::default();
        log.push("CUDA error: first".into());
        for i in 0..10_000 {
            log.push(format!("line {i} é"));
        }
        log.push("CUDA error: second".into());
        assert!(log.text().len() <= LOG_MAX_BYTES);
        assert!(log.text().ends_with("line 9999 é\nCUDA error: second\n"));
        assert_eq!(log.error.as_deref(), Some("CUDA error: first"));
        assert_eq!(cut("aé", 2), "a");
    }

    #[test]
    fn what_is_forgiven_stays_in_the_text_and_the_next_error_counts() {
        let mut log = Log::default();
        for line in ["CUDA error: first", "Unable to open 'x'"] {
            log.push(line.into());
        }
        log.forgive();
        assert_eq!((log.error.as_deref(), log.warnings.len()), (None, 0));
        let mut colours = Log::default();
        for line in
            ["Color management: view \"AgX\" not found", "OpenColorIO Error: first", "OpenColorIO Error: second"]
        {
            colours.push(line.into());
        }
        colours.forgive();
        assert_eq!(colours.error.as_deref(), Some("OpenColorIO Error: first"));
        log.push("CUDA error: second".into());
        assert_eq!(log.error.as_deref(), Some("CUDA error: second"));
        assert_eq!(log.text(), "CUDA error: first\nUnable to open 'x'\nCUDA error: second\n");
    }

    #[test]
    fn a_log_says_how_much_of_it_is_not_kept() {
        let lines = Lines::default();
        let mut log = Log::on(lines.clone());
        let mut printed = 0;
        for i in 0..10_000 {
            let line = format!("line {i}");
            printed += line.len() as u64 + 1;
            log.push(line);
            if i == 7 {
                assert_eq!(split_log(&lines.text()), (0, log.text().as_str()), "whoever looks on sees what there is");
            }
        }
        let text = log.text();
        let (start, rest) = split_log(&text);
        assert!(start > 0 && rest.starts_with("line "), "{}", &text[..80]);
        assert_eq!(start + rest.len() as u64, printed);
        for odd in ["[", "[x bytes before this are not kept]\n", "plain\n"] {
            assert_eq!(split_log(odd), (0, odd));
        }
    }

    #[test]
    fn no_line_of_a_renderer_makes_its_reader_panic() {
        let seeds = [
            "Fra:1 Mem:9M | Scene, ViewLayer | Rendered 1/4 Tiles, Sample 16/32",
            "Color management: display \"sRGB\" used by scene \"Scene\" not found, setting to default",
            "Error: Build without OpenImageDenoiser",
            "Warning: Unable to open '/t/\u{e9}.png': No such file",
        ];
        let seeds = seeds.map(|line| line.as_bytes().to_vec()).into();
        crate::fuzz::fuzz("line", crate::fuzz::ROUNDS, seeds, |bytes| {
            let line = String::from_utf8_lossy(bytes);
            let meaning = classify(&line);
            assert!(progress(&line).is_none_or(|part| (0.0..=1.0).contains(&part)), "{line}");
            let mut log = Log::default();
            log.push(line.repeat(200));
            log.push(line.into_owned());
            assert!(log.text().len() <= LOG_MAX_BYTES);
            (std::mem::discriminant(&meaning), log.error.is_some(), log.warnings.len())
        });
    }
}
