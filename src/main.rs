//! The command `swarm`: parse, start logging, run.

mod start;

use start::Starter;
use std::process::ExitCode;
use swarm::cli::{self, Invocation, LogFormat, Screen};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(code) => return code,
    };
    let screen = Screen::stderr();
    start_logging(&invocation, screen.clone());
    cli::run(invocation, &Starter, &screen)
}

/// Log lines go to stderr: stdout carries answers alone.
fn start_logging(invocation: &Invocation, screen: Screen) {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing_subscriber::filter::LevelFilter::WARN.into())
        .parse_lossy(std::env::var("SWARM_LOG").unwrap_or_else(|_| invocation.default_log_filter().to_owned()));
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || screen.clone());
    let logging = logging.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match invocation.log_format() {
        LogFormat::Text => logging.with_target(false).init(),
        LogFormat::Json => logging.json().init(),
    }
}
