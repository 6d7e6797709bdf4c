//! To sleep and back, step by step; the machine's task runs these beside itself.
//!
//! | step | a crash after it leaves |
//! |---|---|
//! | containers stand still, the guest's disk is written | a guest that runs; its containers go on by themselves |
//! | the link is closed, the guest halted, its memory written | a halted guest; the next daemon lets it go on |
//! | the state is committed | a state, and a halted process that the next daemon ends |
//! | the process ends | the state |
//! | **wake:** a new process reads the state, and touches nothing | the state |
//! | the state is thrown away | nothing: the disk is as after a power cut, and is booted |
//! | the guest goes on, and is linked | a guest that runs |

use std::{sync::Arc, time::Duration};

use skiff_link::Link;
use skiff_vm::Guest;

use crate::{
    Error, Options,
    backend::{Selected, chain},
    boot::{self, Booted, Cancel, Disk, Reporter, Restored},
    control,
    saved::Store,
};

/// How long the process of a guest that is saved may take to end.
const QUIT: Duration = Duration::from_secs(3);

/// How an attempt to save ended.
pub(crate) enum Outcome {
    /// It is saved, and its process has ended.
    Asleep,
    /// It could not be saved and runs on.
    RunsOn(Box<Booted>, Error),
    /// It could not be saved, and is gone.
    Lost(Error),
}

/// Saves a guest and ends its process.
pub(crate) async fn suspend(
    options: &Options,
    guest: Arc<dyn Guest>,
    link: Link,
    cancel: Cancel,
    reporter: &Reporter,
) -> Outcome {
    reporter.step("going to sleep");
    let store = Store::new(&options.paths);
    // A guest that is not prepared is saved all the same: it only takes more space, and its programs run a little earlier
    // than the clock is right.
    let prepare = async { control::Client::open(&link).await?.sleep().await };
    if let Err(error) = prepare.await {
        tracing::warn!(%error, "guest is not prepared for sleep");
    }
    link.close();
    link.closed().await;
    drop(link);
    match save(&store, &guest, reporter).await {
        Ok(()) => match guest.stop(QUIT).await {
            Ok(()) => Outcome::Asleep,
            // Two processes with one disk would be the end of it.
            Err(error) => match store.discard() {
                Ok(()) => Outcome::Lost(Error::Stop(error)),
                Err(error) => Outcome::Lost(error),
            },
        },
        Err(error) => go_on(options, &store, guest, cancel, reporter, error).await,
    }
}

async fn save(store: &Store, guest: &Arc<dyn Guest>, reporter: &Reporter) -> Result<(), Error> {
    let path = store.stage()?;
    reporter.step("saving");
    let key = guest.save(&path).await.map_err(Error::Save)?;
    let store = store.clone();
    match tokio::task::spawn_blocking(move || store.commit(key)).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Lets a guest that could not be saved go on.
async fn go_on(
    options: &Options,
    store: &Store,
    guest: Arc<dyn Guest>,
    cancel: Cancel,
    reporter: &Reporter,
    error: Error,
) -> Outcome {
    tracing::warn!(error = %chain(&error), "guest is not saved");
    store.discard_staged();
    // It is about to write to the disk.
    let resumed = match store.advance() {
        Ok(()) if guest.is_halted() => guest.resume().await.map_err(Error::Save),
        other => other,
    };
    if let Err(worse) = resumed {
        tracing::error!(error = %chain(&worse), "guest that could not be saved does not go on");
        return match guest.stop(QUIT).await {
            Ok(()) => Outcome::Lost(error),
            Err(error) => Outcome::Lost(Error::Stop(error)),
        };
    }
    match boot::up(options, guest, cancel, reporter).await {
        Ok(booted) => Outcome::RunsOn(Box::new(booted), error),
        Err(error) => Outcome::Lost(error),
    }
}

/// Wakes the guest that is asleep; nothing if there is none.
///
/// After a failure there is none either, and nothing is left of it.
pub(crate) async fn wake(
    options: &Options,
    selected: &Selected,
    cancel: Cancel,
    reporter: &Reporter,
) -> Result<Option<Booted>, Error> {
    let store = Store::new(&options.paths);
    let restore = match store.find() {
        Ok(Some(restore)) => restore,
        Ok(None) => return Ok(None),
        Err(reason) => return Err(Error::NotWoken { reason }),
    };
    let (mut config, _) = boot::prepare(options, selected, false, Disk::Keep, reporter).await?;
    config.restore = Some(restore);
    let options = Options { agent_deadline: options.wake_deadline, ..options.clone() };
    let booted = boot::restored(&options, selected, &config, Restored::Sleep, cancel, reporter).await?;
    Ok(Some(Booted { woken: true, ..booted }))
}
