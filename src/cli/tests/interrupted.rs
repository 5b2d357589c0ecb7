//! Commands that end before what they wait for does: by Ctrl-C, sent to a real process too, and where the reader has gone.

use super::*;
use std::io;

/// Interrupts once the job is known: its line has been printed.
fn interrupt_after_submission(stage: &Stage, args: &str) -> (u8, String) {
    struct Trigger<'a>(&'a std::cell::RefCell<Option<SyncSender<Message>>>, Vec<u8>);
    impl Write for Trigger<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.extend_from_slice(bytes);
            if String::from_utf8_lossy(&self.1).contains(&format!("job {JOB}"))
                && let Some(sender) = self.0.borrow_mut().take()
            {
                sender.send(Message::Interrupt).unwrap();
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let sender = std::cell::RefCell::new(None);
    let mut err = Trigger(&sender, Vec::new());
    let code = stage.run_to(args, &|to| *sender.borrow_mut() = Some(to), &mut Vec::new(), &mut err);
    (code, String::from_utf8(err.1).unwrap())
}

#[test]
fn ctrl_c_leaves_a_daemons_job_running_and_cancels_an_embedded_one() {
    let stage = Stage::with_daemon(Script::Hang);
    let (code, err) = interrupt_after_submission(&stage, &format!("submit {}", stage.blend()));
    assert_eq!(code, 130);
    assert!(err.ends_with(&format!("\nswarm job watch {JOB}\n")), "{err}");
    assert!(!stage.seen().iter().any(|request| matches!(request, ApiRequest::Cancel { .. })));

    let stage = Stage::empty(Script::Hang);
    let (code, err) = interrupt_after_submission(&stage, &format!("submit {}", stage.blend()));
    assert_eq!(code, 130);
    assert!(err.contains("; what is done is kept: ") && err.ends_with(" frames in /scenes/IceModal-frames\n"), "{err}");
    assert_eq!(stage.seen().last(), Some(&ApiRequest::Cancel { job: JOB.into() }));
    assert_eq!(*stage.starter.stopped.lock().unwrap(), 1);
}

#[test]
fn ctrl_c_leaves_a_job_that_the_command_did_not_make_as_it_is() {
    let stage = Stage::empty(Script::Hang);
    for args in ["job collect last --output /o".to_owned(), format!("submit {} --update last", stage.blend())] {
        let (code, err) = interrupt_after_submission(&stage, &args);
        assert_eq!(code, 130);
        assert!(err.ends_with(&format!("job {JOB} is left as it is, and the same command goes on with it\n")), "{err}");
    }
    assert!(!stage.seen().iter().any(|request| matches!(request, ApiRequest::Cancel { .. })));
}

/// A pipe whose reader has gone.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_has_gone_ends_a_command_quietly() {
    let stage = Stage::with_daemon(Script::Hang);
    let mut err = Vec::new();
    assert_eq!(stage.run_to("jobs", &|_| {}, &mut Gone, &mut err), 0);
    let submit = format!("submit {} --json", stage.blend());
    assert_eq!(stage.run_to(&submit, &|_| {}, &mut Gone, &mut err), 130);
    assert!(err.is_empty());
}

/// Names the data directory to the process that `a_real_ctrl_c_…` starts.
#[cfg(unix)]
const CHILD_DIR: &str = "SWARM_TEST_CHILD_DIR";

/// Not a test of its own: what `a_real_ctrl_c_…` runs in another process.
#[cfg(unix)]
#[test]
fn child_that_submits() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let screen = crate::cli::Screen::stderr();
    let (mut out, mut err) = (io::stdout(), screen.clone());
    let mut console = Console { out: &mut out, err: &mut err, json: false, screen: Some(&screen) };
    let file = Path::new(&dir).join("shot.blend").into_os_string();
    let args = ["swarm".into(), "--data-dir".into(), dir, "submit".into(), file];
    let invocation = parse_to(args, &mut console).unwrap_or_else(|code| panic!("exit code {code}"));
    let starter = FakeStarter::new(Script::Hang);
    let code = run_to(invocation, &starter, &crate::cli::watch::listen_to_signals, &mut console);
    std::process::exit(code.into());
}

#[cfg(unix)]
#[test]
fn a_real_ctrl_c_ends_a_real_process_with_130_and_the_next_command() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let stage = Stage::with_daemon(Script::Hang);
    stage.blend();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cli::tests::interrupted::child_that_submits", "--nocapture"])
        .env(CHILD_DIR, stage.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut last = String::new();
    for line in lines.map(Result::unwrap) {
        if line.starts_with("submitted job") {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        }
        last = line;
    }
    assert_eq!((child.wait().unwrap().code(), last), (Some(130), format!("swarm job watch {JOB}")));
}
