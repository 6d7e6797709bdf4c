//! The template: a guest that stands before its data disk, and where later starts begin.
//!
//! ```text
//! machine/template/ram.new     being written, of no use
//! machine/template/ram         the guest's memory and devices
//! machine/template/state.json  what it depends on; with this file the template exists
//! machine/template/failed.json how often guests did not come up from one lately
//! ```
//!
//! It is made in a boot that has none: the guest stands still for the moment it takes to write its memory, and goes on.
//! It has never seen the disk, so it is good for any state of that, any number of times. What differs costs a boot; so does
//! what fails, and twice is enough for a day.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use skiff_settings::Paths;
use skiff_vm::{Guest, GuestConfig, Key, Restore};

use crate::{
    Error, Options, SavedInfo,
    backend::{Selected, chain},
    boot::{self, Booted, Cancel, Reporter, Restored},
    control,
    kept::{self, FileIdentity, failed},
    session::Sessions,
};

/// Changes with what the files mean.
const FORMAT: u32 = 1;
/// Failures after which no template is made.
const ENOUGH: u32 = 2;
/// For how long.
const A_DAY: Duration = Duration::from_secs(24 * 3600);
/// A guest that needs more times what its boot took does not come.
const PATIENCE: u32 = 4;

/// What is written beside the memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: u32,
    ram: FileIdentity,
    key: Key,
    /// How long the boot took that it was made in, in milliseconds.
    boot_ms: u64,
    /// When, in seconds since 1970.
    at: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Failures {
    times: u32,
    at: u64,
}

/// Where the template is kept.
#[derive(Debug, Clone)]
pub(crate) struct Templates {
    directory: PathBuf,
}

/// A template that may be begun with.
struct Found {
    restore: Restore,
    boot: Duration,
}

impl Templates {
    pub(crate) fn new(paths: &Paths) -> Self {
        Self { directory: paths.template_dir() }
    }

