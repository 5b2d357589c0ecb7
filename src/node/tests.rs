#![allow(clippy::unwrap_used)]
//! A whole node in this process, spoken to as a command speaks to it.

use super::identity::Invite;
use super::store::{Batch, LedgerRow, StoreError};
use super::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

struct Running {
    dir: tempfile::TempDir,
    stop: CancellationToken,
    task: JoinHandle<Result<(), NodeError>>,
}

impl Running {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(dir: tempfile::TempDir) -> Self {
        let options = Options { render: false, ..Options::embedded(dir.path().join("data")) };
        Self::start_with(dir, options).await
    }

    async fn start_with(dir: tempfile::TempDir, options: Options) -> Self {
        let listen = vec![Ipv4Addr::LOCALHOST.into()];
        let options = Options { listen, port: Some(0), mdns: false, ..options };
        let (stop, (ready, is_ready)) = (CancellationToken::new(), oneshot::channel());
        let task = tokio::spawn(run(options, ready, stop.clone()));
        is_ready.await.unwrap();
        Self { dir, stop, task }
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Posts `body`; gives the status and the answer.
    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask("POST", path, &body.to_string()).await
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let ApiFile { address, token, .. } = ApiFile::read(&self.data_dir()).unwrap().unwrap();
        let mut answer = String::new();
        let head = format!("Host: {address}\r\nAuthorization: Bearer {token}\r\nContent-Length: {}", body.len());
        let request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{head}\r\n\r\n{body}");
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
    }
}

fn invite() -> Invite {
    Invite { swarm_key: [7; 32], addresses: vec!["127.0.0.1:9".into()] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_start_in_another_swarm_says_so_and_ends() {
    let node = Running::start().await;
    let scratch = node.data_dir().join("scratch");
    std::fs::remove_dir_all(&scratch).unwrap();
    std::fs::write(&scratch, "in the way").unwrap();
    let (status, _) = node.post("/v1/join", &json!({"code": invite().code()})).await;
    assert_eq!(status, 200);
    let data_dir = node.data_dir();
    let ended = node.task.await.unwrap();
    assert!(matches!(&ended, Err(NodeError::DataDir { path, .. }) if *path == scratch), "{ended:?}");
    assert_eq!(ApiFile::read(&data_dir).unwrap(), None);
}

/// The store of a node that has ended. What looks at the disk in a thread may still be at it, and a child that another test
/// starts has the lock with it until it runs.
async fn opened(dir: &Path) -> std::sync::Arc<Store> {
    let opened = async {
        loop {
            match Store::open(dir) {
                Err(StoreError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                opened => return opened.unwrap(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), opened).await.expect("nothing has the store any more")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_swarm_left_behind_nothing_stays_but_which_jobs_are_retired() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let before = identity::load(&store, machine::read().id.as_deref()).unwrap();
    let retired = LedgerRow::Retired { log: [2; 16] };
    let rows = vec![LedgerRow::Op { log: [1; 16], actor: [1; 40], seq: 0, bytes: b"op".into() }, retired.clone()];
    store.writer().try_send(Batch { token: None, rows }).unwrap();
    identity::remember_peers(&store, &[(NodeId([1; 32]), vec!["10.0.0.1:1".into()])]).unwrap();
    drop(store);
    let node = Running::start_in(dir).await;
    let (status, answer) = node.post("/v1/join", &json!({"code": invite().code()})).await;
    assert_eq!((status, answer["swarm"].as_str().map(str::len)), (200, Some(8)));
    node.stop.cancel();
    node.task.await.unwrap().unwrap();
    let store = opened(&node.dir.path().join("data")).await;
    let after = identity::load(&store, machine::read().id.as_deref()).unwrap();
    assert_eq!((after.node, after.swarm_key), (before.node, invite().swarm_key));
    assert_eq!(identity::inviters(&store).unwrap(), invite().addresses);
    assert_eq!(identity::peers(&store).unwrap(), vec![]);
    assert_eq!(store.load_ledger().unwrap(), vec![retired]);
}

/// Says what a Blender with two equal GPUs, newer than any, says when it is asked, and can do nothing else.
#[cfg(unix)]
const FAKE_BLENDER: &str = r#"#!/bin/sh
while [ "$1" != -- ]; do shift; done
gpu() { printf '{"backend": "OPTIX", "name": "A4000", "id": "%s"}' "$1"; }
printf '\n\001swarm %s {"event": "probe", "version": [99, 0, 0], "file_version": 1, "build_hash": "fake",' "$3"
printf ' "colour_folders": [], "denoiser": true, "off": [], "devices": [%s, %s]}\n' "$(gpu b)" "$(gpu a)"
"#;

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn with_a_gpu_for_each_slot_there_are_as_many_slots_as_gpus_and_doctor_and_nodes_tell_them() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let blender = dir.path().join("blender");
    std::fs::write(&blender, FAKE_BLENDER).unwrap();
    std::fs::set_permissions(&blender, std::fs::Permissions::from_mode(0o755)).unwrap();
    let options = Options::embedded(dir.path().join("data"));
    let options = Options { blender: vec![blender], gpu_mode: GpuMode::Each, ..options };
    let node = Running::start_with(dir, options).await;
    let (_, checks) = node.ask("GET", "/v1/doctor", "").await;
    let slots = checks.as_array().unwrap().iter().find(|check| check["name"] == "slots").unwrap();
    let told = "2 frames at the same time (--gpu-mode each): slot 1 on OPTIX A4000 (a), slot 2 on OPTIX A4000 (b)";
    assert_eq!(slots["message"], told, "{checks}");
    let (_, nodes) = node.ask("GET", "/v1/nodes", "").await;
    let ids: Vec<_> = nodes[0]["slot_gpus"].as_array().unwrap().iter().map(|gpu| gpu["id"].as_str().unwrap()).collect();
    assert_eq!((&nodes[0]["slots"], ids), (&json!(2), vec!["a", "b"]));
    node.stop.cancel();
    node.task.await.unwrap().unwrap();
}
