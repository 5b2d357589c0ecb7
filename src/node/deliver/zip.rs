//! The ZIP file of a job: its frames, their file outputs, the video and what renderers printed, in one folder.
//!
//! It is written beside its name and renamed once it is whole and synced, as the video is. Images and videos are stored as
//! they are, being compressed already. Nothing is held in memory: files are streamed, and logs are fetched while they are.
//! The same results make the same bytes. What keeps it from being written is told, and it is tried again until it is there
//! or not wanted any more.

use super::super::cause::{is_full, plain_cause};
use super::super::event::Event;
use super::super::leftover::{Leftover, part_beside, remove, sync_folder_of};
use super::super::logs::{FrameLog, FrameLogs};
use super::super::machine::free_bytes;
use super::super::output::file_safe;
use super::Delivery;
use crate::farm::event::Input;
use crate::farm::id::{JobId, NodeId};
use crate::farm::job::{JobSpec, OutputSpec};
use futures::StreamExt;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// Frames whose logs are asked for at once: each is a round trip to the machine that has it (guess).
const LOGS_AT_ONCE: usize = 8;
/// How often a machine that is away is tried, and how long apart: after a start the others are not connected yet (guess).
const TRIES: usize = 10;
const APART: Duration = Duration::from_secs(1);
/// Logs that were fetched and are not written yet, each of at most 256 KiB.
const LOGS_AHEAD: usize = 4;
/// Longest wait for one that was stopped (guess: a piece is read and written in less).
const ENDS: Duration = Duration::from_secs(2);
/// Bytes read and written at once (guess: a system call is nothing beside that).
const PIECE_BYTES: usize = 1 << 20;
/// From this length on a file needs the fields of Zip64 (APPNOTE 4.4.8).
const LARGE_BYTES: u64 = u32::MAX as u64;
/// Digits of a frame number in the name of its log.
const DIGITS: usize = 4;

/// The task of a job's ZIP file.
pub(super) struct Zip {
    out: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Zip {
    /// Nobody wants it any more.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Returns once nothing is left of it. A folder that does not answer is not waited for.
    pub async fn ended(self) {
        let _ = tokio::time::timeout(ENDS, self.task).await;
    }
}

/// Removes what a kill may have left of one, once nobody writes it any more.
pub(super) async fn remove_after(zip: Option<Zip>, left: Option<PathBuf>) {
    if let Some(zip) = zip {
        zip.ended().await;
    }
    if let Some(left) = left {
        // Usually there is none.
        let _ = tokio::fs::remove_file(left).await;
    }
}

impl Delivery {
    /// The video is there, or there is none: writes the ZIP file of all that was delivered and of the logs of these frames.
    pub fn zip(
        &mut self,
        (job, collection): (JobId, u64),
        spec: Arc<JobSpec>,
        to: &OutputSpec,
        logs: Vec<i32>,
        has_video: bool,
    ) {
        let Some(out) = to.zip.clone() else { return };
        // Of a job that has no frame nothing was under way.
        self.begin((job, collection), spec, to);
        let work_dir = self.work_dir(job);
        let Some(state) = self.jobs.get_mut(&job) else { return };
        let directory = Path::new(&state.output.directory);
        let names = state.frames.iter().flat_map(|frame| state.images.names(&state.output, *frame, state.spec.format));
        let below: BTreeSet<&String> = state.file_outputs.values().flatten().collect();
        let mut files: Vec<(String, PathBuf)> = names
            .chain(below.into_iter().cloned())
            .map(|name| {
                let path = directory.join(&name);
                (name, path)
            })
            .collect();
        let video = state.output.video.as_ref().filter(|_| has_video).map(PathBuf::from);
        files.extend(video.and_then(|path| Some((path.file_name()?.to_string_lossy().into_owned(), path))));
        let archive = Archive {
            job,
            collection,
            out: out.into(),
            work_dir,
            folder: file_safe(&state.spec.name),
            files,
            logs,
            retry: self.retry_zip,
        };
        let former = state.zip.take();
        former.iter().for_each(Zip::stop);
        // A folder that does not answer holds up no other one.
        let former = former.filter(|former| former.out == archive.out);
        let (out, stop, events) = (archive.out.clone(), CancellationToken::new(), self.events.clone());
        let until = stop.clone();
        let task = tokio::spawn(async move {
            // They write the same file.
            if let Some(former) = former {
                let _ = former.task.await;
            }
            if archive.put(until, events.clone()).await {
                let _ = events.send(Event::Farm(Input::ZipWritten { job, collection })).await;
            }
        });
        state.zip = Some(Zip { out, stop, task });
    }
}

/// What goes into a job's ZIP file, and where that is.
struct Archive {
    job: JobId,
    collection: u64,
    /// Its path.
    out: PathBuf,
    /// Tells its unfinished file from those of other jobs.
    work_dir: PathBuf,
    /// The one folder in it.
    folder: String,
    /// Names below that folder, and the files they are of, in order.
    files: Vec<(String, PathBuf)>,
    /// Frames that were rendered or failed, ascending.
    logs: Vec<i32>,
    /// Between two attempts.
    retry: Duration,
}

/// Why there is no ZIP file.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("nobody wants it any more")]
    Stopped,
    #[error("{path} cannot be read for the ZIP file ({}); `swarm job collect` puts it there anew", plain_cause(source))]
    Unread { path: String, source: io::Error },
    #[error("the disk of {folder} is full; make room there: the ZIP file is tried again")]
    Full { folder: String },
    #[error("{path} cannot be written ({}); mend that: the ZIP file is tried again", plain_cause(source))]
    Unwritten { path: String, source: io::Error },
}

