//! How machines and their health read for people.

use super::print::{Console, Table, bytes, count, items, number, plain, text};
use serde_json::Value;
use std::io;

/// `swarm nodes`.
pub(crate) fn list(nodes: &Value, console: &mut Console<'_>) -> io::Result<()> {
    let nodes = items(nodes, "");
    let mut table = Table::new(&["MACHINE", "STATE", "LOAD", "RENDERING", "BLENDER", "GPU", "CORES", "MEMORY", "OS"]);
    for node in nodes {
        let memory = number(node, "memory_bytes");
        let cores = number(&node["cpu"], "cores");
        table.row([
            label(node),
            text(node, "state").to_owned(),
            node["load"].as_f64().map(|load| format!("{:.0}%", load * 100.0)).unwrap_or_default(),
            items(node, "rendering").iter().map(rendering).collect::<Vec<_>>().join(", "),
            joined(items(node, "blenders"), "version"),
            gpus(items(node, "gpus")),
            if cores > 0 { cores.to_string() } else { String::new() },
            if memory > 0 { bytes(memory) } else { String::new() },
            text(node, "os").to_owned(),
        ]);
    }
    table.lines().iter().try_for_each(|line| console.line(line))?;
    for node in nodes {
        for problem in items(node, "problems") {
            let (message, fix) = (text(problem, "message"), text(problem, "fix"));
            let fix = if fix.is_empty() { String::new() } else { format!("; {fix}") };
            console.line(plain(&format!("{}: {message}{fix}", text(node, "name"))))?;
        }
    }
    Ok(())
}

/// `swarm node pause|resume`.
pub(crate) fn changed(node: &Value, what: &str, console: &mut Console<'_>) -> io::Result<()> {
    console.line(plain(&format!("{what} {}", text(node, "name"))))
}

/// `swarm trust|untrust`.
pub(crate) fn trusts(answer: &Value, console: &mut Console<'_>) -> io::Result<()> {
    console.line(plain(&format!("{} {}", text(answer, "name"), text(answer, "told"))))
}

/// `swarm settings`.
pub(crate) fn settings(settings: &Value, console: &mut Console<'_>) -> io::Result<()> {
    let mut table = Table::new(&["SETTING", "VALUE", "SET BY"]);
    for setting in items(settings, "") {
        let value = setting["value"].as_str().unwrap_or("none");
        table.row([text(setting, "name").to_owned(), value.to_owned(), text(&setting["by"], "name").to_owned()]);
    }
    table.lines().iter().try_for_each(|line| console.line(line))
}

/// `swarm setting series`.
pub(crate) fn series_set(settings: &Value, console: &mut Console<'_>) -> io::Result<()> {
    let Some(setting) = items(settings, "").iter().find(|setting| setting["name"] == "series") else { return Ok(()) };
    let line = match (setting["value"].as_str(), number(setting, "machines")) {
        (None, _) => {
            "jobs without --series are rendered by the Blender that saved their file, where there is one".to_owned()
        }
        (Some(series), 0) => {
            format!(
                "jobs without --series are to be rendered by Blender {series}; no machine has it yet, and they are refused"
            )
        }
        (Some(series), machines) => {
            let have = if machines == 1 { "has" } else { "have" };
            format!("jobs without --series are rendered by Blender {series}; {} {have} it", count(machines, "machine"))
        }
    };
    console.line(plain(&line))
}

/// `swarm doctor`. Says whether all is well.
pub(crate) fn checks(checks: &Value, console: &mut Console<'_>) -> io::Result<()> {
    let checks = items(checks, "");
    let width = checks.iter().map(|check| text(check, "name").chars().count()).max().unwrap_or(0);
    for check in checks {
        let fix = text(check, "fix");
        let mark = match is_ok(check) {
            true if fix.is_empty() => "ok  ",
            true => "warn",
            false => "FAIL",
        };
        console.line(plain(&format!("{mark}  {:width$}  {}", text(check, "name"), text(check, "message"))))?;
        if !fix.is_empty() {
            console.line(plain(&format!("      {:width$}  → {fix}", "")))?;
        }
    }
    Ok(())
}

/// Whether a check of `swarm doctor` passed.
pub(crate) fn is_ok(check: &Value) -> bool {
    check["ok"].as_bool() == Some(true)
}

fn label(node: &Value) -> String {
    let this = if node["self"].as_bool() == Some(true) { " (this one)" } else { "" };
    format!("{}{this}", text(node, "name"))
}

fn rendering(unit: &Value) -> String {
    let progress = unit["progress"].as_f64().map(|p| format!(" {:.0}%", p * 100.0)).unwrap_or_default();
    format!("frame {}{progress}", unit["frame"].as_i64().unwrap_or_default())
}

fn joined(list: &[Value], key: &str) -> String {
    list.iter().map(|item| text(item, key)).collect::<Vec<_>>().join(", ")
}

/// Equal cards once: `2 × RTX 4090`; one that cannot be used says so.
fn gpus(list: &[Value]) -> String {
    let mut counted: Vec<(String, usize)> = Vec::new();
    for gpu in list {
        let usable = if gpu["usable"].as_bool() == Some(false) { " (unusable)" } else { "" };
        let name = format!("{}{usable}", text(gpu, "name"));
        match counted.iter_mut().find(|(other, _)| *other == name) {
            Some((_, count)) => *count += 1,
            None => counted.push((name, 1)),
        }
    }
    let each = |(name, count): &(String, usize)| if *count > 1 { format!("{count} × {name}") } else { name.clone() };
    counted.iter().map(each).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_check_that_is_well_but_for_what_could_be_mended_is_a_warning() {
        let all = json!([
            {"name": "disk", "ok": true, "message": "room", "fix": ""},
            {"name": "sandbox", "ok": true, "message": "none", "fix": "install it"},
            {"name": "ffmpeg", "ok": false, "message": "none", "fix": "install it too"},
        ]);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console { out: &mut out, err: &mut err, json: false, screen: None };
        checks(&all, &mut console).unwrap();
        let mends = ["→ install it", "→ install it too"].map(|fix| format!("               {fix}"));
        let lines = ["ok    disk     room", "warn  sandbox  none", &mends[0], "FAIL  ffmpeg   none", &mends[1]];
        assert_eq!(String::from_utf8(out).unwrap().lines().collect::<Vec<_>>(), lines);
        assert!(is_ok(&all[1]) && !is_ok(&all[2]));
    }
}
