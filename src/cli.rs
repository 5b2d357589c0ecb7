//! The command line: a client of the local API, and nothing more.
//!
//! A command is parsed into `grammar`, asks the daemon of its data directory (or a node it starts inside itself) over
//! HTTP, and prints the answer: as JSON under `--json`, else for people. It decides nothing about jobs or machines, and
//! of the node it knows the API's vocabulary and the [`NodeStarter`] that `main` hands it, no more.
//!
//! Exit codes: 0 done, 1 failed, 2 usage, 3 job failed or canceled, 4 no daemon, 130 interrupted.

mod client;
#[cfg(test)]
mod fake_node;
mod follow;
mod grammar;
mod jobs;
mod nodes;
mod ocio;
mod print;
mod progress;
mod rules;
mod screen;
mod session;
mod start;
mod submit;
#[cfg(test)]
mod tests;
mod watch;

pub use grammar::LogFormat;
pub use screen::Screen;
pub use start::{EmbeddedNode, NodeOptions, NodeStarter};

use crate::node::http::{ApiError, ErrorKind, SetRequest};
use clap::Parser;
use client::job_path;
use grammar::{Cli, Command, DaemonArgs, JobCommand, NodeCommand, SeriesOrNone, SettingCommand};
use print::{Console, items, number, text};
use serde::Serialize;
use serde_json::{Value, json};
use session::{Absent, Session};
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::SyncSender;
use watch::{Ears, Made, Message};

/// Longest invite code read from standard input, bytes (guess; a real one has about 200).
const CODE_MAX_BYTES: u64 = 64 * 1024;

/// How a command ended that has no error to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// As asked.
    Done = 0,
    /// It was carried out, and what it found is bad.
    Bad = 1,
    /// The person had seen enough.
    Interrupted = 130,
}

/// Why a command did not do what it should.
#[derive(Debug)]
pub(crate) enum Failure {
    /// With a sentence for the person.
    Error(ApiError),
    /// Whoever read our output has gone.
    ReaderGone,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            io::ErrorKind::StorageFull => {
                ApiError::new(ErrorKind::NoSpace, "the disk that the output goes to is full").into()
            }
            _ => ApiError::new(ErrorKind::Internal, format!("the output cannot be written: {error}")).into(),
        }
    }
}

/// An error of the node as one for the person: its own kind if it has one, all its causes in one sentence.
pub(crate) fn failure(error: anyhow::Error) -> ApiError {
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<ApiError>()).map(|error| error.kind);
    ApiError::new(kind.unwrap_or(ErrorKind::Internal), format!("{error:#}"))
}

pub(crate) fn usage(text: &str) -> ApiError {
    ApiError::new(ErrorKind::Usage, text)
}

/// A command that was understood.
pub struct Invocation {
    cli: Cli,
    data_dir: PathBuf,
    cwd: PathBuf,
}

impl Invocation {
    /// How log lines are to look.
    pub fn log_format(&self) -> LogFormat {
        self.cli.global.log_format
    }

    /// What is logged unless `SWARM_LOG` says otherwise. A command tells what concerns it by itself.
    pub fn default_log_filter(&self) -> &'static str {
        if matches!(self.cli.command, Command::Daemon(_)) { "warn,swarm=info" } else { "error" }
    }
}

/// Parses the arguments of this process. `Err`: help or an error was printed, and this is the exit code.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, ExitCode> {
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let mut console = Console { out: &mut out, err: &mut err, json: false, screen: None };
    parse_to(args, &mut console).map_err(ExitCode::from)
}

/// Runs a command to its end. `screen` is the one that the log writes to as well.
pub fn run(invocation: Invocation, starter: &dyn NodeStarter, screen: &Screen) -> ExitCode {
    let (mut out, mut err) = (io::stdout(), screen.clone());
    let mut console = Console { out: &mut out, err: &mut err, json: false, screen: Some(screen) };
    ExitCode::from(run_to(invocation, starter, &watch::listen_to_signals, &mut console))
}

