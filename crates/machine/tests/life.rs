//! The life of a guest, played with a fake one over a real link.

mod fake;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use fake::Fake;
use skiff_link::{Args, StreamHeader};
use skiff_machine::{Error, Machine, Options, Phase, vm::ExitReason};
use skiff_settings::{Paths, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Setup {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
}

impl Setup {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), fake: Fake::new() }
    }

    fn paths(&self) -> Paths {
        let paths = Paths::discover_with(Some(self.dir.path()), |_| None).unwrap();
        paths.prepare().unwrap();
        paths
    }

    fn idle_stop(&self, seconds: u64) {
        let mut settings = Settings::default();
        settings.daemon.idle_stop_seconds = Some(seconds);
        settings.save(&self.paths().settings()).unwrap();
    }

    fn machine(&self) -> Machine {
        self.machine_with(|_| {})
    }

    fn machine_with(&self, change: impl FnOnce(&mut Options)) -> Machine {
        let mut options = Options::new(self.paths(), Arc::new(|_, _| {}));
        options.authorized_keys = vec!["ssh-ed25519 key".to_owned()];
        change(&mut options);
        Machine::spawn(options, self.fake.selected())
    }
}

async fn reaches(machine: &Machine, phase: Phase) {
    let mut watch = machine.watch();
    let reached = watch.wait_for(|snapshot| snapshot.phase == phase);
    tokio::time::timeout(Duration::from_secs(10), reached).await.expect("phase is reached").unwrap();
}

