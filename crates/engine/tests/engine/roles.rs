//! The parts that the test's binary plays beside the test.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bollard_stubs::models::{ContainerCreateBody, ExecConfig};
use futures_util::StreamExt;
use serde_json::{Value, json};
use skiff_engine::{
    AttachOptions, BridgeNetwork, Config, CreateContainer, Egress, Engine, ImportImage, ListContainers,
    LocalForwarder, LocalPublisher, LogsOptions, PacketFilter, RemoveContainer, StartExec, StopOptions,
    Stream, WaitCondition,
};
use skiff_supervisor::{Client, Server, ServerConfig, Service};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

pub const ROLE: &str = "SKIFF_ENGINE_TEST_ROLE";
pub const DIRECTORY: &str = "SKIFF_ENGINE_TEST_DIRECTORY";

pub fn supervisor() -> ExitCode {
    let args = [format!("{ROLE}=engine").into(), std::env::current_exe().unwrap().into_os_string()];
    let args: Vec<OsString> = args.into();
    let engine = Service { name: "engine", program: PathBuf::from("/usr/bin/env"), args };
    let server = Server::new(ServerConfig {
        engine,
        helpers: Vec::new(),
        stop_grace: Duration::from_secs(10),
        when_ready: None,
    });
    match server.unwrap().run() {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

pub fn engine() -> ExitCode {
    let supervisor = Client::from_env().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
        let images = skiff_images::Store::open(skiff_images::Config::new(directory.join("images"))).unwrap();
        let config = Config {
            root: directory.join("root"),
            name: "test".to_owned(),
            version: "0".to_owned(),
            images,
            supervisor: supervisor.clone(),
            publisher: Arc::new(LocalPublisher::new(format!("skiff_{}_ports", bridge_name()))),
            publish_default_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            bridge: BridgeNetwork { name: bridge_name(), ..BridgeNetwork::default() },
            shares_interfaces: true,
            address_pools: skiff_network::default_pools(),
            egress: Egress::Masquerade,
            host_gateway: None,
            packet_filter: PacketFilter::AtStart,
            sources: Arc::new(skiff_engine::LocalSources),
            forwarder: Arc::new(LocalForwarder::new(PathBuf::from("/etc/resolv.conf"))),
            cgroup_parent: None,
            init: None,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            fallback_dns: Vec::new(),
            registry_mirrors: Vec::new(),
        };
        let engine = Engine::open(config).await.unwrap();
        let socket = directory.join("socket");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        supervisor.ready().unwrap();
        let serving = engine.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(serving.clone(), stream));
            }
        });
        engine.stopped().await;
    });
    ExitCode::SUCCESS
}

/// One name per test directory, so that tests run side by side.
pub fn bridge_name() -> String {
    let directory = std::env::var(DIRECTORY).unwrap_or_default();
    let sum = directory.bytes().fold(5381u32, |sum, byte| sum.wrapping_mul(33) ^ u32::from(byte));
    format!("skt{sum:08x}")
}

async fn serve(engine: Engine, stream: UnixStream) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let request: Value = serde_json::from_str(&line).unwrap();
        let answer = match answer(&engine, &request).await {
            Ok(value) => json!({ "ok": value }),
            Err(error) => json!({ "error": error.message, "code": format!("{:?}", error.code) }),
        };
        if write.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn answer(engine: &Engine, request: &Value) -> skiff_engine::Result<Value> {
    let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
    let id = text("id");
    Ok(match request["op"].as_str().unwrap() {
        "import" => {
            let tar = tokio::fs::File::open(text("path")).await.unwrap();
            let import = ImportImage { reference: Some("busybox".to_owned()), ..ImportImage::default() };
            let mut steps = engine.import_image(import, Box::new(tar));
            let mut last = Value::Null;
            while let Some(step) = steps.next().await {
                if let skiff_engine::ImageProgress::Step(step) = step? {
                    last = step.status.into();
                }
            }
            last
        }
        "create" => {
            let body: ContainerCreateBody = serde_json::from_value(request["body"].clone()).unwrap();
            let name = request["name"].as_str().map(str::to_owned);
            engine.create_container(CreateContainer { name, platform: None, body }).await?.id.into()
        }
        "start" => {
            engine.start_container(&id).await?;
            Value::Null
        }
        "wait" => {
            let condition = match text("condition").as_str() {
                "removed" => WaitCondition::Removed,
                "next-exit" => WaitCondition::NextExit,
                _ => WaitCondition::NotRunning,
            };
            engine.wait_container(&id, condition).await?.await?.status_code.into()
        }
        "logs" => {
            let options = LogsOptions { stdout: true, stderr: true, follow: true, ..LogsOptions::default() };
            output(engine.container_logs(&id, options).await?.output).await
        }
        // Attaches, starts, types, and reads to the end: what `docker run -i` does.
        "run" => {
            let options = AttachOptions {
                stream: true,
                stdin: true,
                stdout: true,
                stderr: true,
                ..AttachOptions::default()
            };
            let mut streams = engine.attach_container(&id, options).await?;
            let input = streams.input.take();
            engine.start_container(&id).await?;
            let typed = text("input");
            if let Some(mut input) = input {
                tokio::spawn(async move {
                    let _ = input.write_all(typed.as_bytes()).await;
                    let _ = input.shutdown().await;
                });
            }
            output(streams.output).await
        }
        "exec" => {
            let config: ExecConfig = serde_json::from_value(request["body"].clone()).unwrap();
            let exec = engine.create_exec(&id, config).await?;
            if request["detach"] == true {
                engine.start_exec_detached(&exec, StartExec::default()).await?;
                return Ok(exec.into());
            }
            let streams = engine.start_exec(&exec, StartExec::default()).await?;
            drop(streams.input);
            let output = output(streams.output).await;
            let inspected = engine.inspect_exec(&exec).await?;
            json!({ "output": output, "code": inspected.exit_code, "running": inspected.running })
        }
        "inspect-exec" => serde_json::to_value(engine.inspect_exec(&id).await?).unwrap(),
        "inspect" => serde_json::to_value(engine.inspect_container(&id, false).await?).unwrap(),
        "list" => {
            let all = ListContainers { all: true, ..ListContainers::default() };
            serde_json::to_value(engine.list_containers(all).await?).unwrap()
        }
        "stop" => {
            let options = StopOptions { signal: None, timeout_seconds: request["timeout"].as_i64() };
            engine.stop_container(&id, options).await?;
            Value::Null
        }
        "remove" => {
            let force = request["force"] == true;
            engine.remove_container(&id, RemoveContainer { force, volumes: true, link: false }).await?;
            Value::Null
        }
        "remove-volume" => {
            engine.remove_volume(&id, false).await?;
            Value::Null
        }
        other => panic!("unknown request {other}"),
    })
}

async fn output(mut chunks: skiff_engine::ChunkStream) -> Value {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.unwrap();
        match chunk.stream {
            Stream::Stdout => stdout.extend_from_slice(&chunk.bytes),
            Stream::Stderr => stderr.extend_from_slice(&chunk.bytes),
        }
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    json!({ "stdout": text(stdout), "stderr": text(stderr) })
}
