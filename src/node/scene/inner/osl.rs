//! What an OSL source includes, and what it was compiled to.
//!
//! Where a shader node names a source, Cycles takes what lies compiled beside it if that is no older, and else compiles it
//! there. An include is looked for beside the file that has it, then among Cycles' own (measured with 4.5).

use super::{At, Named, name};
use std::path::{Path, PathBuf};

/// The headers that come with Cycles, 3.4 to 4.5 (measured); those called `node_…` too.
const OF_CYCLES: [&str; 9] = [
    "stdosl.h",
    "stdcycles.h",
    "oslutil.h",
    "vector2.h",
    "vector4.h",
    "color2.h",
    "color4.h",
    "matrix33.h",
    "int_vector_types.h",
];

/// The files in quotes that `text` includes; those in angle brackets are Cycles' own.
pub(super) fn named(text: &[u8]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut start = 0;
    for line in text.split(|byte| *byte == b'\n') {
        let end_of = |rest: &[u8]| start + line.len() - rest.len();
        let quoted = line.trim_ascii_start().strip_prefix(b"#").map(<[u8]>::trim_ascii_start);
        let quoted = quoted.and_then(|rest| rest.strip_prefix(b"include")).map(<[u8]>::trim_ascii_start);
        if let Some(rest) = quoted.and_then(|rest| rest.strip_prefix(b"\"")) {
            let len = rest.iter().position(|byte| *byte == b'"');
            if let Some((len, text)) = len.and_then(|len| Some((len, name(&rest[..len])?))) {
                let at = end_of(rest);
                found.push(Named { text, at: At::Bytes(at..at + len), template: false });
            }
        }
        start += line.len() + 1;
    }
    found
}

/// Whether Cycles brings a header of this name.
pub(super) fn is_of_cycles(name: &str) -> bool {
    OF_CYCLES.contains(&name) || name.starts_with("node_") && name.ends_with(".h")
}

/// What Cycles would take instead of compiling the source at `path`.
pub(super) fn compiled(path: &Path) -> Option<PathBuf> {
    let source = path.extension()?.to_str()?;
    let compiled = path.with_extension("oso");
    let written = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    (source == "osl" && compiled.is_file() && written(&compiled)? >= written(path)?).then_some(compiled)
}

/// Its place beside that of the source.
pub(super) fn place_of_compiled(source: &str) -> String {
    format!("{}.oso", source.strip_suffix(".osl").unwrap_or(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_in_quotes_are_found_where_they_stand() {
        let text = "#include <stdosl.h>\r\n  #  include \"a.h\" // b\r\n// #include \"no.h\"\n#include\"../c d.h\"\n#include \"open\n#define x";
        let found = named(text.as_bytes());
        assert_eq!(found.iter().map(|named| &*named.text).collect::<Vec<_>>(), ["a.h", "../c d.h"]);
        assert!(found.iter().all(|named| matches!(&named.at, At::Bytes(at) if text[at.clone()] == named.text)));
    }
}