#[tokio::test]
async fn many_callers_wait_for_one_start_and_all_get_the_guest() {
    let setup = Setup::new();
    *setup.fake.boot.lock().unwrap() = Duration::from_millis(100);
    let machine = setup.machine();
    reaches(&machine, Phase::Stopped).await;
    assert_eq!(setup.fake.starts(), 0, "nothing starts by itself");
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let machine = machine.clone();
            tokio::spawn(async move {
                let lease = machine.lease().await.unwrap();
                let mut stream = lease.open(&StreamHeader { args: Args::Api {} }).await.unwrap();
                stream.write_all(b"ping").await.unwrap();
                stream.shutdown().await.unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                assert_eq!(text, "ping");
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(setup.fake.starts(), 1);
    assert_eq!(machine.connections(), 0);
    assert_eq!(setup.fake.ops(), ["template", "wake", "authorize", "hello"]);
    let snapshot = machine.snapshot();
    assert_eq!((snapshot.phase, snapshot.hello.unwrap().version.as_str()), (Phase::Running, "9"));
    assert_eq!(machine.guest_status().await.unwrap().containers_running, 0);
}

#[tokio::test]
async fn stop_asks_the_guest_first_and_the_next_use_starts_it_again() {
    let setup = Setup::new();
    let machine = setup.machine();
    machine.start(false).await.unwrap();
    machine.stop().await.unwrap();
    assert_eq!(machine.snapshot().phase, Phase::Stopped);
    assert_eq!(setup.fake.ops().last().unwrap(), "shutdown");
    assert_eq!((setup.fake.starts(), setup.fake.stops()), (1, 1));
    assert!(machine.guest_status().await.is_none(), "asking does not start it");
    assert_eq!(setup.fake.starts(), 1);
    machine.stop().await.unwrap();
    drop(machine.lease().await.unwrap());
    assert_eq!(setup.fake.starts(), 2);
}

#[tokio::test]
async fn failed_start_is_told_to_every_caller_and_the_next_one_tries_again() {
    let setup = Setup::new();
    setup.fake.fails.store(true, Ordering::SeqCst);
    *setup.fake.boot.lock().unwrap() = Duration::from_millis(50);
    let machine = setup.machine();
    reaches(&machine, Phase::Stopped).await;
    let (first, second) = tokio::join!(machine.lease(), machine.lease());
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert!(matches!(*error, Error::Start(_)));
        assert!(error.detail().unwrap().contains("last words"));
    }
    assert_eq!(machine.snapshot().phase, Phase::Failed);
    assert_eq!(machine.snapshot().reason.unwrap().to_string(), "the guest did not start");
    drop(machine.lease().await.unwrap());
    assert_eq!(setup.fake.starts(), 2);
}

#[tokio::test]
async fn mute_agent_misses_its_deadline_and_the_guest_is_ended() {
    let setup = Setup::new();
    setup.fake.mute.store(true, Ordering::SeqCst);
    let machine = setup.machine_with(|options| options.agent_deadline = Duration::from_millis(300));
    let error = machine.lease().await.unwrap_err();
    assert!(matches!(&*error, Error::NoAgent { console, .. } if console == "last words"), "{error:?}");
    assert_eq!(setup.fake.stops(), 1);
}

#[tokio::test]
async fn stop_calls_a_start_off() {
    let setup = Setup::new();
    *setup.fake.boot.lock().unwrap() = Duration::from_secs(60);
    let machine = setup.machine();
    reaches(&machine, Phase::Stopped).await;
    let caller = tokio::spawn({
        let machine = machine.clone();
        async move { machine.lease().await }
    });
    reaches(&machine, Phase::Starting).await;
    let began = Instant::now();
    machine.stop().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(matches!(*caller.await.unwrap().unwrap_err(), Error::CalledOff));
    assert_eq!(machine.snapshot().phase, Phase::Stopped);
}

#[tokio::test]
async fn dead_guest_is_noticed_with_its_reason_and_replaced_at_the_next_use() {
    let setup = Setup::new();
    let machine = setup.machine();
    machine.start(false).await.unwrap();
    setup.fake.kill(ExitReason::Died);
    reaches(&machine, Phase::Failed).await;
    let reason = machine.snapshot().reason.unwrap();
    assert_eq!(reason.to_string(), "the guest's process died (exit code 0)");
    assert_eq!(reason.detail().unwrap(), "last words");
    assert_eq!(setup.fake.stops(), 1, "its remains are removed");
    drop(machine.lease().await.unwrap());
    assert_eq!(setup.fake.starts(), 2);
    setup.fake.kill(ExitReason::Shutdown);
    reaches(&machine, Phase::Stopped).await;
}

#[tokio::test]
async fn guest_survives_its_daemon_and_is_found_again() {
    let setup = Setup::new();
    let machine = setup.machine();
    machine.start(false).await.unwrap();
    drop(machine);
    let machine = setup.machine();
    let lease = machine.lease().await.unwrap();
    assert_eq!(setup.fake.starts(), 1);
    assert!(machine.snapshot().description.unwrap().adopted);
    lease.open(&StreamHeader { args: Args::Api {} }).await.unwrap();
}

#[tokio::test]
async fn guest_that_stays_out_of_reach_is_given_up() {
    let setup = Setup::new();
    let machine = setup.machine_with(|options| options.relink_deadline = Duration::from_millis(300));
    machine.start(false).await.unwrap();
    // The transport of a fake guest carries one session: when it is closed, the guest is out of reach.
    let link = setup.fake.link.lock().unwrap().take().unwrap();
    link.close();
    drop(link);
    reaches(&machine, Phase::Failed).await;
    assert!(matches!(*machine.snapshot().reason.unwrap(), Error::LinkLost { .. }));
    assert_eq!(setup.fake.stops(), 1);
}

#[tokio::test]
async fn idle_guest_is_stopped_but_not_while_it_is_used() {
    let setup = Setup::new();
    setup.idle_stop(1);
    setup.fake.containers.store(1, Ordering::SeqCst);
    let machine = setup.machine();
    let lease = machine.lease().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(machine.snapshot().phase, Phase::Running, "a connection keeps it");
    drop(lease);
    tokio::time::sleep(Duration::from_millis(2300)).await;
    assert_eq!(machine.snapshot().phase, Phase::Running, "a container keeps it");
    setup.fake.containers.store(0, Ordering::SeqCst);
    reaches(&machine, Phase::Stopped).await;
    assert!(machine.snapshot().reason.is_none());
    assert_eq!(setup.fake.ops().last().unwrap(), "shutdown");
}

#[tokio::test]
async fn a_call_that_starts_a_container_while_the_guest_counts_them_keeps_it() {
    let setup = Setup::new();
    setup.idle_stop(1);
    *setup.fake.ponders.lock().unwrap() = Duration::from_millis(700);
    let machine = setup.machine();
    drop(machine.lease().await.unwrap());
    // Whenever the guest is asked: it is while it ponders its last count that the container starts.
    tokio::time::sleep(Duration::from_millis(900)).await;
    let asked = setup.fake.requests.lock().unwrap().len();
    let begun = Instant::now();
    while setup.fake.requests.lock().unwrap().len() == asked && begun.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let lease = machine.lease().await.unwrap();
    setup.fake.containers.store(1, Ordering::SeqCst);
    drop(lease);
    tokio::time::sleep(Duration::from_millis(3000)).await;
    assert_eq!(machine.snapshot().phase, Phase::Running);
    assert_eq!(setup.fake.starts.load(Ordering::SeqCst), 1);
}
