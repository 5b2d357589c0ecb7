//! Starting what renders and encodes, so that whoever sits at the machine does not notice.
//!
//! Each program is the leader of a session and a process group of its own, at the lowest priority. Linux weighs niceness
//! within one autogroup (sched(7)), and every session is one: from a terminal or a service beside the desktop's session a
//! program at nice 19 would take half the machine. So the session is made nice as well: loops of 0.9 s on both cores took
//! 1.7 s beside a render in a session of ordinary weight, and 0.95 s beside one in a session at nice 19 (measured).

use std::io;
use tokio::process::{Child, Command};

/// The lowest priority, at which a foreground task keeps its speed (measured, BLENDER.md).
#[cfg(unix)]
const NICENESS: i32 = 19;
/// Linux lets a user change one autogroup in 100 ms, and says `EAGAIN` in between (kernel/sched/autogroup.c).
#[cfg(target_os = "linux")]
const AGAIN: std::time::Duration = std::time::Duration::from_millis(110);
/// How often it is tried: as many as start at once on any machine, a slot each (guess).
#[cfg(target_os = "linux")]
const TRIES: u32 = 32;

/// Starts it.
///
/// # Errors
/// It cannot be started. Where the system wants its priority otherwise, it runs nevertheless.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    #[cfg(unix)]
    {
        use process_wrap::tokio::{CommandWrap, CommandWrapper, ProcessSession};
        // Its preparation alone: the child it would wrap is wanted as it is.
        ProcessSession.pre_spawn(&mut command, &CommandWrap::with_new("", |_| {}))?;
    }
    let child = command.spawn()?;
    #[cfg(unix)]
    if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(id.try_into().ok()?)) {
        // One that has ended already needs no manners.
        let _ = rustix::process::setpriority_pgrp(Some(pid), NICENESS);
        #[cfg(target_os = "linux")]
        tokio::spawn(lower_session(pid));
    }
    Ok(child)
}

/// Makes the autogroup of a session nice, where there are any.
#[cfg(target_os = "linux")]
async fn lower_session(leader: rustix::process::Pid) {
    let file = format!("/proc/{}/autogroup", leader.as_raw_nonzero());
    for _ in 0..TRIES {
        match tokio::fs::write(&file, NICENESS.to_string()).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(AGAIN).await,
            Ok(()) | Err(_) => return,
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_leads_a_session_that_gives_way_as_a_whole() {
        let mut command = Command::new("sleep");
        command.arg("60").kill_on_drop(true);
        let child = spawn(command).unwrap();
        let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
        assert_eq!(rustix::process::getsid(Some(pid)).unwrap(), pid);
        assert_eq!(rustix::process::getpgid(Some(pid)).unwrap(), pid);
        assert_eq!(rustix::process::getpriority_process(Some(pid)).unwrap(), NICENESS);
        let autogroup = || std::fs::read_to_string(format!("/proc/{}/autogroup", pid.as_raw_nonzero()));
        // A kernel without them has no such file.
        while autogroup().is_ok_and(|told| !told.ends_with("nice 19\n")) {
            tokio::time::sleep(AGAIN).await;
        }
    }
}