fn parse_to(args: impl IntoIterator<Item = OsString>, console: &mut Console<'_>) -> Result<Invocation, u8> {
    let args: Vec<OsString> = args.into_iter().collect();
    let json = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    let cli = Cli::try_parse_from(args).map_err(|error| {
        if json && error.use_stderr() {
            console.json = true;
            console.error(&usage(&first_sentence(&error)));
        } else if error.use_stderr() {
            let _ = write!(console.err, "{}", error.render());
        } else {
            let _ = write!(console.out, "{}", error.render());
        }
        error.exit_code() as u8
    })?;
    console.json = cli.global.json;
    let paths = || -> Result<(PathBuf, PathBuf), ApiError> {
        let cwd = std::env::current_dir()
            .map_err(|error| usage(&format!("the working directory is not usable: {error}; change to another")))?;
        let data_dir = cli.global.data_dir.clone().or_else(default_data_dir).ok_or_else(|| {
            usage("there is no home directory to keep data in; name one with --data-dir or SWARM_DATA_DIR")
        })?;
        Ok((cwd.join(data_dir), cwd))
    };
    match paths() {
        Ok((data_dir, cwd)) => Ok(Invocation { cli, data_dir, cwd }),
        Err(error) => {
            console.error(&error);
            Err(error.kind.exit_code())
        }
    }
}

/// What clap says, without its decoration.
fn first_sentence(error: &clap::Error) -> String {
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing; --help lists them".to_owned();
    }
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// The user's folder for application data, as each system has it (XDG Base Directory Specification on Linux).
fn default_data_dir() -> Option<PathBuf> {
    let dir = |key: &str| std::env::var_os(key).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let base = if cfg!(windows) {
        dir("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        dir("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        dir("XDG_DATA_HOME").or_else(|| dir("HOME").map(|home| home.join(".local/share")))
    };
    base.map(|base| base.join("swarm"))
}

fn run_to(
    invocation: Invocation,
    starter: &dyn NodeStarter,
    listen: &dyn Fn(SyncSender<Message>),
    console: &mut Console<'_>,
) -> u8 {
    let Invocation { cli, data_dir, cwd } = invocation;
    console.json = cli.global.json;
    match (Context { data_dir, cwd, starter, listen }).run(cli.command, console) {
        Ok(exit) => exit as u8,
        Err(Failure::Error(error)) => {
            console.error(&error);
            error.kind.exit_code()
        }
        Err(Failure::ReaderGone) => Exit::Done as u8,
    }
}

/// What every command needs.
struct Context<'a> {
    data_dir: PathBuf,
    cwd: PathBuf,
    starter: &'a dyn NodeStarter,
    listen: &'a dyn Fn(SyncSender<Message>),
}

