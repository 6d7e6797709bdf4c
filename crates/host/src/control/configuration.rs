//! Settings over the control socket: what is written, and what of it is true already.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use skiff_machine::{DiskSize, Machine, Phase, host_memory_mib};
use skiff_proxy::Proxies;
use skiff_settings::{Effect, Files, Machine as MachineSettings, Paths, Settings};

use super::{Configuration, Failure};

/// The settings that are true now.
pub(crate) struct InForce {
    paths: Paths,
    /// Those that the daemon began with.
    daemon: Settings,
    /// Those that the guest began with.
    guest: Arc<Mutex<Settings>>,
    machine: Machine,
    is_virtual: bool,
}

impl InForce {
    /// Follows the guest: it reads the settings with each start.
    pub fn new(machine: &Machine, paths: &Paths, settings: Settings, is_virtual: bool) -> Self {
        let guest = Arc::new(Mutex::new(settings.clone()));
        let (read, file, mut changes) = (Arc::clone(&guest), paths.settings(), machine.watch());
        tokio::spawn(async move {
            let mut before = Phase::Stopped;
            while changes.changed().await.is_ok() {
                let phase = changes.borrow_and_update().phase;
                let begins = phase == Phase::Starting || phase == Phase::Running && before != Phase::Starting;
                if begins
                    && before != phase
                    && let Ok(settings) = Settings::load(&file)
                {
                    *read.lock().unwrap_or_else(PoisonError::into_inner) = settings;
                }
                before = phase;
            }
        });
        Self { paths: paths.clone(), daemon: settings, guest, machine: machine.clone(), is_virtual }
    }

    /// Tells what is written, and what of it is not true yet.
    pub fn configuration(&self) -> Result<Configuration, Failure> {
        let file = self.paths.settings();
        let settings = Settings::load(&file).map_err(|error| Failure::new(&error))?;
        let guest = self.guest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let phase = self.machine.snapshot().phase;
        // The next start of a guest that is off reads them; one that sleeps goes on with what it has.
        let lives = !matches!(phase, Phase::Stopped | Phase::Failed);
        let usual = Files::default().shares_for(std::env::home_dir().as_deref());
        let from_env = Proxies::from_env();
        let named = from_env.variables();
        let environment: HashMap<String, String> =
            [("HTTP_PROXY", &named.http), ("HTTPS_PROXY", &named.https), ("NO_PROXY", &named.no)]
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (name.to_owned(), value.clone()))
                .collect();
        Ok(Configuration {
            guest_pending: lives && settings.pending(&guest, Effect::Guest),
            daemon_pending: settings.pending(&self.daemon, Effect::Daemon),
            settings,
            file,
            effects: Settings::effects().into_iter().collect(),
            host_cpus: std::thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
            host_memory_mib: host_memory_mib(),
            usual_memory_mib: MachineSettings::default().memory_mib_for(host_memory_mib()),
            usual_shares: usual.into_iter().map(|(path, _)| path).collect(),
            environment,
        })
    }

    /// Writes other settings, when they make sense here.
    pub fn configure(&self, settings: &Settings) -> Result<Configuration, Failure> {
        let disk = DiskSize::of(&self.paths.disk()).filter(|_| self.is_virtual);
        if let Some(disk) = disk
            && settings.machine.disk_gib.saturating_mul(1 << 30) < disk.length
        {
            return Err(Failure {
                message: format!(
                    "the disk has {} GiB and can't become smaller",
                    disk.length.div_ceil(1 << 30)
                ),
                hint: Some("free space inside it is given back to this computer all the same".to_owned()),
                detail: None,
            });
        }
        settings.save(&self.paths.settings()).map_err(|error| Failure::new(&error))?;
        tracing::info!("settings are changed");
        self.configuration()
    }
}
