//! Named points at which a test makes the daemon die, as a power cut would: `SWARM_FAIL_POINT=NAME`.
//!
//! Only builds with the feature `fail-points` have them; in every other build the call is nothing.

/// Names of the points, for the scripts that use them.
pub const FAIL_POINTS: [&str; 4] = ["after-image-fsync", "after-done-persisted", "mid-transfer", "mid-encode"];

/// Dies here if the environment says so.
#[cfg(feature = "fail-points")]
pub fn fail_point(name: &str) {
    debug_assert!(FAIL_POINTS.contains(&name), "{name} is not in the list of fail points");
    if std::env::var_os("SWARM_FAIL_POINT").is_some_and(|wanted| wanted == name) {
        eprintln!("dying at fail point {name}");
        std::process::abort();
    }
}

/// Nothing, in a build without fail points.
#[cfg(not(feature = "fail-points"))]
pub fn fail_point(_name: &str) {}
