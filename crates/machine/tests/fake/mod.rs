//! A guest that is a task: real link, no machine.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde_json::{Value, json};
use skiff_link::{Args, Incoming, Link, copy_both, mux};
use skiff_machine::{
    Accelerator, Description,
    backend::Selected,
    vm::{
        Backend, Error, Evidence, Exit, ExitReason, Guest, GuestConfig, Key, Progress, Result, Stage, Step,
        Transport,
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    sync::watch,
};

/// What a test sees of its fake backend, and steers.
#[derive(Default)]
pub struct Fake {
    /// Guests that were started.
    pub starts: AtomicU64,
    /// Guests whose remains were removed.
    pub stops: AtomicU64,
    /// Containers that the guest claims to run.
    pub containers: AtomicU64,
    /// Those of them that it claims to be paused.
    pub paused: AtomicU64,
    /// Guests that were woken.
    pub wakes: AtomicU64,
    /// Guests that began with a template.
    pub templated: AtomicU64,
    /// Whether guests can become templates.
    pub is_template: AtomicBool,
    /// Whether those that begin with it never speak.
    pub template_is_mute: AtomicBool,
    /// How long a save takes.
    pub save: Mutex<Duration>,
    /// Whether the next save fails.
    pub save_fails: AtomicBool,
    /// Whether the next wake fails.
    pub wake_fails: AtomicBool,
    /// How long the guest takes to say how many.
    pub ponders: Mutex<Duration>,
    /// How long a boot takes.
    pub boot: Mutex<Duration>,
    /// Whether the next boot misses its deadline.
    pub fails: AtomicBool,
    /// Whether the agent never speaks.
    pub mute: AtomicBool,
    /// Requests that the guest's control service has seen.
    pub requests: Mutex<Vec<Value>>,
    /// What a restarted daemon finds.
    pub running: Mutex<Option<Arc<Inner>>>,
    /// The guest's end of the link.
    pub link: Mutex<Option<Link>>,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Makes the selection that a machine takes.
    pub fn selected(self: &Arc<Self>) -> Selected {
        Selected { backend: Arc::new(FakeBackend(Arc::clone(self))), image: None, others: Vec::new() }
    }

    /// Ends the guest from outside.
    pub fn kill(&self, reason: ExitReason) {
        self.running.lock().unwrap().take().unwrap().end(reason);
    }

    pub fn starts(&self) -> u64 {
        self.starts.load(Ordering::SeqCst)
    }

    #[allow(dead_code, reason = "not every test has one")]
    pub fn stops(&self) -> u64 {
        self.stops.load(Ordering::SeqCst)
    }

    pub fn ops(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|request| request["op"].as_str().unwrap().to_owned()).collect()
    }
}

struct FakeBackend(Arc<Fake>);

pub struct Inner {
    exit: watch::Sender<Option<ExitReason>>,
    halted: AtomicBool,
    mute: bool,
}

impl Inner {
    /// Lets it stand still, as a daemon does that dies before it is saved.
    #[allow(dead_code, reason = "not every test has one")]
    pub fn halt(&self) {
        self.halted.store(true, Ordering::SeqCst);
    }

    fn end(&self, reason: ExitReason) {
        self.exit.send_if_modified(|exit| exit.is_none().then(|| *exit = Some(reason)).is_some());
    }
}

struct FakeGuest {
    fake: Arc<Fake>,
    inner: Arc<Inner>,
    adopted: bool,
}

#[async_trait]
impl Backend for FakeBackend {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn cannot_save(&self) -> Option<&'static str> {
        None
    }

    async fn start(&self, config: &GuestConfig, progress: Progress<'_>) -> Result<Box<dyn Guest>> {
        if let Some(restore) = &config.restore {
            assert_eq!(std::fs::read(&restore.path).unwrap(), b"memory");
            if self.0.wake_fails.swap(false, Ordering::SeqCst) {
                return Err(Error::Changed { what: "the weather" });
            }
            let count = if restore.template { &self.0.templated } else { &self.0.wakes };
            count.fetch_add(1, Ordering::SeqCst);
            let mute = restore.template && self.0.template_is_mute.load(Ordering::SeqCst);
            let inner = Arc::new(Inner { exit: watch::channel(None).0, halted: AtomicBool::new(true), mute });
            *self.0.running.lock().unwrap() = Some(Arc::clone(&inner));
            return Ok(Box::new(FakeGuest { fake: Arc::clone(&self.0), inner, adopted: false }));
        }
        self.0.starts.fetch_add(1, Ordering::SeqCst);
        progress(Step::WaitingForGuest);
        let boot = *self.0.boot.lock().unwrap();
        tokio::time::sleep(boot).await;
        if self.0.fails.swap(false, Ordering::SeqCst) {
            return Err(Error::Deadline {
                stage: Stage::FirstSign,
                after: Duration::from_secs(4),
                accelerator: Some(Accelerator::Tcg),
                evidence: Box::new(Evidence { console: "last words".to_owned(), stderr: String::new() }),
            });
        }
        let inner =
            Arc::new(Inner { exit: watch::channel(None).0, halted: AtomicBool::new(false), mute: false });
        *self.0.running.lock().unwrap() = Some(Arc::clone(&inner));
        Ok(Box::new(FakeGuest { fake: Arc::clone(&self.0), inner, adopted: false }))
    }

    async fn adopt(&self) -> Result<Option<Box<dyn Guest>>> {
        let Some(inner) = self.0.running.lock().unwrap().clone() else { return Ok(None) };
        Ok(Some(Box::new(FakeGuest { fake: Arc::clone(&self.0), inner, adopted: true })))
    }
}

