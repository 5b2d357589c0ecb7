//! One renderer process running the driver: started without a shell, politely, drained, and killed as a whole.
//!
//! Nothing it does can hold swarm up or outlive it. Its lines are cut to a length and queue up to a bound, then Blender
//! waits. Its group is killed when this value is dropped; should the daemon be killed, the end of stdin (and on Linux
//! the death signal) ends it.

use super::sandbox::Cell;
use super::{RendererKind, log};
use crate::node::polite;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc as std_mpsc};
use std::time::Duration;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, Command};
use tokio::sync::{mpsc, oneshot};

/// The script that runs inside Blender.
pub(super) const DRIVER: &str = concat!(
    include_str!("overrides.py"),
    include_str!("script.py"),
    include_str!("file_outputs.py"),
    include_str!("simulations.py"),
    include_str!("sound.py"),
    include_str!("views.py"),
    include_str!("devices.py"),
    include_str!("driver.py")
);

/// Longest line taken from a child, bytes; the rest of it is dropped. The driver's own lines are shorter (guess).
const LINE_MAX_BYTES: usize = 16 * 1024;
/// Lines that wait for us before the child waits, lines (guess).
const LINES_WAITING_MAX: usize = 256;
/// How long a child that was asked to leave, or whose pipes closed, may take, before it is killed (guess).
const LEAVE: Duration = Duration::from_secs(5);
/// How long the lines of a dead child may take to arrive (guess): a grandchild may hold the pipe open.
const DRAIN: Duration = Duration::from_secs(1);
/// How deep descendants of a child are looked for: a wrapper script, Blender, its helpers (guess).
const MAX_DEPTH: usize = 16;
/// What bubblewrap adds to the signal that ended a program.
#[cfg(unix)]
const SIGNALLED: i32 = 128;

/// What OpenColorIO takes from the environment and may change pixels (its documentation; `OCIO` is measured).
pub(super) const OCIO_VARIABLES: [&str; 5] =
    ["OCIO", "OCIO_ACTIVE_DISPLAYS", "OCIO_ACTIVE_VIEWS", "OCIO_INACTIVE_COLORSPACES", "OCIO_OPTIMIZATION_FLAGS"];

/// What the driver is to do; its first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Say what this renderer can do.
    Probe,
    /// Render units.
    Serve,
    /// Make a video.
    Encode,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Serve => "serve",
            Self::Encode => "encode",
        }
    }
}

/// Something the child did.
#[derive(Debug)]
pub(super) enum Event {
    /// The driver's answer.
    Answer(Value),
    /// A line of log.
    Line(String),
    /// It is gone; nothing follows.
    Gone(Gone),
}

/// How a child ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone {
    status: Option<ExitStatus>,
    sandboxed: bool,
}

impl Gone {
    /// The signal that ended it.
    #[cfg(unix)]
    fn signal(&self) -> Option<i32> {
        let status = self.status?;
        // As shells do, bubblewrap passes a signal on as a code (its main loop, `propagate_exit_status`).
        let told = status.code().filter(|code| self.sandboxed && (SIGNALLED + 1..=SIGNALLED + 64).contains(code));
        std::os::unix::process::ExitStatusExt::signal(&status).or(told.map(|code| code - SIGNALLED))
    }
}

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(status) = self.status else { return write!(f, "ended") };
        #[cfg(unix)]
        if let Some(signal) = self.signal() {
            return match signal {
                9 => write!(f, "was killed (signal 9; the system does that when memory runs out)"),
                4 | 6 | 7 | 8 | 11 => write!(f, "crashed (signal {signal})"),
                signal => write!(f, "was ended by signal {signal}"),
            };
        }
        match status.code() {
            Some(code) => write!(f, "ended by itself with exit code {code}"),
            None => write!(f, "ended"),
        }
    }
}

/// The process group of a child, until it is reaped: afterwards the number may belong to somebody else.
#[derive(Debug)]
pub(super) struct Group(AtomicU32);

