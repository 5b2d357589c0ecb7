//! What `OCIO` is in the shell of whoever submits: the colours that the artist sees, which the job is to have everywhere.

use super::{Failure, usage};
use crate::node::http::{ApiError, ErrorKind, OcioRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Most of a configuration that is looked through for variables, bytes (guess; those of ACES have half a million).
const LOOKED_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Most variables that go along (guess).
const VARIABLES_MAX: usize = 256;
/// Longest value of one that goes along, bytes (guess: a path).
const VALUE_MAX_BYTES: usize = 4096;

/// The configuration that `ocio`, the value of the variable, names; `None` if it is not set or empty, as Blender has it.
pub(super) fn request(ocio: Option<OsString>, cwd: &Path) -> Result<Option<OcioRequest>, Failure> {
    let Some(ocio) = ocio.filter(|ocio| !ocio.is_empty()) else { return Ok(None) };
    let text = ocio.to_str().ok_or_else(|| {
        let text = format!("OCIO is {}, which is not valid Unicode; rename the file", ocio.display());
        ApiError::new(ErrorKind::Unsupported, text)
    })?;
    if text.starts_with("ocio://") {
        return Ok(Some(OcioRequest { config: text.to_owned(), variables: BTreeMap::new() }));
    }
    let path = std::path::absolute(cwd.join(text)).map_err(|error| usage(&format!("OCIO is {text}: {error}")))?;
    let mut bytes = Vec::new();
    // That it cannot be read is told by whoever needs all of it.
    let regular = path.is_file().then(|| File::open(&path)).and_then(Result::ok);
    let _ = regular.map(|file| file.take(LOOKED_MAX_BYTES).read_to_end(&mut bytes));
    let looked = String::from_utf8_lossy(&bytes);
    let names: BTreeSet<&str> = names(&looked).collect();
    let variables = names.into_iter().filter_map(|name| {
        let value = std::env::var(name).ok().filter(|value| value.len() <= VALUE_MAX_BYTES)?;
        Some((name.to_owned(), value))
    });
    let config = path.to_str().ok_or_else(|| usage("the working directory is not valid Unicode"))?.to_owned();
    Ok(Some(OcioRequest { config, variables: variables.take(VARIABLES_MAX).collect() }))
}

/// The names in `$NAME`, `${NAME}` and `%NAME%`.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(['$', '%']).filter_map(move |(at, _)| {
        let rest = &text[at + 1..];
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let name = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_').then_some(name)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_the_shell_goes_along_with_what_its_variables_are() {
        let dir = tempfile::tempdir().unwrap();
        let asked = |ocio: &str| request(Some(ocio.into()), dir.path()).unwrap();
        assert_eq!((request(None, dir.path()).unwrap(), asked("")), (None, None));
        let built_in = asked("ocio://default").unwrap();
        assert_eq!((&*built_in.config, built_in.variables.len()), ("ocio://default", 0));
        // `PATH` is set in every test's environment.
        std::fs::write(dir.path().join("c.ocio"), "search_path: $PATH:${NO_SUCH_VARIABLE_HERE}/%PATH%: 100% $")
            .unwrap();
        let found = asked("c.ocio").unwrap();
        assert_eq!(Path::new(&found.config), dir.path().join("c.ocio"));
        assert_eq!(found.variables.keys().collect::<Vec<_>>(), ["PATH"]);
        assert_eq!(asked("gone.ocio").unwrap().variables.len(), 0);
    }
}
