//! Bringing a guest up, and down again, step by step; the machine's task runs these beside itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use skiff_link::Link;
use skiff_settings::Settings;
use skiff_vm::{Guest, GuestConfig};
use tokio::sync::{broadcast, watch};

use crate::{
    Error, Options, Progress,
    backend::{Selected, chain},
    control::{self, Hello},
    disk,
    handle::Snapshot,
    host_memory_mib,
    saved::Store,
    session::Sessions,
    sleep,
    template::{self, Missed, Templates},
};

/// A guest that is up.
pub(crate) struct Booted {
    pub(crate) guest: Arc<dyn Guest>,
    pub(crate) sessions: Sessions,
    pub(crate) link: Link,
    pub(crate) hello: Hello,
    pub(crate) took: Duration,
    /// Whether it was asleep before.
    pub(crate) woken: bool,
    /// Why one that was asleep was not woken.
    pub(crate) wake_note: Option<String>,
    /// Whether it began with the template.
    pub(crate) templated: bool,
    /// Why it did not, where there is something to tell.
    pub(crate) template_note: Option<String>,
}

/// What a daemon that starts finds.
pub(crate) enum Found {
    Nothing,
    Asleep,
    Running(Box<Booted>),
}

/// Tells everybody who watches how far a start or stop is.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) progress: broadcast::Sender<Progress>,
    pub(crate) snapshot: watch::Sender<Snapshot>,
    pub(crate) began: Instant,
}

impl Reporter {
    pub(crate) fn step(&self, step: impl Into<String>) {
        let progress = Progress { step: step.into(), elapsed: self.began.elapsed() };
        tracing::info!(op = %progress.step, elapsed_ms = progress.elapsed.as_millis() as u64, "step");
        self.snapshot.send_modify(|snapshot| snapshot.progress = Some(progress.clone()));
        // Nobody watching is fine.
        let _ = self.progress.send(progress);
    }
}

/// Tells a start that nobody wants it any more.
#[derive(Clone)]
pub(crate) struct Cancel(pub(crate) watch::Receiver<bool>);

impl Cancel {
    pub(crate) async fn called_off(&mut self) {
        if self.0.wait_for(|off| *off).await.is_err() {
            // The machine's task is gone without a word: the guest stays for the next one.
            std::future::pending::<()>().await;
        }
    }
}

/// Looks for a guest that still runs; ends those of other backends.
pub(crate) async fn adopt(
    options: &Options,
    selected: &Selected,
    cancel: Cancel,
    reporter: &Reporter,
) -> Result<Found, Error> {
    for other in &selected.others {
        if let Some(guest) = other.adopt().await.map_err(Error::Stop)? {
            reporter.step(format!("ending the guest of the {} backend", other.name()));
            guest.stop(options.shutdown_grace).await.map_err(Error::Stop)?;
        }
    }
    let store = Store::new(&options.paths);
    store.discard_staged();
    let is_saved = selected.backend.cannot_save().is_none() && matches!(store.find(), Ok(Some(_)));
    let Some(guest) = selected.backend.adopt().await.map_err(Error::Stop)? else {
        return Ok(if is_saved { Found::Asleep } else { Found::Nothing });
    };
    let guest: Arc<dyn Guest> = Arc::from(guest);
    if guest.is_halted() && is_saved {
        // Its daemon died between the save and the end of the process.
        guest.stop(Duration::from_secs(3)).await.map_err(Error::Stop)?;
        return Ok(Found::Asleep);
    }
    // The disk is in use: whatever is saved is of an earlier time.
    store.advance()?;
    if guest.is_halted() {
        reporter.step("found the guest half saved, it goes on");
        if let Err(error) = guest.resume().await {
            tracing::warn!(%error, "half-saved guest does not go on");
            guest.stop(Duration::from_secs(3)).await.map_err(Error::Stop)?;
            return Ok(Found::Nothing);
        }
    } else {
        reporter.step("found the guest running");
    }
    up(options, guest, cancel, reporter).await.map(|booted| Found::Running(Box::new(booted)))
}

