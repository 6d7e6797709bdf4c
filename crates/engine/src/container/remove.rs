//! `remove` and `prune`.

use std::sync::Arc;

use bollard_stubs::models::ContainerPruneResponse;

use super::Container;
use super::create::remove_directory;
use super::stop::exited;
use crate::clock;
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result};
use crate::events::Kind;
use crate::filters::Filters;
use crate::options::RemoveContainer;
use crate::signals;
use crate::state::{MountKind, Op, Status, Table};
use crate::volumes::directory_size;

impl Engine {
    /// Removes a container.
    ///
    /// # Errors
    /// When it runs and `force` is not given.
    pub async fn remove_container(&self, id: &str, options: RemoveContainer) -> Result<()> {
        if options.link {
            let (engine, name) = (self.clone(), id.to_owned());
            return blocking(move || engine.remove_link(&name)).await;
        }
        let container = self.container(id)?;
        if !claim(&container) {
            return Err(Error::conflict(format!("removal of container {id} is already in progress")));
        }
        self.remove_claimed(&container, options).await
    }

    /// Removes a container that `--rm` asked for and that has ended, unless somebody else does.
    pub(super) async fn remove_ended(&self, container: &Arc<Container>) -> Result<()> {
        let mut changes = container.changes.subscribe();
        loop {
            // Who is at it may be refused, because the container still ran for him.
            let _ = changes.wait_for(|change| change.removed || !change.removing).await;
            if container.removed() {
                return Ok(());
            }
            if claim(container) {
                let options = RemoveContainer { force: true, volumes: true, link: false };
                return self.remove_claimed(container, options).await;
            }
        }
    }

    async fn remove_claimed(&self, container: &Arc<Container>, options: RemoveContainer) -> Result<()> {
        let result = self.remove(container, options).await;
        if result.is_err() {
            container.changes.send_modify(|change| change.removing = false);
        }
        result
    }

    async fn remove(&self, container: &Arc<Container>, options: RemoveContainer) -> Result<()> {
        let record = container.record();
        if record.state.is_running() || record.state.status == Status::Restarting {
            if !options.force {
                return Err(Error::conflict(refusal(&record.name, record.state.status)));
            }
            self.kill_for_removal(container).await?;
        }
        let engine = self.clone();
        let ours = Arc::clone(container);
        blocking(move || {
            let _operation = ours.operation.blocking_lock();
            engine.remove_blocking(&ours, options.volumes)
        })
        .await
    }

    async fn kill_for_removal(&self, container: &Arc<Container>) -> Result<()> {
        let exits = container.changes.borrow().exits;
        container.change(|record| record.stopped_by_user = true);
        if self.cancel_restart(container).await? {
            return Ok(());
        }
        self.thaw(container).await?;
        match self.signal(container, signals::KILL) {
            Err(error) if error.code != Code::Conflict => return Err(error),
            _ => {}
        }
        let patience = std::time::Duration::from_secs(10);
        if container.record().state.is_running() && !exited(container, exits, Some(patience)).await {
            return Err(Error::new(
                Code::Internal,
                format!(
                    "Could not kill running container {}, cannot remove - tried to kill container, but did not \
                         receive an exit event",
                    container.id
                ),
            ));
        }
        Ok(())
    }

