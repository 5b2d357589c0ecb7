//! Printing: where text goes, tables, and how numbers read.
//!
//! Names and messages come from other machines, so nothing of theirs reaches a terminal with control characters in it.

use super::screen::Screen;
use crate::node::http::ApiError;
use serde_json::Value;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// Widest cell of a table, characters (guess: six columns of them still fit a wide terminal).
const CELL_MAX_CHARS: usize = 40;

/// Where a command prints to.
pub(crate) struct Console<'a> {
    /// Answers.
    pub(crate) out: &'a mut dyn Write,
    /// Warnings and errors.
    pub(crate) err: &'a mut dyn Write,
    /// Whether answers are JSON.
    pub(crate) json: bool,
    /// Where a progress bar may be drawn.
    pub(crate) screen: Option<&'a Screen>,
}

impl Console<'_> {
    /// One line of an answer.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.out, "{}", line.as_ref())?;
        self.out.flush()
    }

    /// An answer under `--json`, indented for eyes; programs do not mind.
    pub(crate) fn value(&mut self, value: &Value) -> io::Result<()> {
        self.line(format!("{value:#}"))
    }

    /// The error a command ends with. Nothing can be done if even that cannot be written.
    pub(crate) fn error(&mut self, error: &ApiError) {
        let _ = if self.json {
            writeln!(self.err, "{}", error.to_json())
        } else {
            writeln!(self.err, "error: {}", plain_lines(&error.message))
        };
    }
}

/// Rows of equal columns, aligned, two blanks between them.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these heads.
    pub(crate) fn new(heads: &[&str]) -> Self {
        Self { rows: vec![heads.iter().map(|head| (*head).to_owned()).collect()] }
    }

    /// Adds a row; cells are cleaned and cut here.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| cut(plain(cell).trim(), CELL_MAX_CHARS)).collect());
    }

    /// Adds a row that ends with a sentence, which is not cut: what to do is at its end.
    pub(crate) fn sentence<const N: usize>(&mut self, cells: [String; N], sentence: &str) {
        self.row(cells);
        self.rows.last_mut().into_iter().for_each(|row| row.push(plain(sentence)));
    }

    /// Its lines. Columns in which no row has anything are left out.
    pub(crate) fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = || self.rows.iter().skip(1).filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            let head = self.rows.first().and_then(|row| row.get(column)).map_or(0, |cell| cell.chars().count());
            cells().any(|chars| chars > 0).then(|| cells().max().unwrap_or(0).max(head))
        };
        let widths: Vec<Option<usize>> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).filter_map(|(cell, width)| width.map(|width| format!("{cell:width$}")));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

/// A text on one line, without anything a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_unruly(c) { ' ' } else { c }).collect()
}

/// A text of several lines, without anything a terminal would obey.
pub(crate) fn plain_lines(text: &str) -> String {
    text.chars().filter(|c| !is_unruly(*c) || matches!(c, '\n' | '\t')).collect()
}

/// Control characters, and those that turn the direction of what follows.
fn is_unruly(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// At most so many characters.
pub(crate) fn cut(text: &str, max_chars: usize) -> String {
    if text.chars().count() <= max_chars {
        return text.to_owned();
    }
    text.chars().take(max_chars.saturating_sub(1)).chain(['…']).collect()
}

/// `0:41`, `12:03`, `1:00:07`.
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Seconds as a clock; nothing for what is no time.
pub(crate) fn clock_seconds(seconds: Option<f64>) -> String {
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.map(clock).unwrap_or_default()
}

/// `1 frame`, `24 frames`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `512 B`, `3.4 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A path as seen from `cwd` when it is below it, else whole.
pub(crate) fn short_path(path: &str, cwd: &Path) -> String {
    let below = Path::new(path).strip_prefix(cwd).ok().and_then(Path::to_str).filter(|below| !below.is_empty());
    plain(below.unwrap_or(path))
}

/// The text at this key; empty when there is none.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The whole number at this key; 0 when there is none.
pub(crate) fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}

/// The items at this key, or of `value` itself when `key` is empty.
pub(crate) fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    let array = if key.is_empty() { value.as_array() } else { value.get(key).and_then(Value::as_array) };
    array.map(Vec::as_slice).unwrap_or_default()
}

/// The first eight digits of an id.
pub(crate) fn short_id(value: &Value, key: &str) -> String {
    text(value, key).chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_drop_empty_columns_and_take_the_sting_out_of_names() {
        let mut table = Table::new(&["NAME", "GPU", "STATE"]);
        table.row(["ws1".into(), String::new(), "ready".into()]);
        table.row(["\u{1b}[31mred\n".into(), String::new(), "busy".into()]);
        assert_eq!(table.lines(), ["NAME     STATE", "ws1      ready", "[31mred  busy"]);
        assert_eq!(cut("abcdef", 4), "abc…");
    }

    #[test]
    fn times_and_paths_read_as_people_write_them() {
        assert_eq!(clock(Duration::from_millis(41_400)), "0:41");
        assert_eq!(clock(Duration::from_secs(3607)), "1:00:07");
        assert_eq!(short_path("/a/b/c.mp4", Path::new("/a")), "b/c.mp4");
        assert_eq!(short_path("/x/c.mp4", Path::new("/a")), "/x/c.mp4");
        assert_eq!(count(1, "frame"), "1 frame");
    }
}
