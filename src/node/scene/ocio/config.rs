//! Reading a configuration of OpenColorIO: which files it names, and the same text with other names for them.
//!
//! The YAML is read by events with their places in the text, so that a copy differs from the original in the names alone.
//! A copy is read again before it counts. Input is untrusted: nothing here recurses, and depth and length have bounds.

use super::variables::{Filler, VALUE_MAX_BYTES};
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// Longest configuration, bytes (guess; that of ACES 1.2 has half a million).
pub const CONFIG_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Deepest nesting that is read, levels (guess; a transform of transforms is some ten).
const DEPTH_MAX: usize = 200;
/// Most folders that files are looked for in (guess).
const FOLDERS_MAX: usize = 256;
/// Longest name of a colour space that is told, bytes (guess).
const NAME_MAX_BYTES: usize = 256;

/// Why a text is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is no YAML.
    #[error("it is not valid YAML: {0}")]
    Yaml(String),
    /// It is some other YAML.
    #[error("it has no `ocio_profile_version`, which every configuration begins with")]
    NoVersion,
    /// Deeper than any.
    #[error("line {0} is nested deeper than {DEPTH_MAX} levels")]
    Deep(usize),
    /// A name where no name can be put.
    #[error("line {0} names a file by a YAML alias or a block, which swarm does not follow")]
    Odd(usize),
    /// A value that no path is as long as.
    #[error("line {0} has a value that is longer than {VALUE_MAX_BYTES} bytes with its variables filled in")]
    Long(usize),
    /// Many long values.
    #[error("its values are far too long with their variables filled in")]
    Large,
    /// More folders than any has.
    #[error("its search path has more than {FOLDERS_MAX} folders")]
    Folders,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    at: Range<usize>,
    line: usize,
    /// As YAML means it.
    pub text: String,
}

impl Value {
    /// Where it is, for people.
    pub fn line(&self) -> usize {
        self.line
    }
}

/// A file that a transform names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name as it stands there.
    pub src: Value,
    /// Of the colour space, look or view that it is for.
    pub of: String,
}

/// A configuration that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    text: String,
    /// Files of transforms, in order.
    pub files: Vec<Named>,
    /// Names of colour spaces and the like that transforms refer to, which may have variables in them.
    pub uses: Vec<Value>,
    search_path: Vec<Value>,
    /// Whether the search path is a list, not folders between colons.
    listed: bool,
    /// Variables with what they stand for unless the shell says otherwise. An empty list is one too: then none counts.
    environment: Option<BTreeMap<String, String>>,
}

/// What is open at some point of the text.
enum Open {
    Map { tag: String, name: Option<String>, key: Option<String> },
    List,
}

impl Config {
    /// Reads `text`.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut reader = Reader::of(text);
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                // Nothing after an error counts.
                ConfigError::Yaml(error.to_string().chars().take(200).collect())
            })?;
            reader.take(event, span)?;
        }
        if !reader.has_version {
            return Err(ConfigError::NoVersion);
        }
        Ok(Self { text: text.to_owned(), ..reader.found })
    }

    /// Fills in the variables of its values; `shell` tells what one is where the artist works.
    pub fn filler<'a>(&'a self, shell: &'a mut dyn FnMut(&str) -> Option<Cow<'a, str>>) -> Filler<'a> {
        Filler::new(self.environment.as_ref(), shell)
    }

    /// All of its values in which variables count.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.search_path.iter().chain(self.files.iter().map(|file| &file.src)).chain(&self.uses)
    }

    /// The folders that files are looked for in, in order; empty: that of the configuration.
    pub fn folders(&self, filler: &mut Filler<'_>) -> Result<Vec<String>, ConfigError> {
        let mut folders = Vec::new();
        for value in &self.search_path {
            let value = filler.fill(value)?;
            let colons = if self.listed { 0 } else { value.matches(':').count() };
            if folders.len() + colons >= FOLDERS_MAX {
                return Err(ConfigError::Folders);
            }
            folders.extend(if self.listed { vec![value] } else { split_path(&value) });
        }
        folders.retain(|folder| !folder.is_empty());
        Ok(folders)
    }

    /// The text with other names for its files (those that are `None` stay) and for what its transforms use, and with its
    /// own folder as the only one that files are looked for in.
    pub fn rewritten(&self, files: &[Option<String>], uses: &[String]) -> Result<String, ConfigError> {
        let mut wanted: Vec<(&Value, &str)> = self.search_path.iter().map(|value| (value, ".")).collect();
        let files = files.iter().map(Option::as_deref);
        wanted.extend(self.files.iter().zip(files).map(|(file, new)| (&file.src, new.unwrap_or(&file.src.text))));
        wanted.extend(self.uses.iter().zip(uses).map(|(value, new)| (value, new.as_str())));
        wanted.sort_by_key(|(value, _)| value.at.start);
        let (mut text, mut at) = (String::with_capacity(self.text.len()), 0);
        for (value, new) in &wanted {
            if value.text == *new {
                continue;
            }
            // JSON's strings are YAML's.
            let quoted = serde_json::Value::from(*new).to_string();
            let before = self.text.get(at..value.at.start).ok_or(ConfigError::Odd(value.line))?;
            text.push_str(before);
            text.push_str(&quoted);
            at = value.at.end;
        }
        text.push_str(self.text.get(at..).unwrap_or_default());
        // Whatever the reader makes of places in the text: only what reads as it is meant to counts.
        let mut again = Self::parse(&text)?;
        let all = std::mem::take(&mut again.search_path).into_iter();
        let mut all: Vec<Value> = all.chain(again.files.into_iter().map(|file| file.src)).chain(again.uses).collect();
        all.sort_by_key(|value| value.at.start);
        let odd = wanted.iter().zip(&all).find(|((_, want), is)| is.text != **want).map(|((value, _), _)| *value);
        match odd.or(wanted.get(all.len()).map(|(value, _)| *value)) {
            None if all.len() == wanted.len() => Ok(text),
            odd => Err(ConfigError::Odd(odd.map_or(1, |value| value.line))),
        }
    }
}

