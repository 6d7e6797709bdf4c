//! What is worth a notification between two looks.

use std::collections::HashMap;

use skiff_host::control::MachineState;

use crate::sight::{Container, Sight};

/// Told at once; more are counted in the last one.
const MOST: usize = 3;
/// How programs end that were told to: by `stop`, `kill` or Ctrl-C.
const TOLD_TO_END: [i64; 3] = [130, 137, 143];

/// A notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// In one line.
    pub title: String,
    /// What more there is to say.
    pub body: String,
}

/// Compares two looks. The first look of all is compared with nothing, and nothing of it is new.
pub fn news(before: &Sight, now: &Sight) -> Vec<News> {
    let mut list = Vec::new();
    let was_alive = matches!(before.machine, Some(MachineState::Running | MachineState::Starting));
    if was_alive && now.machine == Some(MachineState::Failed) {
        let body = now.reason.clone().unwrap_or_else(|| "Its log tells more.".to_owned());
        list.push(News { title: "The guest has failed".to_owned(), body });
    }
    if let (Some(before), Some(now)) = (&before.containers, &now.containers) {
        let before: HashMap<&str, &Container> =
            before.iter().map(|container| (container.id.as_str(), container)).collect();
        list.extend(now.iter().filter_map(|now| changed(before.get(now.id.as_str())?, now)));
    }
    if list.len() > MOST {
        let more = list.len() - (MOST - 1);
        list.truncate(MOST - 1);
        list.push(News {
            title: format!("{more} more containers have ended or are unhealthy"),
            body: "The list of containers tells which.".to_owned(),
        });
    }
    list
}

fn changed(before: &Container, now: &Container) -> Option<News> {
    let name = now.name();
    if before.is_running() && now.state == "exited" {
        let code = now.exit_code().filter(|code| *code != 0 && !TOLD_TO_END.contains(code))?;
        let body = "Its log tells why.".to_owned();
        return Some(News { title: format!("{name} ended with code {code}"), body });
    }
    (!before.is_unhealthy() && before.is_running() && now.is_unhealthy())
        .then(|| News { title: format!("{name} is unhealthy"), body: "Its health check fails.".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, state: &str, status: &str) -> Container {
        let names = vec![format!("/{id}")];
        Container { id: id.to_owned(), names, state: state.to_owned(), status: status.to_owned() }
    }

    fn sight(containers: &[Container]) -> Sight {
        let machine = Some(MachineState::Running);
        Sight { machine, reason: None, containers: Some(containers.to_vec()) }
    }

    #[test]
    fn a_container_that_ends_badly_is_news_once_and_one_that_was_stopped_is_none() {
        let up = |id| container(id, "running", "Up 2 minutes");
        let before = sight(&[up("job"), up("web"), up("done")]);
        let now = sight(&[
            container("job", "exited", "Exited (3) 1 second ago"),
            container("web", "exited", "Exited (137) 1 second ago"),
            container("done", "exited", "Exited (0) 1 second ago"),
            container("new", "exited", "Exited (1) 1 second ago"),
        ]);
        let found = news(&before, &now);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].title, "job ended with code 3");
        assert_eq!(news(&now, &now), []);
        assert_eq!(news(&Sight::default(), &now), [], "what was before us is not new");
    }

    #[test]
    fn failing_health_is_news_once() {
        let well = sight(&[container("web", "running", "Up 2 minutes (healthy)")]);
        let ill = sight(&[container("web", "running", "Up 3 minutes (unhealthy)")]);
        assert_eq!(news(&well, &ill)[0].title, "web is unhealthy");
        assert_eq!(news(&ill, &ill), []);
    }

    #[test]
    fn a_guest_that_fails_is_news_with_its_reason() {
        let failed = Sight {
            machine: Some(MachineState::Failed),
            reason: Some("no disk".to_owned()),
            containers: None,
        };
        assert_eq!(
            news(&sight(&[]), &failed),
            [News { title: "The guest has failed".into(), body: "no disk".into() }]
        );
        assert_eq!(news(&failed, &failed), []);
    }

    #[test]
    fn many_at_once_become_few() {
        let before: Vec<_> = (0..50).map(|i| container(&format!("c{i}"), "running", "Up")).collect();
        let now: Vec<_> = (0..50).map(|i| container(&format!("c{i}"), "exited", "Exited (1) now")).collect();
        let found = news(&sight(&before), &sight(&now));
        assert_eq!(found.len(), 3);
        assert!(found[2].title.starts_with("48 more"), "{}", found[2].title);
    }
}
