//! The local API: HTTP on loopback, turned into messages.
//!
//! This adapter knows neither farm nor node. It checks who asks (loopback, `Host`, bearer token), reads the request into
//! an [`ApiRequest`], sends it through a bounded channel and writes down the answer: a JSON value, or a stream of events
//! as one JSON object per line. It sends no CORS headers and refuses foreign `Host` names, so no web page can reach it.
//!
//! | method and path | request |
//! |---|---|
//! | `GET /v1/ping` | answered here: `{"swarm": version}` |
//! | `GET`, `POST /v1/jobs` | `Jobs`, `Submit` (stream) |
//! | `GET /v1/jobs/JOB` | `Job` |
//! | `GET /v1/jobs/JOB/frames`, `…/log`, both with `?frame=N` if of one | `Frames`, `Log` |
//! | `GET /v1/jobs/JOB/why`, `…/watch` | `Why`, `Watch` (stream) |
//! | `POST /v1/jobs/JOB/pause`, `…/resume`, `…/cancel`, `…/delete` | `Pause`, `Resume`, `Cancel`, `Delete` |
//! | `POST /v1/jobs/JOB/requeue` `{"frames"}`, `…/set`, `…/collect` | `Requeue`, `Set`, `Collect` (stream) |
//! | `POST /v1/jobs/JOB/debug?frame=N` | `Debug` |
//! | `GET /v1/nodes`; `POST /v1/node/pause` `{"drop"}`, `…/resume` | `Nodes`, `NodePause`, `NodeResume` |
//! | `POST /v1/node/trust`, `…/untrust` `{"node"}`, or `{"members": true}` for all | `Trust` |
//! | `GET`, `POST /v1/settings` `{"series"}`, a text such as 4.5 or null | `Settings`, `Setting` |
//! | `GET /v1/doctor`; `POST /v1/invite`; `POST /v1/join` `{"code"}` | `Doctor`, `Invite`, `Join` |

mod api;
mod error;
mod file;
#[cfg(test)]
mod tests;

pub use api::{
    ApiCall, ApiRequest, CollectRequest, DebugRequest, FormatChoice, MapRequest, OcioRequest, Reply, RulesRequest,
    STREAM_EVENTS, SetRequest, SubmitRequest, VideoChoice,
};
pub use error::{ApiError, ErrorKind};
pub use file::ApiFile;

use crate::farm::frames::FrameSet;
use crate::farm::settings::SwarmSetting;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// Longest request body, bytes (guess: a submit request with the longest paths an OS allows is under 64 KiB; the rest is
/// room for lists of frames).
const BODY_MAX_BYTES: usize = 1024 * 1024;
/// Requests that may wait for the node's loop (guess). More callers wait in their connections.
pub const CALLS_WAITING: usize = 64;

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener is reachable from other machines.
    #[error("the API is only served on this machine itself; {0} is not a loopback address, use 127.0.0.1 or [::1]")]
    NotLoopback(SocketAddr),
    /// The socket failed.
    #[error("the API's socket failed")]
    Io(#[from] std::io::Error),
}

/// Serves the API until the future is dropped; streams that have begun go on until their senders are dropped. Requests
/// without `token`, or for a foreign host, never reach `calls`.
pub async fn serve(listener: TcpListener, token: String, calls: mpsc::Sender<ApiCall>) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        return Err(ServeError::NotLoopback(address));
    }
    Ok(axum::serve(listener, router(&token, address.port(), calls)).await?)
}

fn router(token: &str, port: u16, calls: mpsc::Sender<ApiCall>) -> Router {
    let guard = Arc::new(Guard { bearer: blake3::hash(format!("Bearer {token}").as_bytes()), port });
    Router::new()
        .route("/v1/ping", get(async || Json(json!({"swarm": env!("CARGO_PKG_VERSION")}))))
        .route("/v1/jobs", get(async |State(calls)| ask(calls, ApiRequest::Jobs).await).post(submit))
        .route(
            "/v1/jobs/{job}",
            get(async |State(calls), job| ask_job(calls, job, |job| ApiRequest::Job { job }).await),
        )
        .route("/v1/jobs/{job}/{part}", get(job_part).post(job_action))
        .route("/v1/nodes", get(async |State(calls)| ask(calls, ApiRequest::Nodes).await))
        .route("/v1/node/pause", post(node_pause))
        .route("/v1/node/resume", post(async |State(calls)| ask(calls, ApiRequest::NodeResume).await))
        .route("/v1/node/trust", post(async |State(calls), body| trust(calls, body, true).await))
        .route("/v1/node/untrust", post(async |State(calls), body| trust(calls, body, false).await))
        .route("/v1/settings", get(async |State(calls)| ask(calls, ApiRequest::Settings).await).post(setting))
        .route("/v1/doctor", get(async |State(calls)| ask(calls, ApiRequest::Doctor).await))
        .route("/v1/invite", post(async |State(calls)| ask(calls, ApiRequest::Invite).await))
        .route("/v1/join", post(join))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_route)
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .layer(middleware::from_fn_with_state(guard, check))
        .with_state(calls)
}

