//! The HTTP client: finds the daemon of a data directory and asks it things.

use crate::node::http::{ApiError, ApiFile, ErrorKind};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;
use ureq::{Agent, Body, RequestExt, http};

/// How long a daemon on this machine may take to say that it is there: with everything else on the machine put before it,
/// 5 s were too short in 6 of some 30 runs (`scripts/faults` beside sessions of autogroup nice -15).
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one answer may take (guess): `join` and `doctor` wait for other machines and for Blender's start.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest answer, bytes: the frames of a job of a million, some 200 bytes each, twice over.
const ANSWER_MAX_BYTES: u64 = 512 * 1024 * 1024;
/// Longest line of a stream, bytes (guess: a `missing` list of a whole long job).
const LINE_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A daemon that answered.
#[derive(Clone)]
pub(crate) struct Client {
    agent: Agent,
    base: String,
    bearer: String,
    /// The process, if it is no daemon but another command with a node inside.
    pub(crate) inside: Option<u32>,
}

/// Looks for the daemon of this data directory. `Ok(None)`: there is none, whatever an old `api.json` says.
pub(crate) fn find(data_dir: &Path) -> Result<Option<Client>, ApiError> {
    let file = ApiFile::read(data_dir).map_err(|error| {
        let path = ApiFile::path(data_dir);
        ApiError::new(ErrorKind::DataDir, format!("cannot read {}: {error}; is it another user's?", path.display()))
    })?;
    let Some(file) = file.filter(|file| file.address.ip().is_loopback()) else { return Ok(None) };
    // A proxy of the environment has no business between a machine and itself.
    let config = Agent::config_builder().proxy(None).http_status_as_error(false).max_redirects(0).build();
    let client = Client {
        agent: config.new_agent(),
        base: format!("http://{}/v1", file.address),
        bearer: format!("Bearer {}", file.token),
        inside: file.embedded.then_some(file.pid),
    };
    match client.send(http::Method::GET, "/ping", None, Some(PING_TIMEOUT)) {
        Ok(response) if response.status().is_success() => Ok(Some(client)),
        // Somebody else has the port now.
        Ok(_) => Ok(None),
        Err(ureq::Error::Timeout(_)) => {
            let (pid, seconds) = (file.pid, PING_TIMEOUT.as_secs());
            let text = format!(
                "the daemon with process id {pid} has not answered for {seconds} s; if this machine is overloaded try again, else end that process and start `swarm daemon` anew"
            );
            Err(ApiError::new(ErrorKind::DaemonSilent, text))
        }
        Err(_) => Ok(None),
    }
}

impl Client {
    /// Asks for one value.
    pub(crate) fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.once(http::Method::GET, path, None)
    }

    /// Tells something and reads the answer.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.once(http::Method::POST, path, Some(body))
    }

    /// Asks for a stream of events.
    pub(crate) fn get_stream(&self, path: &str) -> Result<Events, ApiError> {
        self.stream(http::Method::GET, path, None)
    }

    /// Tells something and reads the events that follow.
    pub(crate) fn post_stream(&self, path: &str, body: &Value) -> Result<Events, ApiError> {
        self.stream(http::Method::POST, path, Some(body))
    }

    fn once(&self, method: http::Method, path: &str, body: Option<&Value>) -> Result<Value, ApiError> {
        let mut response = self.send(method, path, body, Some(ANSWER_TIMEOUT)).map_err(silent)?;
        let failed = !response.status().is_success();
        let value: Value =
            response.body_mut().with_config().limit(ANSWER_MAX_BYTES).read_json().map_err(|error| match error {
                ureq::Error::Json(_) => foreign(response.status()),
                error => silent(error),
            })?;
        match ApiError::from_json(&value) {
            Some(error) => Err(error),
            None if failed => Err(foreign(response.status())),
            None => Ok(value),
        }
    }

    fn stream(&self, method: http::Method, path: &str, body: Option<&Value>) -> Result<Events, ApiError> {
        let mut response = self.send(method, path, body, None).map_err(silent)?;
        if !response.status().is_success() {
            let value: Option<Value> = response.body_mut().read_json().ok();
            return Err(value.as_ref().and_then(ApiError::from_json).unwrap_or_else(|| foreign(response.status())));
        }
        let reader: Box<dyn Read + Send> = Box::new(response.into_body().into_with_config().limit(u64::MAX).reader());
        Ok(Events { lines: BufReader::new(reader) })
    }

    fn send(
        &self,
        method: http::Method,
        path: &str,
        body: Option<&Value>,
        timeout: Option<Duration>,
    ) -> Result<http::Response<Body>, ureq::Error> {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(http::header::AUTHORIZATION, &self.bearer)
            .header(http::header::CONTENT_TYPE, "application/json");
        let text = body.map(Value::to_string).unwrap_or_default();
        request.body(text)?.with_agent(&self.agent).configure().timeout_global(timeout).run()
    }
}

fn silent(error: ureq::Error) -> ApiError {
    ApiError::new(
        ErrorKind::DaemonSilent,
        format!("the daemon broke off or did not answer ({error}); is it still running?"),
    )
}

fn foreign(status: http::StatusCode) -> ApiError {
    ApiError::new(ErrorKind::Internal, format!("the daemon's answer ({status}) is not one this version understands"))
}

/// The events of a stream, as they come.
pub(crate) struct Events {
    lines: BufReader<Box<dyn Read + Send>>,
}

impl Iterator for Events {
    type Item = Result<Value, ApiError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        match self.lines.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(Err(silent(ureq::Error::Io(error)))),
        }
        let value: Result<Value, _> = serde_json::from_slice(&line);
        Some(match value {
            // Only an error is a line without `event`; `event` objects may well have an `error` of their own.
            Ok(value) if value.get("event").is_none() => {
                Err(ApiError::from_json(&value).unwrap_or_else(|| foreign(http::StatusCode::OK)))
            }
            Ok(value) => Ok(value),
            Err(_) => Err(ApiError::new(ErrorKind::DaemonSilent, "the daemon broke off in the middle of a line")),
        })
    }
}

/// A job as a path segment: everything but unreserved characters is escaped (RFC 3986 §2.3).
pub(crate) fn job_path(job: &str, part: &str) -> String {
    let mut path = String::from("/jobs/");
    for byte in job.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => path.push(byte as char),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path.push_str(part);
    path
}