    fn find(&self) -> Result<Option<Found>, &'static str> {
        let state = match kept::read::<State>(&self.state()) {
            Ok(Some(state)) => state,
            Ok(None) => return Ok(None),
            Err(_) => return Err("its description cannot be read"),
        };
        if state.format != FORMAT {
            return Err("another version saved it");
        }
        if FileIdentity::of(&self.ram()).ok() != Some(state.ram) {
            return Err("its memory is another one, or was changed since");
        }
        let restore = Restore { path: self.ram(), key: state.key, template: true };
        Ok(Some(Found { restore, boot: Duration::from_millis(state.boot_ms) }))
    }

    /// What the template takes; this says nothing about whether it is good.
    pub(crate) fn info(&self) -> Option<SavedInfo> {
        SavedInfo::of(&self.ram(), kept::read::<State>(&self.state()).ok()??.at)
    }

    fn stage(&self) -> Result<PathBuf, Error> {
        kept::make_directory(&self.directory)?;
        Ok(self.staging())
    }

    /// Makes what was written the template.
    fn commit(&self, key: Key, boot: Duration) -> Result<(), Error> {
        let (staging, ram) = (self.staging(), self.ram());
        self.remove_state()?;
        kept::sync(&staging).map_err(failed("write", &staging))?;
        fs::rename(&staging, &ram).map_err(failed("write", &ram))?;
        let state = State {
            format: FORMAT,
            ram: FileIdentity::of(&ram).map_err(failed("read", &ram))?,
            key,
            boot_ms: u64::try_from(boot.as_millis()).unwrap_or(u64::MAX),
            at: kept::now(),
        };
        kept::write(&self.state(), &state).map_err(failed("write", &self.state()))
    }

    /// Throws the template away, and what was not finished of one.
    pub(crate) fn discard(&self) -> Result<(), Error> {
        self.remove_state()?;
        for path in [self.ram(), self.staging()] {
            kept::remove(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }

    /// The same where it costs nothing but space if it fails.
    pub(crate) fn drop_useless(&self) {
        if let Err(error) = self.discard() {
            tracing::warn!(error = %chain(&error), "template is left behind");
        }
    }

    fn remove_state(&self) -> Result<(), Error> {
        kept::remove(&self.state()).map_err(failed("remove", &self.state()))
    }

    /// Whether guests have not come up from templates too often lately.
    fn has_failed_enough(&self) -> bool {
        let failures = self.failures();
        failures.times >= ENOUGH && kept::now().saturating_sub(failures.at) < A_DAY.as_secs()
    }

    fn failures(&self) -> Failures {
        kept::read(&self.failed()).ok().flatten().unwrap_or_default()
    }

    /// A guest did not come up from the template: it is not tried again.
    fn count_failure(&self) {
        let failures = Failures { times: self.failures().times.saturating_add(1), at: kept::now() };
        if let Err(error) = kept::write(&self.failed(), &failures) {
            tracing::warn!(%error, "failure of the template is not remembered");
        }
        self.drop_useless();
    }

    fn forget_failures(&self) {
        if let Err(error) = kept::remove(&self.failed()) {
            tracing::warn!(%error, "failures of the template are not forgotten");
        }
    }

    fn staging(&self) -> PathBuf {
        self.directory.join("ram.new")
    }

    fn ram(&self) -> PathBuf {
        self.directory.join("ram")
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    fn failed(&self) -> PathBuf {
        self.directory.join("failed.json")
    }
}

/// How a start from the template ended, if not with a guest.
pub(crate) enum Missed {
    /// There is none that is good for this guest; why, where the user may want to know.
    None(Option<String>),
    /// Nor would a boot do.
    Failed(Error),
}

/// Starts a guest from the template.
pub(crate) async fn start(
    options: &Options,
    selected: &Selected,
    config: &GuestConfig,
    cancel: Cancel,
    reporter: &Reporter,
) -> Result<Booted, Missed> {
    let templates = Templates::new(&options.paths);
    let found = match templates.find() {
        Ok(Some(found)) => found,
        Ok(None) if templates.has_failed_enough() => {
            return Err(Missed::None(Some(
                "guests did not come up from it, it is made again tomorrow".to_owned(),
            )));
        }
        Ok(None) => return Err(Missed::None(None)),
        Err(reason) => {
            templates.drop_useless();
            return Err(Missed::None(Some(reason.to_owned())));
        }
    };
    let config = GuestConfig { restore: Some(found.restore), ..config.clone() };
    let agent_deadline = options.template_deadline.max(found.boot.saturating_mul(PATIENCE));
    let options = Options { agent_deadline, ..options.clone() };
    match boot::restored(&options, selected, &config, Restored::Template, cancel, reporter).await {
        Ok(booted) => {
            templates.forget_failures();
            Ok(Booted { templated: true, ..booted })
        }
        Err(error @ (Error::CalledOff | Error::Stop(_))) => Err(Missed::Failed(error)),
        // A boot finds out whether it does better; the template is not to blame.
        Err(Error::Template(skiff_vm::Error::ProgramMissing { .. } | skiff_vm::Error::Spawn { .. })) => {
            Err(Missed::None(None))
        }
        Err(Error::Template(skiff_vm::Error::Changed { what })) => {
            tracing::info!(error = what, "template is of another guest");
            templates.drop_useless();
            Err(Missed::None(None))
        }
        Err(error) => {
            tracing::warn!(error = %chain(&error), "guest does not come up from the template, it is booted");
            templates.count_failure();
            Err(Missed::None(Some(chain(&error))))
        }
    }
}

/// A template whose memory is written, but not to stable storage.
pub(crate) struct Made {
    templates: Templates,
    key: Key,
    took: Duration,
}

/// Makes a template of a guest that has just booted and stands before its disk. The guest goes on, whether this succeeds
/// or not.
pub(crate) async fn make(
    options: &Options,
    guest: &Arc<dyn Guest>,
    mut cancel: Cancel,
    reporter: &Reporter,
) -> Result<Option<Made>, Error> {
    let templates = Templates::new(&options.paths);
    if templates.has_failed_enough() {
        return Ok(None);
    }
    let began = Instant::now();
    let work = async {
        let transport = guest.open_transport().await.map_err(Error::Template)?;
        let link = Sessions::new(transport).next().await?;
        let stands = async { control::Client::open(&link).await?.template().await };
        let stands = stands.await;
        link.close();
        link.closed().await;
        drop(link);
        if let Err(error) = stands {
            // An image of an older version.
            tracing::info!(%error, "guest is no template");
            return Ok(None);
        }
        reporter.step("keeping a template");
        let path = templates.stage()?;
        guest.save(&path).await.map(Some).map_err(Error::Template)
    };
    let result = tokio::select! {
        result = work => result,
        () = cancel.called_off() => Err(Error::CalledOff),
        // Whoever waits for it next has the guest's last words.
        exit = guest.wait() => Err(Error::Ended { exit }),
        () = tokio::time::sleep(options.agent_deadline) => {
            Err(Error::NoAgent { after: options.agent_deadline, console: guest.console_tail() })
        }
    };
    if guest.is_halted() && !matches!(result, Err(Error::CalledOff | Error::Ended { .. })) {
        guest.resume().await.map_err(Error::Template)?;
    }
    match result {
        Ok(Some(key)) => Ok(Some(Made { templates, key, took: began.elapsed() })),
        Ok(None) => Ok(None),
        Err(error @ (Error::CalledOff | Error::Ended { .. } | Error::NoAgent { .. })) => Err(error),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "no template is made");
            templates.drop_useless();
            Ok(None)
        }
    }
}

