//! What `submit --check` answers.

use super::{Checked, Problem};
use crate::node::http::ApiError;
use crate::node::render::Pinned;
use crate::node::scene::{BundleStats, Dependency, Trace};
use serde_json::{Value, json};
use std::path::Path;

/// Bytes of paths that the answer may list; an answer is one line (guess: some 50,000 files).
const LISTED_MAX_BYTES: usize = 4 << 20;

impl Checked {
    /// As `submit --check` answers; `bundle` is what would be sent, if the files could be read.
    pub fn to_json(&self, bundle: Option<BundleStats>) -> Value {
        let problems: Vec<Value> = self.looked.problems.iter().map(Problem::to_json).collect();
        let outlook = self.outlook.as_ref();
        json!({
            "event": "checked",
            "ok": !self.looked.problems.iter().any(Problem::is_error),
            "problems": problems,
            "files": bundle.map(|bundle| bundle.files),
            "bytes": bundle.map(|bundle| bundle.bytes),
            "new_bytes": bundle.map(|bundle| bundle.new_bytes),
            "dependencies": dependencies(&self.looked.trace),
            "kept": self.kept.len(),
            "nodes": outlook.map_or(json!([]), |outlook| outlook.nodes.clone()),
            "series": self.series.map(|series| series.to_string()),
            "series_from": self.series.map(|_| series_from(self.pinned)),
            "estimate": {
                "seconds": outlook.and_then(|outlook| outlook.seconds),
                "basis": outlook.map_or("guess", |outlook| outlook.basis),
            },
        })
    }
}

/// The files that would travel, for programs; null where they are too many for one answer.
fn dependencies(trace: &Trace) -> Value {
    let paths = |file: &Dependency| file.from.as_os_str().len() + file.resolved.as_os_str().len();
    if trace.files.iter().map(paths).sum::<usize>() > LISTED_MAX_BYTES {
        return Value::Null;
    }
    let one = |file: &Dependency| {
        json!({
            "kind": file.kind.to_string(),
            "path": file.resolved.to_string_lossy(),
            "from": file.from.to_string_lossy(),
            "datablock": file.datablock,
        })
    };
    trace.files.iter().map(one).collect()
}

/// What chose a series, as `submit --check` names it.
fn series_from(pinned: Option<Pinned>) -> &'static str {
    match pinned {
        Some(Pinned::Asked(_)) => "flag",
        Some(Pinned::Job(_)) => "job",
        Some(Pinned::Setting(_)) => "setting",
        None => "file",
    }
}

/// As `submit --check` answers about a file that cannot be read.
pub(in crate::node) fn unreadable(error: ApiError, file: &Path) -> Value {
    json!({
        "event": "checked",
        "ok": false,
        "problems": [Problem::from(error, file).to_json()],
        "files": null,
        "bytes": null,
        "new_bytes": null,
        "dependencies": null,
        "kept": null,
        "nodes": [],
        "series": null,
        "series_from": null,
        "estimate": {"seconds": null, "basis": "guess"},
    })
}
