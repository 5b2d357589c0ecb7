//! The adapter alone, spoken to in raw HTTP: what a browser, a script or an attacker could send.
#![allow(clippy::unwrap_used)]

use super::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Far more than any answer here takes; a hang fails instead of blocking.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    address: SocketAddr,
    calls: mpsc::Receiver<ApiCall>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, calls) = mpsc::channel(CALLS_WAITING);
        tokio::spawn(serve(listener, "secret".into(), sender));
        Self { address, calls }
    }

    /// Sends a request and reads the whole response: status and body.
    async fn send(&self, request: &str) -> (u16, String) {
        let work = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).await.unwrap();
            response
        };
        let response = tokio::time::timeout(PATIENCE, work).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(!head.to_ascii_lowercase().contains("access-control"), "{head}");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn request(&self, line: &str, extra: &str, body: &str) -> String {
        let length = body.len();
        format!("{line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{extra}\r\n\r\n{body}")
    }

    async fn ask(&self, line: &str, body: &str) -> (u16, String) {
        let extra = format!("Host: {}\r\nAuthorization: Bearer secret", self.address);
        self.send(&self.request(line, &extra, body)).await
    }
}

fn kind(body: &str) -> String {
    serde_json::from_str::<Value>(body).unwrap()["error"]["kind"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn nobody_gets_in_without_the_token() {
    let server = Server::start().await;
    for extra in ["", "Authorization: secret", "Authorization: Bearer secre", "Authorization: Bearer secret2"] {
        for line in ["GET /v1/ping", "POST /v1/jobs", "GET /v1/nothing"] {
            let extra = format!("Host: {}\r\n{extra}", server.address);
            let (status, body) = server.send(&server.request(line, extra.trim_end(), "")).await;
            assert_eq!((status, kind(&body).as_str()), (401, "unauthorized"), "{extra}");
        }
    }
}

#[tokio::test]
async fn a_foreign_host_name_is_refused_even_with_the_token() {
    let mut server = Server::start().await;
    let port = server.address.port();
    for host in ["evil.example".into(), format!("evil.example:{port}"), "127.0.0.1:1".into(), "localhost".into()] {
        let extra = format!("Host: {host}\r\nAuthorization: Bearer secret");
        let (status, body) = server.send(&server.request("GET /v1/jobs", &extra, "")).await;
        assert_eq!((status, kind(&body).as_str()), (403, "forbidden_host"), "{host}");
    }
    assert!(server.calls.try_recv().is_err());
    for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.0.0.2", "[::1]"] {
        let extra = format!("Host: {host}:{port}\r\nAuthorization: Bearer secret");
        assert_eq!(server.send(&server.request("GET /v1/ping", &extra, "")).await.0, 200, "{host}");
    }
}

#[tokio::test]
async fn what_is_not_understood_is_an_error_in_json_and_reaches_nobody() {
    let mut server = Server::start().await;
    for (line, body, status, name) in [
        ("GET /v2/jobs", "", 404, "not_found"),
        ("DELETE /v1/jobs", "", 404, "not_found"),
        ("GET /v1/jobs/x/whence", "", 404, "not_found"),
        ("POST /v1/jobs/x/explode", "{}", 404, "not_found"),
        ("POST /v1/jobs", "{", 400, "bad_request"),
        ("POST /v1/jobs", "{\"file\": \"/a\", \"user\": \"u\", \"turbo\": true}", 400, "bad_request"),
        ("GET /v1/jobs/x/log?frame=abc", "", 400, "bad_request"),
        ("GET /v1/jobs/%ff", "", 400, "bad_request"),
        ("POST /v1/jobs/x/requeue", "{\"frames\": \"9-1\"}", 400, "bad_frames"),
        ("POST /v1/jobs/x/set", "{\"priority\": 101}", 400, "bad_request"),
        ("POST /v1/jobs/x/set", "{\"rules\": {\"speed\": 3}}", 400, "bad_request"),
        ("POST /v1/node/trust", "{}", 400, "bad_request"),
        ("POST /v1/node/trust", "{\"node\": null}", 400, "bad_request"),
        ("POST /v1/node/trust", "{\"members\": false}", 400, "bad_request"),
        ("POST /v1/node/untrust", "{\"node\": \"ws2\", \"members\": true}", 400, "bad_request"),
        ("POST /v1/settings", "{}", 400, "bad_request"),
        ("POST /v1/settings", "{\"series\": \"new\"}", 400, "bad_request"),
        ("POST /v1/settings", "{\"series\": null, \"tags\": []}", 400, "bad_request"),
    ] {
        let (got, answer) = server.ask(line, body).await;
        assert_eq!((got, kind(&answer).as_str()), (status, name), "{line}: {answer}");
    }
    let (status, answer) = server.ask("POST /v1/join", &"x".repeat(BODY_MAX_BYTES + 1)).await;
    assert_eq!((status, kind(&answer).as_str()), (413, "too_large"));
    assert!(server.calls.try_recv().is_err());
}

#[tokio::test]
async fn an_error_before_the_first_event_is_a_status_and_after_it_the_last_line() {
    let mut server = Server::start().await;
    let mut calls = std::mem::replace(&mut server.calls, mpsc::channel(1).1);
    tokio::spawn(async move {
        for before in [0, 2] {
            let Some(ApiCall { reply: Reply::Stream(sender), .. }) = calls.recv().await else { panic!("no stream") };
            for done in 0..before {
                sender.send(Ok(json!({"event": "progress", "done": done}))).await.unwrap();
            }
            sender.send(Err(ApiError::new(ErrorKind::NoSpace, "the disk is full"))).await.unwrap();
        }
    });
    let (status, body) = server.ask("GET /v1/jobs/last/watch", "").await;
    assert_eq!((status, kind(&body).as_str()), (507, "no_space"));
    let (status, body) = server.ask("GET /v1/jobs/last/watch", "").await;
    let lines: Vec<&str> = body.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!((status, lines.len()), (200, 3), "{body}");
    assert_eq!(kind(lines[2]), "no_space");
}

#[tokio::test]
async fn a_caller_that_leaves_is_felt_by_the_sender() {
    let mut server = Server::start().await;
    let extra = format!("Host: {}\r\nAuthorization: Bearer secret", server.address);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(server.request("GET /v1/jobs/last/watch", &extra, "").as_bytes()).await.unwrap();
    let Some(ApiCall { reply: Reply::Stream(sender), .. }) = server.calls.recv().await else { panic!("no stream") };
    sender.send(Ok(json!({"event": "progress"}))).await.unwrap();
    let mut first = [0; 16];
    stream.read_exact(&mut first).await.unwrap();
    drop(stream);
    tokio::time::timeout(PATIENCE, sender.closed()).await.unwrap();
}

#[tokio::test]
async fn a_node_that_drops_the_reply_is_stopping() {
    let mut server = Server::start().await;
    let mut calls = std::mem::replace(&mut server.calls, mpsc::channel(1).1);
    tokio::spawn(async move { while calls.recv().await.is_some() {} });
    for line in ["GET /v1/jobs", "GET /v1/jobs/last/watch"] {
        let (status, body) = server.ask(line, "").await;
        assert_eq!((status, kind(&body).as_str()), (503, "busy"));
    }
}

#[tokio::test]
async fn the_api_is_never_served_to_other_machines() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let served = serve(listener, "secret".into(), mpsc::channel(1).0).await;
    assert!(matches!(served, Err(ServeError::NotLoopback(_))));
}
