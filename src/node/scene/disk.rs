//! What the paths stored in a .blend come to on this disk.
//!
//! Only looks; each directory is listed once.

use super::SceneError;
use super::dna::Blend;
use super::layout::is_safe_name;
use super::maps::PathMap;
use super::names::{Split, blendcache, is_number, os_bytes, os_path, stem};
use super::refs::{Budget, Field, Folder, Form, Reference};
use crate::farm::blob::BUNDLE_MAX_FILES;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// Names looked through again that count as one more step.
const NAMES_A_STEP: usize = 64;

/// `path` made absolute and tidy, as the base that `//` stands for.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, SceneError> {
    let absolute = std::path::absolute(path).map_err(|source| SceneError::unreadable(path, source))?;
    Ok(tidy(&absolute))
}

/// What one reference comes to on this disk.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Directory of the files, tidy.
    pub directory: PathBuf,
    /// Each file with its name cut around its number, in order of names.
    pub files: Vec<(Split, PathBuf)>,
    /// What should be there too.
    pub missing: Vec<PathBuf>,
    /// The name that is stored, cut around its number or token; empty where the field is a directory.
    pub name: Option<Split>,
    /// Each file of a [`Form::Folder`] with its place below that of the directory.
    pub members: Vec<(String, PathBuf)>,
    /// Whether names on this disk differ from the stored ones in case.
    pub other_case: bool,
}

/// What is in one directory.
#[derive(Debug, Default)]
struct Listing {
    /// Names, sorted.
    names: Vec<OsString>,
    /// The same by their lower case.
    by_lower: BTreeMap<String, Vec<OsString>>,
}

impl Listing {
    fn of(directory: &Path) -> Self {
        let Ok(entries) = std::fs::read_dir(directory) else { return Self::default() };
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).take(BUNDLE_MAX_FILES).collect();
        names.sort();
        let mut by_lower: BTreeMap<String, Vec<OsString>> = BTreeMap::new();
        for name in &names {
            by_lower.entry(lower(name)).or_default().push(name.clone());
        }
        Self { names, by_lower }
    }

    /// The only name that is `name` but for its case.
    fn only(&self, name: &OsStr) -> Option<&OsString> {
        match self.by_lower.get(&lower(name)).map(Vec::as_slice) {
            Some([only]) => Some(only),
            _ => None,
        }
    }
}

fn lower(name: &OsStr) -> String {
    name.to_string_lossy().to_lowercase()
}

/// Looks at directories, each once.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// The .blend that is rendered.
    main: PathBuf,
    /// Where paths of other machines are here; the first that fits counts.
    maps: Vec<PathMap>,
    listings: BTreeMap<PathBuf, Listing>,
}

impl Disk {
    /// For the scene at `main`.
    pub fn of(main: &Path, maps: &[PathMap]) -> Self {
        Self { main: main.into(), maps: maps.into(), listings: BTreeMap::new() }
    }