type Calls = mpsc::Sender<ApiCall>;
type RawBody = Result<Bytes, BytesRejection>;

/// What every request must show.
struct Guard {
    /// Hash of the whole `Authorization` header. Hashes compare in constant time, whatever was sent.
    bearer: blake3::Hash,
    port: u16,
}

async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.admit(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

impl Guard {
    fn admit(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let header = |name| headers.get(name).map(|value| value.as_bytes()).unwrap_or_default();
        if !is_own_host(header(header::HOST), self.port) {
            let text = "the API answers only to localhost, 127.0.0.1 and [::1] with its port in the Host header";
            return Err(ApiError::new(ErrorKind::ForbiddenHost, text));
        }
        if blake3::hash(header(header::AUTHORIZATION)) != self.bearer {
            let text = "the token is missing or wrong; it is in api.json in the daemon's data directory";
            return Err(ApiError::new(ErrorKind::Unauthorized, text));
        }
        Ok(())
    }
}

/// Whether a `Host` header is a loopback name or address with our port: a page that rebinds its own name to 127.0.0.1
/// still sends its own name.
fn is_own_host(host: &[u8], port: u16) -> bool {
    let Some((name, given)) = std::str::from_utf8(host).ok().and_then(|host| host.rsplit_once(':')) else {
        return false;
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let loopback = name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    loopback && given.parse() == Ok(port)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.to_json())).into_response()
    }
}

async fn no_such_route(request: Request) -> ApiError {
    let text = format!("the API has no {} {}", request.method(), request.uri().path());
    ApiError::new(ErrorKind::NotFound, text)
}

