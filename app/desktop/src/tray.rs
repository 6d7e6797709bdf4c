//! The tray's menu, as a list: what it says and what each line does.

use skiff_host::control::MachineState;

use crate::sight::Sight;

/// Containers in the menu; the window shows all.
const MOST: usize = 12;

/// What a line does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Shows the window.
    Open,
    /// Shows a container in it.
    Container(String),
    /// Starts the guest.
    Start,
    /// Stops the guest.
    Stop,
    /// Ends this program; daemon and containers stay.
    Quit,
}

impl Action {
    /// A name for it that a menu can carry.
    pub fn id(&self) -> String {
        match self {
            Self::Open => "open".to_owned(),
            Self::Container(name) => format!("container:{name}"),
            Self::Start => "start".to_owned(),
            Self::Stop => "stop".to_owned(),
            Self::Quit => "quit".to_owned(),
        }
    }

    /// The action of a name.
    pub fn of(id: &str) -> Option<Self> {
        Some(match id {
            "open" => Self::Open,
            "start" => Self::Start,
            "stop" => Self::Stop,
            "quit" => Self::Quit,
            _ => Self::Container(id.strip_prefix("container:")?.to_owned()),
        })
    }
}

/// A line of the menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Says something.
    Words(String),
    /// Does something.
    Action(String, Action),
    /// Parts what is above from what is below.
    Rule,
}

/// Makes the menu.
pub fn menu(sight: &Sight) -> Vec<Line> {
    let state = match sight.machine {
        None => "The daemon does not run",
        Some(MachineState::Stopped) => "The guest is off",
        Some(MachineState::Starting) => "The guest is starting",
        Some(MachineState::Running) => "The engine is running",
        Some(MachineState::Stopping) => "The guest is stopping",
        Some(MachineState::Failed) => "The guest has failed",
        Some(MachineState::Suspending) => "The guest is falling asleep",
        Some(MachineState::Asleep) => "The guest is asleep",
    };
    let mut lines =
        vec![Line::Words(state.to_owned()), Line::Action("Open Skiff".to_owned(), Action::Open), Line::Rule];
    if let Some(containers) = &sight.containers {
        let running: Vec<_> = containers.iter().filter(|container| container.is_running()).collect();
        for container in running.iter().take(MOST) {
            let name = container.name().to_owned();
            let words = if container.is_unhealthy() { format!("{name} (unhealthy)") } else { name.clone() };
            lines.push(Line::Action(words, Action::Container(name)));
        }
        let words = match running.len() {
            0 => "No container is running".to_owned(),
            more if more > MOST => format!("and {} more", more - MOST),
            _ => String::new(),
        };
        lines.extend((!words.is_empty()).then_some(Line::Words(words)));
        lines.push(Line::Rule);
    }
    match sight.machine {
        None | Some(MachineState::Stopped | MachineState::Failed) => {
            lines.push(Line::Action("Start the guest".to_owned(), Action::Start));
        }
        Some(MachineState::Asleep) => lines.push(Line::Action("Wake the guest".to_owned(), Action::Start)),
        Some(MachineState::Running) => lines.push(Line::Action("Stop the guest".to_owned(), Action::Stop)),
        Some(MachineState::Starting | MachineState::Stopping | MachineState::Suspending) => {}
    }
    lines.push(Line::Action("Quit".to_owned(), Action::Quit));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sight::Container;

    fn running(name: &str) -> Container {
        let state = "running".to_owned();
        Container { id: "0".repeat(64), names: vec![format!("/{name}")], state, status: "Up".to_owned() }
    }

    #[test]
    fn the_menu_offers_what_can_be_done_now() {
        let of = |machine| menu(&Sight { machine, reason: None, containers: None });
        let has = |lines: &[Line], wanted: &Action| {
            lines.iter().any(|line| matches!(line, Line::Action(_, action) if action == wanted))
        };
        assert!(has(&of(None), &Action::Start) && !has(&of(None), &Action::Stop));
        assert!(has(&of(Some(MachineState::Asleep)), &Action::Start));
        let up = of(Some(MachineState::Running));
        assert!(has(&up, &Action::Stop) && !has(&up, &Action::Start) && has(&up, &Action::Open));
        let between = of(Some(MachineState::Starting));
        assert!(
            !has(&between, &Action::Stop) && !has(&between, &Action::Start) && has(&between, &Action::Quit)
        );
    }

    #[test]
    fn running_containers_are_in_it_but_not_a_thousand() {
        let containers: Vec<_> = (0..1000).map(|i| running(&format!("c{i}"))).collect();
        let machine = Some(MachineState::Running);
        let lines = menu(&Sight { machine, reason: None, containers: Some(containers) });
        assert!(lines.contains(&Line::Action("c0".to_owned(), Action::Container("c0".to_owned()))));
        assert!(lines.contains(&Line::Words("and 988 more".to_owned())));
        assert!(lines.len() < 25);
        let lines = menu(&Sight { machine, reason: None, containers: Some(Vec::new()) });
        assert!(lines.contains(&Line::Words("No container is running".to_owned())));
    }

    #[test]
    fn actions_survive_their_names() {
        for action in
            [Action::Open, Action::Start, Action::Stop, Action::Quit, Action::Container("quit".into())]
        {
            assert_eq!(Action::of(&action.id()), Some(action));
        }
        assert_eq!(Action::of("other"), None);
    }
}