impl Context<'_> {
    fn run(&self, command: Command, console: &mut Console<'_>) -> Result<Exit, Failure> {
        match command {
            Command::Daemon(args) => {
                self.starter.run_daemon(self.node_options(args)).map_err(failure)?;
                Ok(Exit::Done)
            }
            Command::Submit(args) => {
                let request = submit::request(*args, &self.cwd)?;
                let made = match () {
                    () if request.check => Made::Nothing,
                    () if request.update.is_some() => Made::Before,
                    () => Made::Here,
                };
                self.stream(Absent::Render, "/jobs", &request, (request.detach, made), console)
            }
            Command::Jobs => self.show("/jobs", console, jobs::list),
            Command::Job(command) => self.job(command, console),
            Command::Nodes => self.show("/nodes", console, nodes::list),
            Command::Node(NodeCommand::Pause { drop }) => {
                self.change("/node/pause", &json!({"drop": drop}), console, |node, out| {
                    nodes::changed(node, "paused", out)
                })
            }
            Command::Node(NodeCommand::Resume) => {
                self.change("/node/resume", &json!({}), console, |node, out| nodes::changed(node, "resumed", out))
            }
            Command::Trust(args) => self.change("/node/trust", &args.to_json(), console, nodes::trusts),
            Command::Untrust(args) => self.change("/node/untrust", &args.to_json(), console, nodes::trusts),
            Command::Settings => self.show("/settings", console, nodes::settings),
            Command::Setting(SettingCommand::Series { series: SeriesOrNone(series) }) => {
                let body = json!({"series": series.map(|series| series.to_string())});
                self.change("/settings", &body, console, nodes::series_set)
            }
            Command::Doctor => {
                let checks = self.open(Absent::Look)?.client.get("/doctor")?;
                print_or(&checks, console, nodes::checks)?;
                Ok(if items(&checks, "").iter().all(nodes::is_ok) { Exit::Done } else { Exit::Bad })
            }
            Command::Invite => {
                let answer = self.open(Absent::Talk)?.client.post("/invite", &json!({}))?;
                print_or(&answer, console, |answer, out| out.line(print::plain(text(answer, "code"))))?;
                Ok(Exit::Done)
            }
            Command::Join(args) => {
                let code = if args.code == "-" { read_code()? } else { args.code };
                let answer = self.open(Absent::Talk)?.client.post("/join", &json!({"code": code}))?;
                print_or(&answer, console, joined)?;
                Ok(Exit::Done)
            }
        }
    }

    fn job(&self, command: JobCommand, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let none = json!({});
        match command {
            JobCommand::Show(arg) => {
                self.show(&job_path(&arg.job, ""), console, |job, out| jobs::show(job, &self.cwd, out))
            }
            JobCommand::Frames(arg) => self.show(&job_path(&arg.job, "/frames"), console, jobs::frames),
            JobCommand::Log { job, frame: Some(frame), follow: true } => {
                let ears = Ears::new(self.listen);
                follow::follow(&self.open(Absent::Fail)?.client, &ears, &job.job, frame, console)
            }
            JobCommand::Log { job, frame, .. } => {
                let query = frame.map(|frame| format!("?frame={frame}")).unwrap_or_default();
                self.show(&job_path(&job.job, &format!("/log{query}")), console, jobs::log)
            }
            JobCommand::Watch(arg) => {
                let ears = Ears::new(self.listen);
                let session = self.open(Absent::Fail)?;
                let events = session.client.get_stream(&job_path(&arg.job, "/watch"));
                watch::follow(&session, ears, events, (false, Made::Before), &self.cwd, console)
            }
            JobCommand::Pause(arg) => {
                self.change(&job_path(&arg.job, "/pause"), &none, console, |job, out| jobs::changed(job, "paused", out))
            }
            JobCommand::Resume(arg) => self
                .change(&job_path(&arg.job, "/resume"), &none, console, |job, out| jobs::changed(job, "resumed", out)),
            JobCommand::Cancel(arg) => self
                .change(&job_path(&arg.job, "/cancel"), &none, console, |job, out| jobs::changed(job, "canceled", out)),
            JobCommand::Delete(arg) => self
                .change(&job_path(&arg.job, "/delete"), &none, console, |job, out| jobs::changed(job, "deleted", out)),
            JobCommand::Requeue { job, frames } => {
                let body = json!({"frames": frames.map(|frames| frames.to_string())});
                self.change(&job_path(&job.job, "/requeue"), &body, console, |job, out| {
                    let frames = print::count(number(job, "requeued"), "frame");
                    jobs::changed(job, &format!("{frames} will be rendered again in"), out)
                })
            }
            JobCommand::Set { job, priority, rules } => {
                let request = SetRequest { priority, rules: rules.request() };
                if request == SetRequest::default() {
                    return Err(usage("say what to change, such as --priority 80; --help lists what there is").into());
                }
                let body = to_json(&request)?;
                self.change(&job_path(&job.job, "/set"), &body, console, |job, out| jobs::changed(job, "changed", out))
            }
            JobCommand::Why(arg) => {
                let session = self.open(Absent::Fail)?;
                let machines = session.client.get(&job_path(&arg.job, "/why"))?;
                if console.json {
                    console.value(&machines)?;
                } else {
                    let job = session.client.get(&job_path(&arg.job, ""))?;
                    jobs::why(&job, &machines, console)?;
                }
                Ok(Exit::Done)
            }
            JobCommand::Debug { job, frame, output } => {
                let body = to_json(&submit::debug(output, &self.cwd)?)?;
                self.change(&job_path(&job.job, &format!("/debug?frame={frame}")), &body, console, jobs::debug)
            }
            JobCommand::Collect { job, output, video, zip } => {
                let request = submit::collect(output, video, zip.zip, &self.cwd)?;
                self.stream(Absent::Talk, &job_path(&job.job, "/collect"), &request, (false, Made::Before), console)
            }
        }
    }

    fn open(&self, absent: Absent) -> Result<Session, Failure> {
        Session::open(&self.data_dir, self.starter, absent)
    }

    fn show(
        &self,
        path: &str,
        console: &mut Console<'_>,
        print: impl FnOnce(&Value, &mut Console<'_>) -> io::Result<()>,
    ) -> Result<Exit, Failure> {
        let answer = self.open(Absent::Fail)?.client.get(path)?;
        print_or(&answer, console, print)?;
        Ok(Exit::Done)
    }

    fn change(
        &self,
        path: &str,
        body: &Value,
        console: &mut Console<'_>,
        print: impl FnOnce(&Value, &mut Console<'_>) -> io::Result<()>,
    ) -> Result<Exit, Failure> {
        let answer = self.open(Absent::Fail)?.client.post(path, body)?;
        print_or(&answer, console, print)?;
        Ok(Exit::Done)
    }

    fn stream(
        &self,
        absent: Absent,
        path: &str,
        request: &impl Serialize,
        how: (bool, Made),
        console: &mut Console<'_>,
    ) -> Result<Exit, Failure> {
        let body = to_json(request)?;
        // Before the node: a Ctrl-C while it starts must not leave its children behind.
        let ears = Ears::new(self.listen);
        let session = self.open(absent)?;
        session.must_last()?;
        let events = session.client.post_stream(path, &body);
        watch::follow(&session, ears, events, how, &self.cwd, console)
    }

    fn node_options(&self, args: DaemonArgs) -> NodeOptions {
        NodeOptions {
            data_dir: self.data_dir.clone(),
            name: args.name,
            port: args.port,
            listen: args.listen,
            api: args.api,
            peers: args.peer,
            slots: args.slots,
            gpu_mode: args.gpu_mode,
            blender: args.blender.iter().map(|path| self.cwd.join(path)).collect(),
            threads: args.threads,
            tags: args.tag,
            mdns: !args.no_mdns,
            render: !args.no_render,
            sandbox: !args.no_sandbox,
            embedded: false,
        }
    }
}

fn to_json(request: &impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(request)
        .map_err(|error| ApiError::new(ErrorKind::Internal, format!("the request cannot be written: {error}")))
}

fn print_or(
    answer: &Value,
    console: &mut Console<'_>,
    print: impl FnOnce(&Value, &mut Console<'_>) -> io::Result<()>,
) -> io::Result<()> {
    if console.json { console.value(answer) } else { print(answer, console) }
}

fn joined(answer: &Value, console: &mut Console<'_>) -> io::Result<()> {
    let others = match answer["nodes"].as_u64() {
        Some(number) => format!("; {} answered", print::count(number, "machine")),
        None => String::new(),
    };
    console.line(print::plain(&format!(
        "joined the swarm {}{others}; `swarm nodes` lists who is here",
        text(answer, "swarm")
    )))
}

fn read_code() -> Result<String, ApiError> {
    let mut code = String::new();
    io::stdin().take(CODE_MAX_BYTES).read_to_string(&mut code).map_err(|error| {
        ApiError::new(ErrorKind::BadCode, format!("the invite code cannot be read from standard input: {error}"))
    })?;
    Ok(code.trim().to_owned())
}