async fn submit(State(calls): State<Calls>, body: RawBody) -> Result<Response, ApiError> {
    ask(calls, ApiRequest::Submit(Box::new(parse(body)?))).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JoinBody {
    code: String,
}

async fn join(State(calls): State<Calls>, body: RawBody) -> Result<Response, ApiError> {
    let JoinBody { code } = parse(body)?;
    ask(calls, ApiRequest::Join { code: code.trim().to_owned() }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrustBody {
    node: Option<String>,
    #[serde(default)]
    members: bool,
}

async fn trust(calls: Calls, body: RawBody, trusted: bool) -> Result<Response, ApiError> {
    let TrustBody { node: whom, members } = parse(body)?;
    if whom.is_some() == members {
        return Err(bad_request("say whom: {\"node\": NAME} or {\"members\": true}, one of them"));
    }
    ask(calls, ApiRequest::Trust { whom, trusted }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingBody {
    /// Named, even to lift it.
    #[serde(deserialize_with = "Option::deserialize")]
    series: Option<String>,
}

async fn setting(State(calls): State<Calls>, body: RawBody) -> Result<Response, ApiError> {
    let SettingBody { series } = parse(body)?;
    let series = series.map(|text| text.parse()).transpose().map_err(|error: String| bad_request(error))?;
    ask(calls, ApiRequest::Setting(SwarmSetting::Series(series))).await
}

type JobPath = Result<Path<String>, PathRejection>;
type JobPartPath = Result<Path<(String, String)>, PathRejection>;

async fn ask_job(calls: Calls, job: JobPath, request: fn(String) -> ApiRequest) -> Result<Response, ApiError> {
    let Path(job) = job.map_err(bad_request)?;
    ask(calls, request(job)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FrameQuery {
    frame: Option<i32>,
}

async fn job_part(
    State(calls): State<Calls>,
    path: JobPartPath,
    query: Result<Query<FrameQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Path((job, part)) = path.map_err(bad_request)?;
    let request = match part.as_str() {
        "frames" => ApiRequest::Frames { job, frame: query.map_err(bad_request)?.frame },
        "watch" => ApiRequest::Watch { job },
        "why" => ApiRequest::Why { job },
        "log" => ApiRequest::Log { job, frame: query.map_err(bad_request)?.frame },
        other => return Err(no_such_part("GET", other)),
    };
    ask(calls, request).await
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequeueBody {
    frames: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PauseBody {
    drop: bool,
}

async fn node_pause(State(calls): State<Calls>, body: RawBody) -> Result<Response, ApiError> {
    // An empty body is a plain pause.
    let body = match body {
        Ok(bytes) if bytes.is_empty() => PauseBody::default(),
        body => parse(body)?,
    };
    ask(calls, ApiRequest::NodePause { drop: body.drop }).await
}

async fn job_action(
    State(calls): State<Calls>,
    path: JobPartPath,
    query: Result<Query<FrameQuery>, QueryRejection>,
    body: RawBody,
) -> Result<Response, ApiError> {
    let Path((job, action)) = path.map_err(bad_request)?;
    let request = match action.as_str() {
        "pause" => ApiRequest::Pause { job },
        "resume" => ApiRequest::Resume { job },
        "cancel" => ApiRequest::Cancel { job },
        "delete" => ApiRequest::Delete { job },
        "requeue" => {
            let RequeueBody { frames } = parse(body)?;
            let frames = frames
                .map(|text| text.parse::<FrameSet>().map_err(|e| ApiError::new(ErrorKind::BadFrames, e.to_string())));
            ApiRequest::Requeue { job, frames: frames.transpose()? }
        }
        "set" => {
            let changes: Box<SetRequest> = Box::new(parse(body)?);
            if let Some(priority) = changes.priority.filter(|priority| *priority > 100) {
                return Err(bad_request(format!("the priority {priority} is not between 0 and 100")));
            }
            ApiRequest::Set { job, changes }
        }
        "debug" => {
            let frame = query.map_err(bad_request)?.frame.ok_or_else(|| bad_request("a frame is to be named"))?;
            ApiRequest::Debug { job, frame, target: parse(body)? }
        }
        "collect" => ApiRequest::Collect { job, target: parse(body)? },
        other => return Err(no_such_part("POST", other)),
    };
    ask(calls, request).await
}

fn no_such_part(method: &str, part: &str) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("the API has no {method} /v1/jobs/JOB/{part}"))
}

fn bad_request(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorKind::BadRequest, error.to_string())
}

fn parse<T: DeserializeOwned>(body: RawBody) -> Result<T, ApiError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(ErrorKind::TooLarge, format!("the request is longer than {BODY_MAX_BYTES} bytes"))
        }
        _ => bad_request(rejection),
    })?;
    serde_json::from_slice(&body).map_err(|error| bad_request(format!("the request's JSON is not understood: {error}")))
}

/// Sends a request to whoever answers and turns the answer into a response.
async fn ask(calls: Calls, request: ApiRequest) -> Result<Response, ApiError> {
    let stopped = || ApiError::new(ErrorKind::Busy, "the daemon is stopping; start it again with `swarm daemon`");
    if request.is_stream() {
        let (sender, mut events) = mpsc::channel(STREAM_EVENTS);
        calls.send(ApiCall { request, reply: Reply::Stream(sender) }).await.map_err(|_| stopped())?;
        // What is refused at once has a status of its own; only what has begun is a stream.
        let first = events.recv().await.ok_or_else(stopped)??;
        return Ok(stream(first, events));
    }
    let (sender, answer) = oneshot::channel();
    calls.send(ApiCall { request, reply: Reply::Once(sender) }).await.map_err(|_| stopped())?;
    Ok(Json(answer.await.map_err(|_| stopped())??).into_response())
}

/// One JSON object per line; an error is the last line, `{"error": …}`.
fn stream(first: Value, events: mpsc::Receiver<Result<Value, ApiError>>) -> Response {
    let lines = futures::stream::unfold((Some(Ok(first)), events), |(first, mut events)| async move {
        let item = match first {
            Some(item) => item,
            None => events.recv().await?,
        };
        let mut line = item.unwrap_or_else(|error: ApiError| error.to_json()).to_string();
        line.push('\n');
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(line)), (None, events)))
    });
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/x-ndjson"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    (headers, Body::from_stream(lines)).into_response()
}
