//! A guest that starts from a template, played with a fake one over a real link.

mod fake;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use fake::Fake;
use skiff_machine::{Machine, Options, Phase, SavedInfo, vm::ExitReason};
use skiff_settings::{Paths, Settings};

struct Setup {
    directory: tempfile::TempDir,
    fake: Arc<Fake>,
}

impl Setup {
    fn new() -> Self {
        let setup = Self { directory: tempfile::tempdir().unwrap(), fake: Fake::new() };
        setup.fake.is_template.store(true, Ordering::SeqCst);
        std::fs::write(setup.paths().disk(), b"disk").unwrap();
        setup
    }

    fn paths(&self) -> Paths {
        let paths = Paths::discover_with(Some(self.directory.path()), |_| None).unwrap();
        paths.prepare().unwrap();
        paths
    }

    fn machine(&self) -> Machine {
        let mut options = Options::new(self.paths(), Arc::new(|_, _| {}));
        options.template_deadline = Duration::from_secs(1);
        Machine::spawn(options, self.fake.selected())
    }

    /// Boots, those that began with the template, and wakes.
    fn counts(&self) -> (u64, u64, u64) {
        let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::SeqCst);
        (self.fake.starts(), of(&self.fake.templated), of(&self.fake.wakes))
    }
}

/// It is kept behind everybody's back.
async fn kept(machine: &Machine) -> SavedInfo {
    for _ in 0..1000 {
        if let Some(info) = machine.template() {
            return info;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no template is kept");
}

async fn again(machine: &Machine) {
    machine.stop().await.unwrap();
    machine.start(false).await.unwrap();
}

#[tokio::test]
async fn the_first_boot_makes_a_template_and_every_later_start_begins_with_it() {
    let setup = Setup::new();
    let machine = setup.machine();
    machine.start(false).await.unwrap();
    assert_eq!(setup.counts(), (1, 0, 0));
    assert!(!machine.snapshot().templated && machine.snapshot().template_note.is_none());
    let ops = setup.fake.ops();
    let at = |op: &str| ops.iter().position(|known| known == op).unwrap();
    assert!(at("template") < at("wake"), "{ops:?}");
    assert!(kept(&machine).await.bytes > 0);
    for round in 1..4 {
        again(&machine).await;
        assert_eq!(setup.counts(), (1, round, 0));
        assert!(machine.snapshot().templated && !machine.snapshot().woken);
        assert!(machine.template().is_some(), "it is good any number of times");
    }
    // A guest that sleeps is woken, not started anew.
    machine.suspend().await.unwrap();
    machine.start(false).await.unwrap();
    assert_eq!(setup.counts(), (1, 3, 1));
    machine.stop().await.unwrap();
    machine.start(true).await.unwrap();
    assert_eq!(setup.counts(), (2, 3, 1), "an accelerator that is tried again needs a boot");
}

#[tokio::test]
async fn a_template_that_is_unwanted_or_pruned_is_not_begun_with() {
    let setup = Setup::new();
    let machine = setup.machine();
    machine.start(false).await.unwrap();
    kept(&machine).await;
    machine.prune().await.unwrap();
    assert_eq!(machine.template(), None);
    again(&machine).await;
    assert_eq!(setup.counts(), (2, 0, 0));
    kept(&machine).await;

    let mut settings = Settings::default();
    settings.machine.template = false;
    settings.save(&setup.paths().settings()).unwrap();
    again(&machine).await;
    assert_eq!((setup.counts(), machine.template()), ((3, 0, 0), None));
    again(&machine).await;
    assert_eq!((setup.counts(), machine.template()), ((4, 0, 0), None));
}

#[tokio::test]
async fn a_guest_that_does_not_come_up_from_the_template_is_booted_and_the_status_says_why() {
    let setup = Setup::new();
    let machine = setup.machine();
    machine.start(false).await.unwrap();
    kept(&machine).await;
    // Another guest than this: no failure, and a new template at once.
    machine.stop().await.unwrap();
    setup.fake.wake_fails.store(true, Ordering::SeqCst);
    machine.start(false).await.unwrap();
    assert_eq!((setup.counts(), machine.snapshot().template_note), ((2, 0, 0), None));
    kept(&machine).await;

    let ram = setup.paths().template_dir().join("ram");
    std::fs::write(&ram, b"damaged").unwrap();
    again(&machine).await;
    assert_eq!(setup.counts(), (3, 0, 0));
    assert!(machine.snapshot().template_note.unwrap().contains("its memory is another one"));
    kept(&machine).await;

    // One that never speaks is given up, twice; then none is made for a while.
    setup.fake.template_is_mute.store(true, Ordering::SeqCst);
    for round in 1..=2 {
        again(&machine).await;
        assert_eq!(setup.counts(), (3 + round, round, 0));
        let note = machine.snapshot().template_note.unwrap();
        assert!(note.contains("did not answer"), "{note}");
        if round == 1 {
            kept(&machine).await;
        }
    }
    again(&machine).await;
    assert_eq!((setup.counts(), machine.template()), ((6, 2, 0), None));
    assert!(machine.snapshot().template_note.unwrap().contains("tomorrow"));
}

#[tokio::test]
async fn a_guest_that_cannot_become_a_template_boots_all_the_same() {
    let setup = Setup::new();
    let machine = setup.machine();
    setup.fake.save_fails.store(true, Ordering::SeqCst);
    machine.start(false).await.unwrap();
    assert_eq!((setup.counts(), machine.template()), ((1, 0, 0), None));
    setup.fake.is_template.store(false, Ordering::SeqCst);
    again(&machine).await;
    assert_eq!((setup.counts(), machine.template()), ((2, 0, 0), None));
    setup.fake.kill(ExitReason::Died);
    let mut watch = machine.watch();
    watch.wait_for(|snapshot| snapshot.phase == Phase::Failed).await.unwrap();
}