    /// Removes: committed first, then gone for everybody, then the directories. Whatever a kill leaves of these,
    /// recovery sweeps.
    fn remove_blocking(&self, container: &Arc<Container>, volumes: bool) -> Result<()> {
        let record = container.record();
        if container.removed() {
            return Ok(());
        }
        if record.state.is_running() {
            return Err(Error::conflict(refusal(&record.name, record.state.status)));
        }
        self.0.database.commit([Op::delete(Table::Containers, &record.id)])?;
        self.0.registry.remove(&record.id, &record.name);
        // Gone for everybody by now; what is on the disk goes while nobody waits.
        let dir = self.0.config.container(&record.id);
        self.0.runtime.spawn_blocking(move || remove_directory(&dir));
        if volumes {
            let users = self.volume_users();
            for mount in
                record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume && mount.anonymous)
            {
                let name = mount.name.as_deref().unwrap_or("");
                if users.contains_key(name) {
                    continue;
                }
                match self.0.volumes.remove(name) {
                    Ok(()) => self.volume_event(name, "destroy", &[]),
                    Err(error) => tracing::warn!(%error, volume = name, "anonymous volume can't be removed"),
                }
            }
        }
        self.container_event(&record, "destroy", &[]);
        container.changes.send_modify(|change| {
            change.removed = true;
            // As dockerd: the removal has succeeded, whatever the last start said.
            change.error.clear();
            change.running = false;
        });
        Ok(())
    }

    /// Removes all containers that don't run.
    ///
    /// # Errors
    /// When a filter is not known.
    pub async fn prune_containers(&self, filters: Filters) -> Result<ContainerPruneResponse> {
        filters.check(&["label", "label!", "until"])?;
        let until = until(&filters)?;
        let (mut deleted, mut reclaimed) = (Vec::new(), 0);
        for container in self.0.registry.all() {
            let record = container.record();
            let labels = record.config.labels.as_ref();
            if container.changes.borrow().running
                || !filters.labels(labels)
                || !filters.not_labels(labels)
                || until.is_some_and(|until| record.created >= until)
            {
                continue;
            }
            let upper = self.0.config.container(&record.id).join("upper");
            let size = blocking(move || Ok(directory_size(&upper))).await?;
            match self.remove_container(&record.id, RemoveContainer::default()).await {
                Ok(()) => {
                    reclaimed += size;
                    deleted.push(record.id.clone());
                }
                Err(error) => tracing::debug!(%error, container = record.id, "not pruned"),
            }
        }
        let attributes = [("reclaimed".to_owned(), reclaimed.to_string())].into();
        self.0.events.publish(Kind::Container, "prune", "", attributes);
        Ok(ContainerPruneResponse {
            containers_deleted: Some(deleted),
            space_reclaimed: i64::try_from(reclaimed).ok(),
        })
    }
}

/// Makes the caller the one that removes a container.
fn claim(container: &Container) -> bool {
    let mut taken = false;
    container.changes.send_if_modified(|change| {
        taken = !change.removing;
        change.removing = true;
        false
    });
    taken
}

fn refusal(name: &str, status: Status) -> String {
    match status {
        Status::Paused => {
            format!("cannot remove container \"/{name}\": container is paused and must be unpaused first")
        }
        status => format!(
            "cannot remove container \"/{name}\": container is {}: stop the container before removing or force remove",
            status.name()
        ),
    }
}

/// The `until` filter: a time, or a duration before now (`24h`, `10m30s`).
pub(crate) fn until(filters: &Filters) -> Result<Option<u64>> {
    let Some([text]) = filters.get("until") else {
        return match filters.get("until") {
            None => Ok(None),
            Some(_) => Err(Error::invalid("more than one until filter specified")),
        };
    };
    if let Some(at) = clock::parse(text) {
        return Ok(Some(at));
    }
    let mut total = 0.0;
    let mut number = String::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter.is_ascii_digit() || letter == '.' {
            number.push(letter);
            continue;
        }
        let unit = match letter {
            'h' => 3600.0,
            'm' if letters.next_if_eq(&'s').is_some() => 0.001,
            'm' => 60.0,
            's' => 1.0,
            _ => return Err(Error::invalid(format!("failed to parse value as time or duration: {text:?}"))),
        };
        let value: f64 = number
            .parse()
            .map_err(|_| Error::invalid(format!("failed to parse value as time or duration: {text:?}")))?;
        total += value * unit;
        number.clear();
    }
    if !number.is_empty() || text.is_empty() {
        return Err(Error::invalid(format!("failed to parse value as time or duration: {text:?}")));
    }
    Ok(Some(clock::now_ns().saturating_sub((total * 1e9) as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::filters;

    #[test]
    fn until_is_a_time_or_a_duration_before_now() {
        let of = |text: &str| until(&filters(&[("until", &[text])]));
        assert_eq!(of("1700000000").unwrap(), Some(1_700_000_000_000_000_000));
        let then = of("1h30m").unwrap().unwrap();
        let ago = clock::now_ns() - then;
        assert!((5_400_000_000_000..5_401_000_000_000).contains(&ago));
        for wrong in ["", "h", "5x", "5h3"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        assert_eq!(until(&filters(&[])).unwrap(), None);
    }

    #[test]
    fn running_containers_are_refused_in_dockers_words() {
        assert_eq!(
            refusal("web", Status::Running),
            "cannot remove container \"/web\": container is running: stop the container before removing or force remove"
        );
    }
}