#[async_trait]
impl Guest for FakeGuest {
    fn description(&self) -> Description {
        Description {
            backend: "fake".to_owned(),
            accelerator: Some(Accelerator::Tcg),
            accelerator_note: None,
            pid: 1,
            version: None,
            adopted: self.adopted,
        }
    }

    async fn open_transport(&self) -> Result<Transport> {
        let (host, guest) = tokio::io::duplex(1 << 16);
        let (fake, inner) = (Arc::clone(&self.fake), Arc::clone(&self.inner));
        let mut exit = self.inner.exit.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = agent(guest, fake, inner) => {}
                _ = exit.wait_for(Option::is_some) => {}
            }
        });
        Ok(Transport::Stream(Box::new(host)))
    }

    async fn wait(&self) -> Exit {
        let mut exit = self.inner.exit.subscribe();
        let reason = exit.wait_for(Option::is_some).await.unwrap().unwrap();
        Exit { reason, status: "exit code 0".to_owned(), tail: "last words".to_owned() }
    }

    async fn stop(&self, _grace: Duration) -> Result<()> {
        self.inner.end(ExitReason::Stopped);
        self.fake.running.lock().unwrap().take();
        self.fake.stops.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn is_halted(&self) -> bool {
        self.inner.halted.load(Ordering::SeqCst)
    }

    async fn save(&self, path: &std::path::Path) -> Result<Key> {
        self.inner.halted.store(true, Ordering::SeqCst);
        let takes = *self.fake.save.lock().unwrap();
        tokio::time::sleep(takes).await;
        if self.fake.save_fails.swap(false, Ordering::SeqCst) {
            return Err(Error::Migration { what: "saved", reason: "No space left on device".to_owned() });
        }
        std::fs::write(path, b"memory").unwrap();
        Ok(Key {
            accelerator: Accelerator::Tcg,
            host: Default::default(),
            program: String::new(),
            image: String::new(),
            arguments: Vec::new(),
        })
    }

    async fn resume(&self) -> Result<()> {
        assert!(self.inner.halted.swap(false, Ordering::SeqCst), "it runs already");
        Ok(())
    }

    fn console_tail(&self) -> String {
        "last words".to_owned()
    }
}

async fn agent(io: tokio::io::DuplexStream, fake: Arc<Fake>, inner: Arc<Inner>) {
    if inner.mute || fake.mute.load(Ordering::SeqCst) {
        let _io = io;
        std::future::pending::<()>().await;
        return;
    }
    let link = mux::connect(io, mux::Role::Guest, mux::Config::default()).await.unwrap();
    *fake.link.lock().unwrap() = Some(link.clone());
    while let Ok(incoming) = link.accept().await {
        tokio::spawn(answer(incoming, Arc::clone(&fake), Arc::clone(&inner)));
    }
}

async fn answer(incoming: Incoming, fake: Arc<Fake>, inner: Arc<Inner>) {
    match incoming.header.args.clone() {
        Args::Control {} => {
            let mut stream = BufReader::new(incoming.accept(None).await.unwrap());
            let mut line = String::new();
            while stream.read_line(&mut line).await.is_ok_and(|count| count > 0) {
                let request: Value = serde_json::from_str(&line).unwrap();
                line.clear();
                let op = request["op"].as_str().unwrap().to_owned();
                fake.requests.lock().unwrap().push(request);
                let containers = fake.containers.load(Ordering::SeqCst);
                let paused = fake.paused.load(Ordering::SeqCst);
                let ponders = *fake.ponders.lock().unwrap();
                if op == "status" {
                    tokio::time::sleep(ponders).await;
                }
                let reply = match op.as_str() {
                    "hello" => json!({"version": "9", "kernel": "6.12", "uptime": 1.0}),
                    "status" => {
                        json!({"containers_running": containers, "containers_paused": paused, "connections": 0})
                    }
                    "listeners" => json!({"listeners": [{"transport": "tcp", "address": "127.0.0.1:80"}]}),
                    "template" if !fake.is_template.load(Ordering::SeqCst) => {
                        json!({"error": "unknown request"})
                    }
                    "trim" => json!({"error": "no disk"}),
                    _ => json!({}),
                };
                if stream.write_all(format!("{reply}\n").as_bytes()).await.is_err() {
                    return;
                }
                let _ = stream.flush().await;
                if op == "shutdown" {
                    inner.end(ExitReason::Shutdown);
                }
            }
        }
        Args::Dial { addr, .. } if addr.port() == 1 => {
            incoming.refuse(skiff_link::ReplyCode::Refused, "nobody listens").await;
        }
        Args::Dial { addr, .. } if addr.port() == 2 => drop(incoming.accept(None).await),
        // Whatever is sent comes back.
        Args::Api {} | Args::Shell {} | Args::Dial { .. } => {
            let stream = incoming.accept(None).await.unwrap();
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let (mut reader, mut writer) = tokio::io::split(ours);
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                let _ = writer.shutdown().await;
            });
            let _ = copy_both(stream, theirs).await;
        }
        _ => incoming.refuse(skiff_link::ReplyCode::Unsupported, "not here").await,
    }
}