    /// Resolves `reference` of the .blend at `blend_path`.
    pub fn resolve(
        &mut self,
        blend: &Blend,
        blend_path: &Path,
        reference: &Reference,
        budget: &mut Budget,
    ) -> Result<Found, SceneError> {
        let from = |blend: &Path| {
            let base = blend.parent().unwrap_or(Path::new("/"));
            located(base, &reference.stored, &self.maps)
        };
        let path = match reference.field {
            Field::Fixed(_) | Field::Block(_) | Field::Counted(..) => from(blend_path),
            Field::FromMain(_) => from(&self.main),
            Field::BesideItself => caches_of(blend_path),
            Field::BesideMain => caches_of(&self.main),
        };
        budget.take(0, path.as_os_str().len())?;
        let (path, other_case) = match reference.form {
            // Files called like this, but for a number.
            Form::Tiles(_) | Form::Sequence => match (path.parent(), path.file_name()) {
                (Some(directory), Some(name)) => {
                    let (called, other_case) = self.spelled(directory.into(), budget)?;
                    (called.join(name), other_case)
                }
                _ => (path, false),
            },
            Form::File | Form::Names { .. } | Form::Folder(_) => self.spelled(path, budget)?,
        };
        if let Form::Folder(folder) = &reference.form {
            return Ok(Found { other_case, ..self.folder(blend, &path, folder, budget)? });
        }
        if let Form::Names { names, views } = &reference.form {
            let mut found = Found { directory: path.clone(), other_case, ..Found::default() };
            for name in names {
                // The name as stored stays the file's in the bundle.
                let name = blend.bytes().get(name.clone()).and_then(|field| field.split(|byte| *byte == 0).next());
                let Some(name) = name.filter(|name| is_file_name(name)) else { continue };
                let split = Split::of_view(name, views);
                let (spelled, other_case) = self.spelled(path.join(os_path(name)), budget)?;
                found.other_case |= other_case;
                let other_views = views.iter().filter(|view| **view != split.number && views.contains(&split.number));
                let others: Vec<Split> = other_views.map(|view| split.with(view.clone())).collect();
                found.look_at(split, spelled, budget)?;
                for other in others {
                    let (spelled, _) = self.spelled(path.join(os_path(&other.joined())), budget)?;
                    // Which views are rendered is not known here.
                    if spelled.is_file() {
                        found.look_at(other, spelled, budget)?;
                    }
                }
            }
            return Ok(found);
        }
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Found { missing: vec![path], ..Found::default() });
        };
        let name = os_bytes(name);
        let mut split = Split::of(&name);
        let mut found = Found { directory: directory.into(), other_case, ..Found::default() };
        match &reference.form {
            Form::Tiles(tiles) => {
                // Files of Blender 2.8 and 2.9 store the name of the first tile instead of a token.
                if split.number.first().is_some_and(u8::is_ascii_digit) && split.number != b"1001" {
                    split = Split { head: name.clone(), number: Vec::new(), tail: Vec::new() };
                }
                found.other_case |= self.spell(directory, &mut split, budget)?;
                for tile in tiles {
                    let number = match split.number.as_slice() {
                        b"<UVTILE>" => {
                            let tile = tile.saturating_sub(1001);
                            format!("u{}_v{}", tile % 10 + 1, tile / 10 + 1)
                        }
                        b"" => String::new(),
                        _ => tile.to_string(),
                    };
                    let tile = split.with(number.into_bytes());
                    let path = directory.join(os_path(&tile.joined()));
                    found.look_at(tile, path, budget)?;
                }
                if tiles.is_empty() {
                    self.members(&mut found, directory, &split, budget)?;
                }
            }
            Form::Sequence if !split.number.is_empty() => {
                found.other_case |= self.spell(directory, &mut split, budget)?;
                self.members(&mut found, directory, &split, budget)?;
            }
            // One that is no sequence after all.
            Form::Sequence => {
                let (path, other_case) = self.spelled(path.clone(), budget)?;
                found.other_case |= other_case;
                found.look_at(split.clone(), path, budget)?;
            }
            Form::File | Form::Names { .. } | Form::Folder(_) => {
                found.look_at(split.clone(), path.clone(), budget)?;
            }
        }
        if found.files.is_empty() && found.missing.is_empty() {
            found.missing.push(path);
        }
        found.name = Some(split);
        Ok(found)
    }

    /// What is in `directory`.
    fn listing(&mut self, directory: &Path, budget: &mut Budget) -> Result<&Listing, SceneError> {
        match self.listings.entry(directory.into()) {
            Entry::Occupied(listed) => Ok(listed.into_mut()),
            Entry::Vacant(place) => {
                let listing = Listing::of(directory);
                budget.take(listing.names.len(), 0)?;
                Ok(place.insert(listing))
            }
        }
    }

    /// `path` as this disk spells it, and whether that is another case; as it is where there is no such thing.
    fn spelled(&mut self, path: PathBuf, budget: &mut Budget) -> Result<(PathBuf, bool), SceneError> {
        let called = self.called(&path, budget)?.filter(|called| *called != path);
        let other_case = called.is_some();
        Ok((called.unwrap_or(path), other_case))
    }

    /// `path`, or what is called so but for the case of letters, as on the systems that ignore it. `None` if there is
    /// nothing of that name, or more than one.
    pub fn called(&mut self, path: &Path, budget: &mut Budget) -> Result<Option<PathBuf>, SceneError> {
        if path.exists() {
            return Ok(Some(path.into()));
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        budget.take(1, 0)?;
        let Some(parent) = self.called(parent, budget)? else { return Ok(None) };
        let called = parent.join(name);
        if called.exists() {
            return Ok(Some(called));
        }
        Ok(self.listing(&parent, budget)?.only(name).map(|name| parent.join(name)))
    }

    /// The files of `directory` that `folder` means.
    fn folder(
        &mut self,
        blend: &Blend,
        directory: &Path,
        folder: &Folder,
        budget: &mut Budget,
    ) -> Result<Found, SceneError> {
        let mut found = Found { directory: directory.into(), ..Found::default() };
        let renamed = folder.name.clone().and_then(|name| blend.bytes().get(name));
        let renamed = renamed.and_then(|name| name.split(|byte| *byte == 0).next()).map(stem);
        for members in &folder.members {
            let below = match members.folder.strip_prefix("#/") {
                None => vec![members.folder.to_owned()],
                Some(inner) => {
                    let listing = self.listing(directory, budget)?.names.iter().filter_map(|name| name.to_str());
                    let numbers = listing.filter(|name| is_number(name.as_bytes(), false));
                    numbers.map(|number| format!("{number}/{inner}")).collect()
                }
            };
            for below in below {
                let within = if below.is_empty() { directory.into() } else { directory.join(&below) };
                let below = if below.is_empty() { below } else { below + "/" };
                for name in &self.listing(&within, budget)?.names {
                    let path = within.join(name);
                    let name = os_bytes(name);
                    let Some(rest) = members.rest(&name) else { continue };
                    let placed = match &renamed {
                        Some(stem) => [stem.as_bytes(), b"_", rest].concat(),
                        None => name.clone(),
                    };
                    // Blender makes up no others.
                    let Some(placed) = String::from_utf8(placed).ok().filter(|name| is_safe_name(name)) else {
                        continue;
                    };
                    budget.take(1, path.as_os_str().len())?;
                    if path.is_file() {
                        found.members.push((format!("{below}{placed}"), path));
                    }
                }
            }
        }
        if found.members.is_empty() && folder.needed {
            let first = folder.members.first().filter(|members| members.folder.is_empty());
            let pattern = first.map(|members| [&*members.head, b"*", members.tails.concat().as_bytes()].concat());
            found.missing.push(pattern.map_or_else(|| directory.into(), |pattern| directory.join(os_path(&pattern))));
        }
        Ok(found)
    }

    /// All files of `directory` that are called like `split` with some number.
    fn members(
        &mut self,
        found: &mut Found,
        directory: &Path,
        split: &Split,
        budget: &mut Budget,
    ) -> Result<(), SceneError> {
        for name in &self.listing(directory, budget)?.names {
            let Some(member) = split.member(&os_bytes(name)).filter(|member| member.head == split.head) else {
                continue;
            };
            if member.tail == split.tail {
                found.look_at(member, directory.join(name), budget)?;
            }
        }
        Ok(())
    }

    /// The files called like `path` with numbers in place of the `#` in its name, such as `clip.###.usd`.
    pub fn numbered(&mut self, path: &Path, budget: &mut Budget) -> Result<Vec<(Split, PathBuf)>, SceneError> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
        let name = os_bytes(name);
        let row = name.iter().position(|byte| *byte == b'#').zip(name.iter().rposition(|byte| *byte == b'#'));
        let Some((first, last)) = row else { return Ok(Vec::new()) };
        let (head, tail) = (&name[..first], &name[last + 1..]);
        let listed = &self.listing(directory, budget)?.names;
        budget.take(listed.len() / NAMES_A_STEP, 0)?;
        let mut found = Vec::new();
        for name in listed {
            let bytes = os_bytes(name);
            let number = bytes.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail)).unwrap_or_default();
            let is_number = number.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
            let path = directory.join(name);
            if !number.is_empty() && is_number && path.is_file() {
                budget.take(1, path.as_os_str().len())?;
                found.push((Split { head: head.into(), number: number.into(), tail: tail.into() }, path));
            }
        }
        Ok(found)
    }

    /// Spells `split` as its members in `directory` are, if there are none spelled as it is and all spelled otherwise agree.
    /// Whether that changed anything.
    fn spell(&mut self, directory: &Path, split: &mut Split, budget: &mut Budget) -> Result<bool, SceneError> {
        let names = &self.listing(directory, budget)?.names;
        budget.take(names.len() / NAMES_A_STEP, 0)?;
        let mut spellings: Vec<Split> = names.iter().filter_map(|name| split.member(&os_bytes(name))).collect();
        spellings.iter_mut().for_each(|member| member.number.clone_from(&split.number));
        spellings.dedup();
        match &spellings[..] {
            [only] if only != split => {
                split.clone_from(only);
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

impl Found {
    /// Counts one file as there or missing.
    fn look_at(&mut self, split: Split, path: PathBuf, budget: &mut Budget) -> Result<(), SceneError> {
        budget.take(1, path.as_os_str().len())?;
        if path.is_file() {
            self.files.push((split, path))
        } else {
            self.missing.push(path)
        }
        Ok(())
    }
}

/// Where Blender keeps the disk caches of the .blend at `path`.
pub(super) fn caches_of(path: &Path) -> PathBuf {
    path.with_file_name(os_path(&blendcache(&os_bytes(path.file_name().unwrap_or_default()))))
}

fn is_file_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/')
}

/// Where a stored path leads: the first map that fits counts, else what Blender would open.
pub(super) fn located(base: &Path, stored: &[u8], maps: &[PathMap]) -> PathBuf {
    let mapped = maps.iter().find_map(|map| map.apply(stored));
    mapped.map_or_else(|| resolve(base, stored), |path| settled(&path))
}

/// Where a stored path leads: `//` is `base`, backslashes count as slashes, and where there are no drives, drive `C:` is the
/// folder `/c`, as Blender has it (measured with 3.4). Anything else relative is taken from `base` too.
pub(super) fn resolve(base: &Path, stored: &[u8]) -> PathBuf {
    let mut path: Vec<u8> = stored.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect();
    // Two backslashes are a network share.
    let relative = stored.starts_with(b"//");
    if relative {
        path.drain(..2);
    }
    if let (false, [letter @ (b'a'..=b'z' | b'A'..=b'Z'), b':', b'/', ..]) = (cfg!(windows) || relative, &*path) {
        let folder = [b'/', letter.to_ascii_lowercase()];
        path.splice(..2, folder);
    }
    if relative {
        let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
        path.drain(..start);
    }
    settled(&base.join(os_path(&path)))
}

/// Tidy, unless that leads elsewhere: `..` behind a symbolic link means what the system says it means.
pub(super) fn settled(path: &Path) -> PathBuf {
    let tidied = tidy(path);
    if !tidied.exists() && path.exists() { path.into() } else { tidied }
}

/// Without `.` and `..`.
fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                tidied.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => tidied.push(component),
        }
    }
    tidied
}