impl Archive {
    /// Writes it, again and again until it is there; false when nobody wants it any more. Ends soon after `stop` is
    /// canceled, and leaves nothing half-written.
    async fn put(self, stop: CancellationToken, events: mpsc::Sender<Event>) -> bool {
        let (archive, silent) = (Arc::new(self), Mutex::new(BTreeSet::new()));
        loop {
            let (sender, logs) = mpsc::channel(LOGS_AHEAD);
            let (writing, until) = (archive.clone(), stop.clone());
            let written = tokio::task::spawn_blocking(move || writing.write(logs, &until));
            let fetched = archive.fetch(sender, &silent, &stop, &events);
            let (written, ()) = tokio::join!(written, fetched);
            let trouble = match written {
                Ok(Ok(())) => return true,
                Ok(Err(Trouble::Stopped)) => return false,
                Ok(Err(trouble)) => trouble,
                Err(panic) => archive.unwritten(io::Error::other(panic)),
            };
            let (job, collection, reason) = (archive.job, archive.collection, trouble.to_string());
            let told = async {
                let _ = events.send(Event::Farm(Input::CollectionDelayed { job, collection, reason })).await;
                tokio::time::sleep(archive.retry).await;
            };
            if stop.run_until_cancelled(told).await.is_none() {
                return false;
            }
        }
    }

    /// Sends the logs, in order, until they are all sent or nobody wants more.
    async fn fetch(
        &self,
        sender: mpsc::Sender<(i32, FrameLog)>,
        silent: &Mutex<BTreeSet<NodeId>>,
        stop: &CancellationToken,
        events: &mpsc::Sender<Event>,
    ) {
        let ask = |frame| self.ask(frame, silent, events);
        let mut logs = futures::stream::iter(self.logs.iter().copied()).map(ask).buffered(LOGS_AT_ONCE);
        loop {
            let log = tokio::select! {
                log = logs.next() => log,
                () = stop.cancelled() => None,
                () = sender.closed() => None,
            };
            let Some(log) = log else { return };
            if sender.send(log).await.is_err() {
                return;
            }
        }
    }