impl Group {
    /// Kills every process of it at once. Again is harmless.
    pub fn kill(&self) {
        kill_tree(self.0.load(Ordering::Acquire));
    }

    fn kill_last(&self) {
        kill_tree(self.0.swap(0, Ordering::AcqRel));
    }

    /// Its number; 0 when it is over.
    pub fn id(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(unix)]
fn kill_tree(id: u32) {
    let group = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // An error means that nobody is left in it.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

#[cfg(not(unix))]
fn kill_tree(id: u32) {
    if id != 0 {
        let _ = std::process::Command::new("taskkill")
            .args(["/T", "/F", "/PID", &id.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// CPU time a child and what it started have used so far, in a unit of the system's; `None` where it does not tell, and
/// when they are gone.
pub(super) fn cpu_ticks(group: u32) -> Option<u64> {
    if cfg!(target_os = "linux") { cpu_of_group(group) } else { cpu_of_tree(group) }
}

/// Memory a child and what it started have in use, bytes; `None` as in [`cpu_ticks`].
pub(super) fn memory_bytes(group: u32) -> Option<u64> {
    of_tree(group, ProcessRefreshKind::nothing().with_memory(), sysinfo::Process::memory)
}

/// CPU time of a process and its descendants, ms.
fn cpu_of_tree(root: u32) -> Option<u64> {
    of_tree(root, ProcessRefreshKind::nothing().with_cpu(), sysinfo::Process::accumulated_cpu_time)
}

/// The sum of something over a process and its descendants.
#[allow(clippy::disallowed_methods, reason = "a sum has no order")]
fn of_tree(root: u32, what: ProcessRefreshKind, read: impl Fn(&sysinfo::Process) -> u64) -> Option<u64> {
    let mut system = System::new().ok()?;
    // Threads would be counted once more.
    let what = what.without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
    let all = system.processes();
    let root = Pid::from_u32(root);
    let is_inside = |process: &sysinfo::Process| {
        let line = std::iter::successors(Some(process), |process| all.get(&process.parent()?));
        line.take(MAX_DEPTH).any(|process| process.pid() == root)
    };
    all.get(&root)?;
    Some(all.values().filter(|process| is_inside(process)).map(read).sum())
}

/// CPU time of the processes of a group, in clock ticks, from Linux's own files.
fn cpu_of_group(group: u32) -> Option<u64> {
    let mut ticks = None;
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        if !name.to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in parentheses may hold anything; the numbers follow the last parenthesis: state ppid pgrp ...
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        if number(2) == u64::from(group) {
            ticks = Some(ticks.unwrap_or(0) + number(11) + number(12));
        }
    }
    ticks
}

/// A running driver.
#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    mark: String,
    group: Arc<Group>,
    status: Option<ExitStatus>,
    sandboxed: bool,
}

impl Child {
    /// Starts the driver in `mode`. Its script is kept in `work_dir`, which is also its working folder without `cell`: the
    /// sandbox that it runs in, made for the same renderer. `ocio` is the configuration of OpenColorIO, Blender's own
    /// without one.
    pub async fn start(
        path: &Path,
        kind: RendererKind,
        mode: Mode,
        threads: Option<u32>,
        ocio: Option<&OsStr>,
        work_dir: &Path,
        cell: Option<&Cell>,
    ) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let path = std::path::absolute(path)?;
        let work_dir = std::path::absolute(work_dir)?;
        let script = write_driver(&work_dir)?;
        // Not a secret, only something that no scene prints by accident.
        let seed = format!("{}/{}/{:?}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed), script);
        let token = blake3::hash(seed.as_bytes()).to_hex()[..16].to_string();
        let mut command = cell.map_or_else(|| Command::new(&path), |cell| cell.command(Some(&script)));
        command.args(arguments(kind, threads, &script));
        // In a sandbox the parent is its first process, which ends with bubblewrap, and that with us.
        let parent = if cell.is_some() { 1 } else { std::process::id() };
        command.args([mode.word(), &token, &parent.to_string()]);
        command.current_dir(&work_dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        for variable in OCIO_VARIABLES {
            command.env_remove(variable);
        }
        command.envs(ocio.map(|ocio| ("OCIO", ocio)));
        let mut process = spawn(command).await?;
        let id = process.id().unwrap_or(0);
        let (sender, lines) = mpsc::channel(LINES_WAITING_MAX);
        if let Some(out) = process.stdout.take() {
            tokio::spawn(read_lines(out, sender.clone()));
        }
        if let Some(err) = process.stderr.take() {
            tokio::spawn(read_lines(err, sender));
        }
        let stdin = process.stdin.take();
        let mark = format!("\u{1}swarm {token} ");
        let (group, sandboxed) = (Arc::new(Group(AtomicU32::new(id))), cell.is_some());
        Ok(Self { process, stdin, lines, mark, group, status: None, sandboxed })
    }

    /// Its process group.
    pub fn group(&self) -> Arc<Group> {
        self.group.clone()
    }

    /// Sends one command. An error means that the child is gone or going; [`Child::next`] tells how.
    pub async fn send(&mut self, command: &Value) -> io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = command.to_string();
        line.push('\n');
        stdin.write_all(line.as_bytes()).await?;
        stdin.flush().await
    }

    /// The next thing it does. May be dropped and asked again at any time.
    pub async fn next(&mut self) -> Event {
        let line = match self.status {
            None => tokio::select! {
                biased;
                line = self.lines.recv() => line,
                status = self.process.wait() => {
                    self.status = status.ok();
                    self.group.kill_last();
                    self.remaining().await
                }
            },
            Some(_) => self.remaining().await,
        };
        let Some(line) = line else {
            self.reap().await;
            return Event::Gone(Gone { status: self.status, sandboxed: self.sandboxed });
        };
        match line.strip_prefix(&self.mark).map(serde_json::from_str) {
            Some(Ok(answer)) => Event::Answer(answer),
            Some(Err(_)) | None => Event::Line(line),
        }
    }

    async fn remaining(&mut self) -> Option<String> {
        tokio::time::timeout(DRAIN, self.lines.recv()).await.ok().flatten()
    }

    /// Lets go of stdin, as a daemon that is killed does.
    #[cfg(test)]
    pub fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// Lets go of stdin, which asks the driver to leave, waits a little and kills what is left.
    pub async fn close(mut self) {
        self.stdin = None;
        self.reap().await;
    }

    async fn reap(&mut self) {
        if self.status.is_none() {
            let lines = &mut self.lines;
            let drained = async { while lines.recv().await.is_some() {} };
            let leave = tokio::time::timeout(LEAVE, async { tokio::join!(self.process.wait(), drained).0 });
            self.status = match leave.await {
                Ok(status) => status.ok(),
                Err(_) => {
                    self.group.kill();
                    self.process.wait().await.ok()
                }
            };
        }
        self.group.kill_last();
    }

    /// Kills it and everything it started, and waits until that is done.
    pub async fn kill(&mut self) {
        self.group.kill();
        if self.status.is_none() {
            self.status = self.process.wait().await.ok();
        }
        self.group.kill_last();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.group.kill();
    }
}

/// How a renderer is told to run the driver, whose own arguments follow.
pub(super) fn arguments(kind: RendererKind, threads: Option<u32>, script: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    match kind {
        RendererKind::Executable => {
            if let Some(threads) = threads {
                arguments.extend(["--threads".into(), threads.to_string().into()]);
            }
            arguments.extend(["--background", "--factory-startup", "--disable-autoexec"].map(OsString::from));
            // Only scripts after it are under its rule.
            arguments.extend(["--python-exit-code", "3", "--python"].map(OsString::from));
            arguments.extend([script.into(), "--".into()]);
        }
        RendererKind::Python => arguments.extend(["-I".into(), script.into()]),
    }
    arguments
}

/// Starts a process from a thread that lives as long as this one's program: Linux sends the death signal a child asks
/// for when the *thread* that started it ends, and those of the runtime come and go.
async fn spawn(command: Command) -> io::Result<tokio::process::Child> {
    type Job = Box<dyn FnOnce() + Send>;
    static SPAWNER: OnceLock<Option<std_mpsc::SyncSender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = std_mpsc::sync_channel::<Job>(16);
        let run = move || jobs.into_iter().for_each(|job| job());
        std::thread::Builder::new().name("spawner".into()).spawn(run).ok().map(|_| sender)
    });
    let Some(spawner) = spawner else { return polite::spawn(command) };
    let runtime = tokio::runtime::Handle::current();
    let (done, started) = oneshot::channel();
    let job = Box::new(move || {
        let _inside = runtime.enter();
        let _ = done.send(polite::spawn(command));
    });
    spawner.try_send(job).map_err(|_| io::Error::other("too many programs are being started at once"))?;
    started.await.map_err(|_| io::Error::other("the thread that starts programs ended"))?
}

/// Puts the driver into `work_dir` unless it is there, under a name of its content, so that versions never mix.
fn write_driver(work_dir: &Path) -> io::Result<PathBuf> {
    let name = format!("driver-{}.py", &blake3::hash(DRIVER.as_bytes()).to_hex()[..16]);
    let path = work_dir.join(&name);
    if std::fs::read(&path).is_ok_and(|there| there == DRIVER.as_bytes()) {
        return Ok(path);
    }
    std::fs::create_dir_all(work_dir)?;
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let part = work_dir.join(format!("{name}.{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    std::fs::write(&part, DRIVER)?;
    std::fs::rename(&part, &path)?;
    Ok(path)
}

/// Sends the lines of a pipe on, until it ends or nobody listens.
async fn read_lines(pipe: impl AsyncRead + Unpin, lines: mpsc::Sender<String>) {
    let mut pipe = BufReader::new(pipe);
    let mut line: Vec<u8> = Vec::new();
    loop {
        let Ok(bytes) = pipe.fill_buf().await else { return };
        if bytes.is_empty() {
            if !line.is_empty() {
                let _ = lines.send(text(&line)).await;
            }
            return;
        }
        let end = bytes.iter().position(|b| *b == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        line.extend_from_slice(&part[..part.len().min(LINE_MAX_BYTES + 4 - line.len().min(LINE_MAX_BYTES + 4))]);
        let used = end.map_or(bytes.len(), |end| end + 1);
        pipe.consume(used);
        if end.is_some() {
            if lines.send(text(&line)).await.is_err() {
                return;
            }
            line.clear();
        }
    }
}

fn text(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    log::cut(text.trim_end(), LINE_MAX_BYTES).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_is_cut_between_characters_and_the_next_one_is_whole() {
        let long = "é".repeat(LINE_MAX_BYTES);
        let input = format!("a\n{long}\nb\r\nno end");
        let (sender, mut lines) = mpsc::channel(8);
        read_lines(input.as_bytes(), sender).await;
        assert_eq!(lines.recv().await.as_deref(), Some("a"));
        assert_eq!(lines.recv().await.map(|line| line.len()), Some(LINE_MAX_BYTES));
        assert_eq!(lines.recv().await.as_deref(), Some("b"));
        assert_eq!(lines.recv().await.as_deref(), Some("no end"));
        assert_eq!(lines.recv().await, None);
    }

    #[cfg(unix)]
    #[test]
    fn the_cpu_time_of_a_child_is_that_of_all_it_started() {
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "sh -c 'while :; do :; done' & wait"]).process_group(0);
        let mut child = command.spawn().unwrap();
        let wait_for = |used: fn(u32) -> Option<u64>| while used(child.id()).is_none_or(|used| used < 5) {};
        wait_for(cpu_of_tree);
        wait_for(cpu_ticks);
        // Two shells.
        assert!(memory_bytes(child.id()).is_some_and(|bytes| (100_000..100_000_000).contains(&bytes)));
        kill_tree(child.id());
        child.wait().unwrap();
        assert_eq!(cpu_of_tree(child.id()), None);
    }
}
