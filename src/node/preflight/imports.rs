//! Files that nodes import and that are not looked for.

use super::{MOST_NAMED, Problem};
use crate::node::scene::Computed;

/// Each node whose file is known only when it runs.
pub(super) fn computed(computed: &[Computed], subject: &str) -> Vec<Problem> {
    let problem = |one: &Computed| {
        let Computed { datablock, node } = one;
        let text =
            format!("the path of the import node `{node}` in `{datablock}` is computed: its file is not looked for");
        Problem::warning("import", subject, text, "add it with --include").of(datablock)
    };
    let mut problems: Vec<Problem> = computed.iter().take(MOST_NAMED).map(problem).collect();
    if let Some(more @ 1..) = computed.len().checked_sub(MOST_NAMED) {
        let text = format!("{more} more import nodes have paths that are computed");
        problems.push(Problem::warning("import", subject, text, ""));
    }
    problems
}