/// Wakes the guest if one is asleep, else starts one from the template, else boots one.
pub(crate) async fn start(
    options: &Options,
    selected: &Selected,
    retry_accelerator: bool,
    mut cancel: Cancel,
    reporter: &Reporter,
) -> Result<Booted, Error> {
    let mut wake_note = None;
    if selected.backend.cannot_save().is_none() {
        match sleep::wake(options, selected, cancel.clone(), reporter).await {
            Ok(Some(booted)) => return Ok(booted),
            Ok(None) => {}
            Err(error @ (Error::CalledOff | Error::Stop(_))) => return Err(error),
            // A boot would do no better, and the saved guest may still be good.
            Err(
                error @ Error::Wake(skiff_vm::Error::ProgramMissing { .. } | skiff_vm::Error::Spawn { .. }),
            ) => return Err(error),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the sleeping guest does not wake, it is booted");
                wake_note = Some(chain(&error));
            }
        }
    }
    let (config, wants_template) =
        prepare(options, selected, retry_accelerator, Disk::Grow, reporter).await?;
    let wants_template = wants_template && selected.backend.cannot_save().is_none();
    let mut template_note = None;
    if !wants_template {
        Templates::new(&options.paths).drop_useless();
    } else if !retry_accelerator {
        match template::start(options, selected, &config, cancel.clone(), reporter).await {
            Ok(booted) => return Ok(Booted { wake_note, ..booted }),
            Err(Missed::None(note)) => template_note = note,
            Err(Missed::Failed(error)) => return Err(error),
        }
    }
    // From here on, nothing that was saved is good for the disk.
    Store::new(&options.paths).advance()?;
    let progress = |step: skiff_vm::Step| reporter.step(step.to_string());
    // A backend ends what it has begun when it is dropped.
    let guest: Arc<dyn Guest> = tokio::select! {
        guest = selected.backend.start(&config, &progress) => Arc::from(guest.map_err(Error::Start)?),
        () = cancel.called_off() => return Err(Error::CalledOff),
    };
    let mut made = None;
    if wants_template {
        match template::make(options, &guest, cancel.clone(), reporter).await {
            Ok(template) => made = template,
            Err(error) => {
                guest.stop(Duration::from_secs(3)).await.map_err(Error::Stop)?;
                return Err(error);
            }
        }
    }
    let booted = up(options, guest, cancel, reporter).await?;
    if let Some(made) = made {
        made.keep(booted.took);
    }
    Ok(Booted { wake_note, template_note, ..booted })
}

/// What a guest is restored from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restored {
    Sleep,
    Template,
}

impl Restored {
    fn failed(self, source: skiff_vm::Error) -> Error {
        match self {
            Self::Sleep => Error::Wake(source),
            Self::Template => Error::Template(source),
        }
    }
}

/// Restores a guest and lets it go on with the disk. After a failure nothing is left of it.
pub(crate) async fn restored(
    options: &Options,
    selected: &Selected,
    config: &GuestConfig,
    from: Restored,
    mut cancel: Cancel,
    reporter: &Reporter,
) -> Result<Booted, Error> {
    let progress = |step: skiff_vm::Step| reporter.step(step.to_string());
    let guest: Arc<dyn Guest> = tokio::select! {
        guest = selected.backend.start(config, &progress) => Arc::from(guest.map_err(|error| from.failed(error))?),
        // What was saved stays: whoever called it off decides about it.
        () = cancel.called_off() => return Err(Error::CalledOff),
    };
    reporter.step("loaded");
    // Before its first instruction, so that there is no second guest with this memory or disk, whatever happens.
    let resumed = match Store::new(&options.paths).advance() {
        Ok(()) => guest.resume().await.map_err(|error| from.failed(error)),
        Err(error) => Err(error),
    };
    if let Err(error) = resumed {
        guest.stop(Duration::from_secs(3)).await.map_err(Error::Stop)?;
        return Err(error);
    }
    reporter.step("awake");
    up(options, guest, cancel, reporter).await
}

/// Whether the disk may be made or grown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    Grow,
    Keep,
}

