//! A guest that sleeps and wakes, played with a fake one over a real link.

mod fake;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use fake::Fake;
use skiff_machine::{Error, Machine, Options, Phase, vm::ExitReason};
use skiff_settings::{IdleAction, Paths, Settings};

struct Setup {
    directory: tempfile::TempDir,
    fake: Arc<Fake>,
}

impl Setup {
    fn new() -> Self {
        let setup = Self { directory: tempfile::tempdir().unwrap(), fake: Fake::new() };
        std::fs::write(setup.paths().disk(), b"disk").unwrap();
        setup
    }

    fn paths(&self) -> Paths {
        let paths = Paths::discover_with(Some(self.directory.path()), |_| None).unwrap();
        paths.prepare().unwrap();
        paths
    }

    fn machine(&self) -> Machine {
        Machine::spawn(Options::new(self.paths(), Arc::new(|_, _| {})), self.fake.selected())
    }

    fn wakes(&self) -> u64 {
        self.fake.wakes.load(Ordering::SeqCst)
    }
}

async fn reaches(machine: &Machine, phase: Phase) {
    let mut watch = machine.watch();
    let reached = watch.wait_for(|snapshot| snapshot.phase == phase);
    tokio::time::timeout(Duration::from_secs(10), reached).await.expect("phase is reached").unwrap();
}

#[tokio::test]
async fn a_guest_sleeps_until_it_is_used_and_is_told_before_and_after() {
    let setup = Setup::new();
    let machine = setup.machine();
    assert!(matches!(&*machine.suspend().await.unwrap_err(), Error::CannotSleep { .. }), "it does not run");
    machine.start(false).await.unwrap();
    assert_eq!(machine.saved(), None);
    machine.suspend().await.unwrap();
    machine.suspend().await.unwrap();
    let snapshot = machine.snapshot();
    assert_eq!((snapshot.phase, snapshot.description), (Phase::Asleep, None));
    assert_eq!((setup.fake.starts(), setup.fake.stops()), (1, 1));
    assert!(machine.saved().is_some());
    assert!(
        machine.running_link().is_none() && machine.guest_status().await.is_none(),
        "looking wakes nobody"
    );

    let lease = machine.lease().await.unwrap();
    assert_eq!((setup.fake.starts(), setup.wakes(), machine.saved()), (1, 1, None));
    let snapshot = machine.snapshot();
    assert!(snapshot.woken && snapshot.wake_note.is_none());
    let ops = setup.fake.ops();
    let told: Vec<&str> =
        ops.iter().map(String::as_str).filter(|op| ["sleep", "wake"].contains(op)).collect();
    assert_eq!(told, ["wake", "sleep", "wake"]);
    let seeds: Vec<String> = setup
        .fake
        .requests
        .lock()
        .unwrap()
        .iter()
        .filter_map(|request| Some(request["seed"].as_str()?.to_owned()))
        .collect();
    assert!(seeds.len() == 2 && seeds[0] != seeds[1] && seeds[0].len() == 128);
    drop(lease);
    setup.fake.kill(ExitReason::Died);
    reaches(&machine, Phase::Failed).await;
    machine.start(false).await.unwrap();
    assert_eq!((setup.fake.starts(), setup.wakes()), (2, 1), "a state is good once");
}

#[tokio::test]
async fn whoever_comes_while_it_falls_asleep_waits_for_it_to_wake() {
    let setup = Setup::new();
    *setup.fake.save.lock().unwrap() = Duration::from_millis(200);
    let machine = setup.machine();
    machine.start(false).await.unwrap();
    let sleeper = machine.clone();
    let suspend = tokio::spawn(async move { sleeper.suspend().await });
    reaches(&machine, Phase::Suspending).await;
    let lease = machine.lease().await.unwrap();
    suspend.await.unwrap().unwrap();
    assert_eq!((machine.snapshot().phase, setup.wakes()), (Phase::Running, 1));
    drop(lease);
}

#[tokio::test]
async fn a_guest_that_cannot_be_saved_runs_on() {
    let setup = Setup::new();
    let machine = setup.machine();
    machine.start(false).await.unwrap();
    setup.fake.save_fails.store(true, Ordering::SeqCst);
    let error = machine.suspend().await.unwrap_err();
    let expected = "the machine cannot sleep: the guest was not saved: the guest cannot be saved: No space left on device";
    assert_eq!(error.to_string(), expected);
    assert_eq!((machine.snapshot().phase, setup.fake.stops()), (Phase::Running, 0));
    drop(machine.lease().await.unwrap());
    machine.suspend().await.unwrap();
    assert_eq!(machine.snapshot().phase, Phase::Asleep);
}

