//! What `OCIO` is in the shell of whoever submits: the colours that the artist sees, which the job is to have everywhere.

use super::{Failure, usage};
use crate::node::http::{ApiError, ErrorKind, OcioRequest};
use crate::node::scene::ocio_variables;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

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
    let variables = ocio_variables(&path, |name| std::env::var(name).ok());
    let config = path.to_str().ok_or_else(|| usage("the working directory is not valid Unicode"))?.to_owned();
    Ok(Some(OcioRequest { config, variables }))
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
        // `PATH` is set in every test's environment, and so is what cargo sets.
        let config = "# $CARGO_PKG_NAME\nocio_profile_version: 1\nsearch_path: $PATH:${NO_SUCH_VARIABLE_HERE}/%PATH%\n\
            description: ${CARGO_MANIFEST_DIR}\n";
        std::fs::write(dir.path().join("c.ocio"), config).unwrap();
        let found = asked("c.ocio").unwrap();
        assert_eq!(Path::new(&found.config), dir.path().join("c.ocio"));
        assert_eq!(found.variables.keys().collect::<Vec<_>>(), ["PATH"]);
        assert_eq!(asked("gone.ocio").unwrap().variables.len(), 0);
    }
}