/// Checks the image, makes the disk, and says what the guest is made of, and whether a template is wanted.
pub(crate) async fn prepare(
    options: &Options,
    selected: &Selected,
    retry_accelerator: bool,
    disk: Disk,
    reporter: &Reporter,
) -> Result<(GuestConfig, bool), Error> {
    let paths = options.paths.clone();
    let can_save = selected.backend.cannot_save().is_none();
    let image = selected.image.clone();
    let mirrors = options.registry_mirrors.clone();
    reporter.step("preparing");
    let work = move || -> Result<(GuestConfig, bool), Error> {
        let settings = Settings::load(&paths.settings())?;
        let mut registry_mirrors = mirrors;
        registry_mirrors.extend(settings.registry_mirrors.iter().cloned());
        let mut config = GuestConfig {
            name: "skiff".to_owned(),
            kernel: Default::default(),
            initramfs: Default::default(),
            cmdline: String::new(),
            disk: paths.disk(),
            cpus: settings.machine.cpus,
            memory_mib: settings.machine.memory_mib_for(host_memory_mib()),
            registry_mirrors,
            address_pools: settings.default_address_pools.iter().map(ToString::to_string).collect(),
            publish_ip: settings.publish_default_ip,
            environment: settings
                .network
                .proxy
                .variables()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            retry_accelerator,
            image_id: String::new(),
            restore: None,
        };
        if let Some(image) = image {
            let memory = paths.machine_dir().join("image.json");
            config.kernel = image.kernel(&memory)?;
            config.initramfs = image.initramfs(&memory)?;
            config.cmdline = image.cmdline().to_owned();
            config.image_id = image.boot_id();
            for pool in &config.address_pools {
                config.cmdline.push_str(&format!(" skiff.address-pool={pool}"));
            }
            if !settings.publish_default_ip.is_unspecified() {
                config.cmdline.push_str(&format!(" skiff.publish-ip={}", settings.publish_default_ip));
            }
            // Whether it is wanted or not: a guest that sleeps would not wake with another command line.
            if can_save {
                config.cmdline.push_str(" skiff.hold");
            }
            let template = || Ok(image.disk_template(&memory)?);
            if disk == Disk::Keep {
                return Ok((config, false));
            }
            disk::prepare(&paths.disk(), template, settings.machine.disk_gib)?;
        }
        Ok((config, settings.machine.template))
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// From a living guest to one that is linked and greeted; a guest that does not get there is ended.
pub(crate) async fn up(
    options: &Options,
    guest: Arc<dyn Guest>,
    mut cancel: Cancel,
    reporter: &Reporter,
) -> Result<Booted, Error> {
    let greet = async {
        let transport = guest.open_transport().await.map_err(Error::Start)?;
        let mut sessions = Sessions::new(transport);
        let link = sessions.next().await?;
        tracing::debug!(elapsed_ms = reporter.began.elapsed().as_millis() as u64, "linked");
        let hello = greet(&link, &options.authorized_keys)
            .await
            .map_err(|reason| Error::Held { reason, console: guest.console_tail() })?;
        Ok::<_, Error>((sessions, link, hello))
    };
    let result = tokio::select! {
        result = greet => result,
        exit = guest.wait() => Err(Error::Ended { exit }),
        () = cancel.called_off() => Err(Error::CalledOff),
        () = tokio::time::sleep(options.agent_deadline) => {
            Err(Error::NoAgent { after: options.agent_deadline, console: guest.console_tail() })
        }
    };
    match result {
        Ok((sessions, link, hello)) => {
            let took = reporter.began.elapsed();
            reporter.step("ready");
            Ok(Booted {
                guest,
                sessions,
                link,
                hello,
                took,
                woken: false,
                wake_note: None,
                templated: false,
                template_note: None,
            })
        }
        Err(error) => {
            guest.stop(Duration::from_secs(3)).await.map_err(Error::Stop)?;
            Err(error)
        }
    }
}

/// Tells a new session what a guest must know: the time, something random, and who may log in. One that slept goes on, and
/// one that stands before its disk opens it; if it does not, its reason is returned.
///
/// Nothing else keeps the engine from working, so failures are told and no more.
pub(crate) async fn greet(link: &Link, keys: &[String]) -> Result<Hello, String> {
    let warn = |op: &'static str, error: &control::Error| tracing::warn!(op, %error, "guest does not do it");
    let mut client = match control::Client::open(link).await {
        Ok(client) => client,
        Err(error) => {
            warn("control", &error);
            return Ok(Hello::default());
        }
    };
    let woken = client.wake().await;
    if let Err(error) = &woken {
        warn("wake", error);
        // An agent of an older version.
        if let (control::Error::Refused { .. }, Err(error)) = (error, client.set_time().await) {
            warn("time", &error);
        }
    }
    for key in keys {
        if let Err(error) = client.authorize(key).await {
            warn("authorize", &error);
        }
    }
    match (client.hello().await, woken) {
        (Ok(Hello { held: true, .. }), Err(error)) => Err(error.to_string()),
        (Ok(hello), _) => Ok(hello),
        (Err(error), _) => {
            warn("hello", &error);
            Ok(Hello::default())
        }
    }
}

/// Ends a guest: by its own shutdown where it has a kernel of its own, else by its process; nothing is left.
pub(crate) async fn stop(
    options: &Options,
    guest: &Arc<dyn Guest>,
    link: Option<&Link>,
    reporter: &Reporter,
) -> Result<(), Error> {
    reporter.step("stopping");
    if guest.description().accelerator.is_none() {
        return guest.stop(options.shutdown_grace).await.map_err(Error::Stop);
    }
    if let Some(link) = link {
        let ask = async { control::Client::open(link).await?.shutdown().await };
        match tokio::time::timeout(Duration::from_secs(5), ask).await {
            // A guest that is quick hangs up instead of answering.
            Ok(Ok(()) | Err(control::Error::HungUp | control::Error::Io(_))) => {
                if tokio::time::timeout(options.shutdown_grace, guest.wait()).await.is_err() {
                    tracing::warn!("guest does not shut down, ending it");
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "guest does not take the shutdown, ending it"),
            Err(_) => tracing::warn!("guest does not answer, ending it"),
        }
    }
    guest.stop(Duration::from_secs(3)).await.map_err(Error::Stop)
}