#[tokio::test]
async fn a_guest_that_does_not_wake_is_booted_and_the_user_may_know_why() {
    let setup = Setup::new();
    let machine = setup.machine();
    machine.start(false).await.unwrap();
    machine.suspend().await.unwrap();
    setup.fake.wake_fails.store(true, Ordering::SeqCst);
    drop(machine.lease().await.unwrap());
    assert_eq!((setup.fake.starts(), setup.wakes(), machine.saved()), (2, 0, None));
    let note = machine.snapshot().wake_note.unwrap();
    assert!(note.ends_with("the weather is not the same as when the guest was saved"), "{note}");
    assert!(!machine.snapshot().woken);

    machine.suspend().await.unwrap();
    std::fs::write(setup.paths().disk(), b"another").unwrap();
    drop(machine.lease().await.unwrap());
    assert_eq!((setup.fake.starts(), setup.wakes()), (3, 0));
    assert!(machine.snapshot().wake_note.unwrap().contains("the disk is another one"));
}

#[tokio::test]
async fn a_stop_throws_a_sleeping_guest_away_and_the_daemons_end_does_not() {
    let setup = Setup::new();
    let machine = setup.machine();
    machine.start(false).await.unwrap();
    machine.suspend().await.unwrap();
    machine.rest().await.unwrap();
    assert_eq!(machine.snapshot().phase, Phase::Asleep);
    drop(machine);

    let machine = setup.machine();
    reaches(&machine, Phase::Asleep).await;
    drop(machine.lease().await.unwrap());
    assert_eq!((setup.fake.starts(), setup.wakes()), (1, 1));
    machine.suspend().await.unwrap();
    machine.stop().await.unwrap();
    assert_eq!((machine.snapshot().phase, machine.saved()), (Phase::Stopped, None));
    drop(machine.lease().await.unwrap());
    assert_eq!((setup.fake.starts(), setup.wakes()), (2, 1));

    // Also one that is only falling asleep.
    *setup.fake.save.lock().unwrap() = Duration::from_millis(100);
    let sleeper = machine.clone();
    let suspend = tokio::spawn(async move { sleeper.suspend().await });
    reaches(&machine, Phase::Suspending).await;
    machine.stop().await.unwrap();
    suspend.await.unwrap().unwrap();
    assert_eq!((machine.snapshot().phase, machine.saved()), (Phase::Stopped, None));
}

#[tokio::test]
async fn an_idle_guest_sleeps_also_with_paused_containers_but_not_with_connections() {
    let setup = Setup::new();
    let mut settings = Settings::default();
    settings.daemon.idle_stop_seconds = Some(1);
    settings.daemon.idle = IdleAction::Sleep;
    settings.save(&setup.paths().settings()).unwrap();
    setup.fake.containers.store(2, Ordering::SeqCst);
    setup.fake.paused.store(2, Ordering::SeqCst);
    let busy = Arc::new(std::sync::atomic::AtomicU64::new(1));
    let mut options = Options::new(setup.paths(), Arc::new(|_, _| {}));
    let counted = Arc::clone(&busy);
    options.busy = Arc::new(move || counted.load(Ordering::SeqCst));
    let machine = Machine::spawn(options, setup.fake.selected());
    machine.start(false).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(machine.snapshot().phase, Phase::Running, "a connection keeps it awake");
    busy.store(0, Ordering::SeqCst);
    reaches(&machine, Phase::Asleep).await;
    assert!(machine.saved().is_some());
}

#[tokio::test]
async fn a_guest_whose_daemon_died_in_saving_goes_on_or_sleeps_if_it_was_saved() {
    let setup = Setup::new();
    let machine = setup.machine();
    machine.start(false).await.unwrap();
    let halted = setup.fake.running.lock().unwrap().clone().unwrap();
    halted.halt();
    drop(machine);
    let machine = setup.machine();
    reaches(&machine, Phase::Running).await;
    assert_eq!((setup.fake.starts(), setup.fake.stops()), (1, 0));

    machine.suspend().await.unwrap();
    drop(machine);
    halted.halt();
    *setup.fake.running.lock().unwrap() = Some(halted);
    let machine = setup.machine();
    reaches(&machine, Phase::Asleep).await;
    assert_eq!(setup.fake.stops(), 2, "its process is of no use any more");
    drop(machine.lease().await.unwrap());
    assert_eq!(setup.wakes(), 1);
}