impl Made {
    /// Keeps it, behind everybody's back. The boot took so long, with the making.
    pub(crate) fn keep(self, boot: Duration) {
        tokio::task::spawn_blocking(move || {
            if let Err(error) = self.templates.commit(self.key, boot.saturating_sub(self.took)) {
                tracing::warn!(error = %chain(&error), "template is not kept");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use skiff_vm::{Accelerator, qemu::verdict::HostFacts};

    use super::*;

    struct Setup {
        _directory: tempfile::TempDir,
        templates: Templates,
    }

    impl Setup {
        fn made() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let paths = Paths::discover_with(Some(directory.path()), |_| None).unwrap();
            paths.prepare().unwrap();
            let setup = Self { templates: Templates::new(&paths), _directory: directory };
            fs::write(setup.templates.stage().unwrap(), b"memory").unwrap();
            let key = Key {
                accelerator: Accelerator::Tcg,
                host: HostFacts::default(),
                program: "qemu".to_owned(),
                image: "image".to_owned(),
                arguments: Vec::new(),
            };
            setup.templates.commit(key, Duration::from_secs(3)).unwrap();
            setup
        }
    }

    #[test]
    fn a_template_is_found_until_its_memory_or_description_changes() {
        let Setup { templates, .. } = &Setup::made();
        for _ in 0..2 {
            let found = templates.find().unwrap().unwrap();
            assert_eq!(fs::read(&found.restore.path).unwrap(), b"memory");
            assert!(found.restore.template && found.boot == Duration::from_secs(3));
        }
        assert!(templates.info().unwrap().bytes > 0);
        fs::write(templates.ram(), b"less").unwrap();
        assert_eq!(templates.find().err(), Some("its memory is another one, or was changed since"));
        for text in ["", "{", "{\"format\":1}", "[]"] {
            fs::write(templates.state(), text).unwrap();
            assert_eq!(templates.find().err(), Some("its description cannot be read"), "{text}");
        }
        templates.discard().unwrap();
        assert!(templates.find().unwrap().is_none() && templates.info().is_none());
        fs::write(templates.stage().unwrap(), b"mem").unwrap();
        assert!(templates.find().unwrap().is_none(), "it was not finished");
    }

    #[test]
    fn two_failures_are_enough_for_a_day() {
        let Setup { templates, .. } = &Setup::made();
        templates.count_failure();
        assert!(templates.find().unwrap().is_none() && !templates.has_failed_enough());
        templates.count_failure();
        assert!(templates.has_failed_enough());
        let yesterday = Failures { times: 9, at: kept::now() - A_DAY.as_secs() };
        kept::write(&templates.failed(), &yesterday).unwrap();
        assert!(!templates.has_failed_enough());
        templates.forget_failures();
        assert_eq!(templates.failures().times, 0);
    }
}