/// Folders between colons; on Windows a colon behind a single letter is a drive's.
fn split_path(path: &str) -> Vec<String> {
    let mut folders: Vec<String> = Vec::new();
    for part in path.split(':') {
        let is_drive = |last: &String| last.len() == 1 && part.starts_with(['/', '\\']);
        match folders.last_mut().filter(|last| cfg!(windows) && is_drive(last)) {
            Some(drive) => *drive = format!("{drive}:{part}"),
            None => folders.push(part.trim().to_owned()),
        }
    }
    folders
}

/// What YAML calls null, where it is not in quotes.
const NULLS: [&str; 5] = ["", "~", "null", "Null", "NULL"];

/// How a value is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    /// Not at all.
    Null,
    /// In a way that no other can be put in the place of.
    Odd,
}

struct Reader {
    /// Where each character begins and the last one ends, bytes; empty where all are of one.
    starts: Vec<u32>,
    open: Vec<Open>,
    found: Config,
    has_version: bool,
}

impl Reader {
    /// Of what is at most [`CONFIG_MAX_BYTES`] long.
    fn of(text: &str) -> Self {
        let all = || text.char_indices().map(|(at, _)| at).chain([text.len()]);
        let starts =
            if text.is_ascii() { Vec::new() } else { all().map(|at| u32::try_from(at).unwrap_or(u32::MAX)).collect() };
        Self { starts, open: Vec::new(), found: Config::default(), has_version: false }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), ConfigError> {
        match event {
            Event::MappingStart(_, tag) => {
                let tag = tag.map(|tag| tag.suffix.clone()).unwrap_or_default();
                if matches!(&*self.open, [Open::Map { key: Some(key), .. }] if key == "environment") {
                    self.found.environment.get_or_insert_default();
                }
                self.enter(Open::Map { tag, name: None, key: None }, span)
            }
            Event::SequenceStart(..) => {
                self.found.listed |= matches!(&*self.open, [Open::Map { key: Some(key), .. }] if key == "search_path");
                self.enter(Open::List, span)
            }
            Event::MappingEnd | Event::SequenceEnd => {
                self.open.pop();
                self.valued();
                Ok(())
            }
            Event::Scalar(text, style, ..) => {
                let form = match style {
                    ScalarStyle::Literal | ScalarStyle::Folded => Form::Odd,
                    ScalarStyle::Plain if NULLS.contains(&&*text) => Form::Null,
                    _ => Form::Text,
                };
                self.scalar(text.into_owned(), form, span)
            }
            Event::Alias(_) => self.scalar(String::new(), Form::Odd, span),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn enter(&mut self, open: Open, span: Span) -> Result<(), ConfigError> {
        // A list or mapping for a key: none of any use here.
        if let Some(Open::Map { key: key @ None, .. }) = self.open.last_mut() {
            *key = Some(String::new());
        }
        self.open.push(open);
        if self.open.len() > DEPTH_MAX { Err(ConfigError::Deep(span.start.line())) } else { Ok(()) }
    }

    /// A value is over: a key follows.
    fn valued(&mut self) {
        if let Some(Open::Map { key, .. }) = self.open.last_mut() {
            *key = None;
        }
    }

    fn scalar(&mut self, text: String, form: Form, span: Span) -> Result<(), ConfigError> {
        if let Some(Open::Map { key: key @ None, .. }) = self.open.last_mut() {
            *key = Some(text);
            return Ok(());
        }
        let value = |reader: &Self| match form {
            Form::Odd => Err(ConfigError::Odd(span.start.line())),
            Form::Text | Form::Null => {
                Ok(Value { at: reader.bytes(span), line: span.start.line(), text: text.clone() })
            }
        };
        match &mut *self.open {
            [Open::Map { key: Some(key), .. }] if key == "ocio_profile_version" => self.has_version = true,
            [Open::Map { key: Some(outer), .. }, Open::Map { key: Some(key), .. }] if outer == "environment" => {
                let name = key.clone();
                self.found.environment.get_or_insert_default().insert(name, text);
            }
            // A key without a value is as one that is not there.
            _ if form == Form::Null => {}
            [Open::Map { key: Some(key), .. }, rest @ ..] if key == "search_path" && rest.len() <= 1 => {
                let value = value(self)?;
                self.found.search_path.push(value);
            }
            [.., Open::Map { tag, key: Some(key), name }] => match (&**tag, &**key) {
                (_, "name") => *name = Some(text[..text.floor_char_boundary(NAME_MAX_BYTES)].to_owned()),
                ("FileTransform", "src") => {
                    let names = self.open.iter().rev().find_map(|open| match open {
                        Open::Map { name, .. } => name.clone(),
                        Open::List => None,
                    });
                    let src = value(self)?;
                    self.found.files.push(Named { src, of: names.unwrap_or_default() });
                }
                (_, "src" | "dst" | "looks" | "cccid") if form == Form::Text || text.contains(['$', '%']) => {
                    let value = value(self)?;
                    self.found.uses.push(value);
                }
                _ => {}
            },
            _ => {}
        }
        self.valued();
        Ok(())
    }

    /// Where a span is in the text, bytes. That of a text in quotes may take a comment behind it along.
    fn bytes(&self, span: Span) -> Range<usize> {
        let byte = |at: usize| match self.starts.get(at).or(self.starts.last()) {
            Some(at) => *at as usize,
            None => at,
        };
        byte(span.start.index())..byte(span.end.index())
    }
}