    /// The log of a frame. A machine that twice did not answer for one is not asked for others, nor is one that stays away.
    async fn ask(&self, frame: i32, silent: &Mutex<BTreeSet<NodeId>>, events: &mpsc::Sender<Event>) -> (i32, FrameLog) {
        let (mut tries, mut unanswered) = (0, BTreeSet::<NodeId>::new());
        loop {
            let known = silent.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let (reply, answer) = oneshot::channel();
            let _ = events.send(Event::FrameLogs(FrameLogs { job: self.job, frame, silent: known, reply })).await;
            let Ok(log) = answer.await else {
                let missing = vec!["the daemon stopped before it was fetched".into()];
                return (frame, FrameLog { missing, ..FrameLog::default() });
            };
            tries += 1;
            let (again, once): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
                log.silent.iter().partition(|node| unanswered.contains(*node));
            let tell = |gone: &BTreeSet<NodeId>| silent.lock().unwrap_or_else(PoisonError::into_inner).extend(gone);
            tell(&again);
            let waits = log.pushed_out || !once.is_empty() || !log.away.is_empty();
            if !waits || tries == TRIES {
                tell(&log.away);
                return (frame, log);
            }
            unanswered.extend(once);
            tokio::time::sleep(APART).await;
        }
    }

    /// Writes the file, with the logs as they come.
    fn write(&self, logs: mpsc::Receiver<(i32, FrameLog)>, stop: &CancellationToken) -> Result<(), Trouble> {
        let folder = self.out.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder).map_err(|source| self.unwritten(source))?;
        let unfinished = Leftover(part_beside(&self.out, &self.work_dir));
        // What a kill left takes the room that this one needs.
        remove(&unfinished.0).map_err(|source| self.unwritten(source))?;
        self.fits(folder)?;
        let file = File::create(&unfinished.0).map_err(|source| self.unwritten(source))?;
        let is_over = Cell::new(false);
        let mut zip = ZipWriter::new(Sink { file: &file, stop, is_over: &is_over, at: 0, end: 0 });
        let filled = self.fill(&mut zip, logs, stop);
        is_over.set(filled.is_err());
        filled?;
        zip.finish().map_err(|error| self.unwritten(of_disk(error)))?;
        // Not after the last moment in which it was not wanted any more.
        if stop.is_cancelled() {
            return Err(Trouble::Stopped);
        }
        let named = file.sync_all().and_then(|()| std::fs::rename(&unfinished.0, &self.out));
        named.and_then(|()| sync_folder_of(&self.out)).map_err(|source| self.unwritten(source))
    }

    /// Whether there is room for it: without, the attempt would fill the disk for nothing.
    fn fits(&self, folder: &Path) -> Result<(), Trouble> {
        let length = |(_, path): &(String, PathBuf)| path.metadata().map_or(0, |meta| meta.len());
        let bytes: u64 = self.files.iter().map(length).sum();
        match free_bytes(folder) {
            Ok(free) if free < bytes => Err(self.unwritten(io::ErrorKind::StorageFull.into())),
            _ => Ok(()),
        }
    }

    fn fill(
        &self,
        zip: &mut ZipWriter<Sink<'_>>,
        mut logs: mpsc::Receiver<(i32, FrameLog)>,
        stop: &CancellationToken,
    ) -> Result<(), Trouble> {
        let mut piece = vec![0; PIECE_BYTES];
        for (name, path) in &self.files {
            self.add(zip, name, path, &mut piece)?;
        }
        let text = options().compression_method(CompressionMethod::Deflated);
        let mut missing = String::new();
        while let Some((frame, log)) = logs.blocking_recv() {
            log.missing.iter().for_each(|why| missing.push_str(&format!("frame {frame}: {why}\n")));
            if !log.text.is_empty() {
                self.add_text(zip, &format!("logs/frame_{}.log", padded(frame)), text, &log.text)?;
            }
        }
        if !missing.is_empty() {
            self.add_text(zip, "logs/missing.txt", text, &missing)?;
        }
        // The logs end early when nobody wants them any more.
        if stop.is_cancelled() { Err(Trouble::Stopped) } else { Ok(()) }
    }

    /// Adds a file as it is.
    fn add(&self, zip: &mut ZipWriter<Sink<'_>>, name: &str, path: &Path, piece: &mut [u8]) -> Result<(), Trouble> {
        let unread = |source| Trouble::Unread { path: path.display().to_string(), source };
        let mut file = File::open(path).map_err(unread)?;
        let bytes = file.metadata().map_err(unread)?.len();
        let options = options().large_file(bytes >= LARGE_BYTES);
        zip.start_file(format!("{}/{name}", self.folder), options).map_err(|error| self.unwritten(of_disk(error)))?;
        loop {
            match file.read(piece).map_err(unread)? {
                0 => return Ok(()),
                bytes => zip.write_all(&piece[..bytes]).map_err(|source| self.unwritten(source))?,
            }
        }
    }

    fn add_text(
        &self,
        zip: &mut ZipWriter<Sink<'_>>,
        name: &str,
        options: SimpleFileOptions,
        text: &str,
    ) -> Result<(), Trouble> {
        let begun = zip.start_file(format!("{}/{name}", self.folder), options).map_err(of_disk);
        begun.and_then(|()| zip.write_all(text.as_bytes())).map_err(|source| self.unwritten(source))
    }

    /// What the disk says to the file.
    fn unwritten(&self, source: io::Error) -> Trouble {
        let path = self.out.display().to_string();
        match source.get_ref().is_some_and(|inner| inner.is::<Unwanted>()) {
            true => Trouble::Stopped,
            false if is_full(&source) => {
                Trouble::Full { folder: self.out.parent().unwrap_or(&self.out).display().to_string() }
            }
            false => Trouble::Unwritten { path, source },
        }
    }
}

