//! The real docker command line against the fake backend.

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use skiff_docker_api::Server;
use skiff_docker_api::backend::StreamKind::{Stderr, Stdout};
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::process::Command;

use crate::fake::{Fake, chunk};

/// Runs `docker` with these arguments; `None` where none is installed.
async fn docker(arguments: &[&str]) -> Option<Output> {
    docker_with(Arc::new(Fake::default()), arguments).await
}

async fn docker_with(fake: Arc<Fake>, arguments: &[&str]) -> Option<Output> {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = Server::new(fake, "28.5.2");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move { server.serve(listener, async { drop(stopped.await) }).await });
    let output = Command::new("docker")
        .arg("--config")
        .arg(directory.path())
        .arg("-H")
        .arg(format!("unix://{}", socket.display()))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await;
    stop.send(()).unwrap();
    serving.await.unwrap();
    match output {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: no docker command on this machine");
            None
        }
        Err(error) => panic!("cannot run docker: {error}"),
    }
}

async fn shows(arguments: &[&str], expected: &[&str]) {
    let Some(output) = docker(arguments).await else { return };
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {text}");
    for word in expected {
        assert!(text.contains(word), "{arguments:?} must show {word:?}: {text}");
    }
}

#[tokio::test]
async fn version_and_info_are_shown() {
    shows(&["version"], &["28.5.2", "1.24", "Skiff"]).await;
    shows(&["info"], &["Server Version: 28.5.2", "Operating System: Skiff", "seccomp"]).await;
    shows(&["system", "df"], &["Images", "Containers", "Local Volumes"]).await;
}

#[tokio::test]
async fn containers_are_shown() {
    shows(&["ps", "-a"], &["0123456789ab", "0.0.0.0:8080->80/tcp", "Up 2 seconds", "web"]).await;
    shows(&["inspect", "web"], &["\"172.17.0.2\"", "\"RestartPolicy\""]).await;
    shows(&["logs", "web"], &["out", "err"]).await;
    shows(&["wait", "web"], &["3"]).await;
    shows(&["top", "web"], &["PID"]).await;
    shows(&["kill", "web"], &["web"]).await;
}

#[tokio::test]
async fn images_networks_and_volumes_are_shown() {
    shows(&["images"], &["<none>"]).await;
    shows(&["pull", "busybox:1.36"], &["Pulling from library/busybox"]).await;
    shows(&["network", "ls"], &["bridge"]).await;
    shows(&["volume", "ls"], &["data"]).await;
    shows(&["events", "--since", "1", "--until", "2"], &["container start 01"]).await;
}

#[tokio::test]
async fn an_execs_streams_arrive_apart() {
    let fake = Arc::new(Fake::default());
    let container = fake.clone();
    let process = tokio::spawn(async move {
        let stdio = loop {
            if let Some(stdio) = container.stdio.lock().unwrap().pop() {
                break stdio;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let mut input = Vec::new();
        stdio.input.unwrap().read_to_end(&mut input).await.unwrap();
        stdio.output.send(chunk(Stdout, "to stdout")).await.unwrap();
        stdio.output.send(chunk(Stderr, "to stderr")).await.unwrap();
        input
    });
    let Some(output) = docker_with(fake, &["exec", "-i", "web", "sh"]).await else { return };
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"to stdout"[..], &b"to stderr"[..]));
    assert_eq!(process.await.unwrap(), b"", "the command's stdin is empty");
}