/// Images and videos; the same time for all, so that the same results make the same file.
fn options() -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644)
}

/// What the disk said, where it is that.
fn of_disk(error: ZipError) -> io::Error {
    match error {
        ZipError::Io(error) => error,
        error => io::Error::other(error),
    }
}

/// A frame number as in the name of an image.
fn padded(frame: i32) -> String {
    let sign = if frame < 0 { "-" } else { "" };
    format!("{sign}{:0DIGITS$}", frame.unsigned_abs())
}

/// Why nothing more is written.
#[derive(Debug, thiserror::Error)]
#[error("nobody wants it any more")]
struct Unwanted;

/// The file as long as somebody wants it. A writer that is dropped halfway ends its archive, and complains on standard error
/// when it cannot; so, once something went wrong, it is left to believe that it can.
struct Sink<'a> {
    file: &'a File,
    stop: &'a CancellationToken,
    is_over: &'a Cell<bool>,
    /// Where the next byte goes, and how many there are.
    at: u64,
    end: u64,
}

impl Sink<'_> {
    /// Does something with the file, unless that is over.
    fn unless_over<T>(&mut self, work: impl FnOnce(&mut &File) -> io::Result<T>) -> io::Result<Option<T>> {
        if self.is_over.get() {
            return Ok(None);
        }
        let done = if self.stop.is_cancelled() { Err(io::Error::other(Unwanted)) } else { work(&mut self.file) };
        done.map(Some).inspect_err(|error| self.is_over.set(error.kind() != io::ErrorKind::Interrupted))
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.unless_over(|file| file.write(bytes))?.unwrap_or(bytes.len());
        self.at += written as u64;
        self.end = self.end.max(self.at);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_over(|file| file.flush()).map(|_| ())
    }
}

impl Seek for Sink<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        let at = at.ok_or(io::ErrorKind::InvalidInput)?;
        self.unless_over(|file| file.seek(SeekFrom::Start(at)))?;
        self.at = at;
        Ok(at)
    }
}
