//! The task that owns the guest.
//!
//! It never waits for anything but its inputs: what takes time runs beside it and reports back by an [`Event`]. Events
//! carry the generation of the guest that they are about, so that news of a former guest changes nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use skiff_link::Link;
use skiff_settings::{IdleAction, Settings};
use skiff_vm::{Exit, ExitReason, Guest};
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::AbortHandle,
};

use crate::{
    Error, Lease, Options, Phase, Progress, Trigger,
    backend::{Selected, chain},
    boot::{self, Booted, Cancel, Reporter},
    control::Status,
    handle::{Answer, Command, Connections, Sleeper, Snapshot, query_status},
    idle::{Decision, IdlePolicy},
    saved::Store,
    session,
    sleep::{self, Outcome},
};

/// What the work beside the task reports.
pub(crate) enum Event {
    Adopted(Result<boot::Found, Error>),
    Booted(Result<Booted, Error>),
    SessionUp(Link),
    SessionLost(String),
    SessionsEnded(skiff_link::Error),
    GuestEnded(Exit),
    Containers(Option<Status>),
    Stopped { result: Result<(), Error>, failure: Option<Arc<Error>> },
    Slept(Outcome),
}

/// The states of the crate's diagram, each with what exists in it.
enum State {
    Stopped,
    Failed,
    Starting { call_off: watch::Sender<bool> },
    Running(Box<Running>),
    Stopping,
    Suspending,
    Asleep,
}

struct Running {
    guest: Arc<dyn Guest>,
    link: Option<Link>,
    idle: Option<IdlePolicy>,
    /// Whether it is put to sleep then.
    idle_sleep: bool,
    /// Leases given until the last decision about idleness.
    given: u64,
    /// When idleness is looked at again.
    check_at: Option<Instant>,
    /// When a guest without a link is given up.
    relink_by: Option<Instant>,
    _tasks: [AbortOnDrop; 2],
}

/// A task that must not outlive its guest.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl State {
    fn phase(&self) -> Phase {
        match self {
            Self::Stopped => Phase::Stopped,
            Self::Failed => Phase::Failed,
            Self::Starting { .. } => Phase::Starting,
            Self::Running(_) => Phase::Running,
            Self::Stopping => Phase::Stopping,
            Self::Suspending => Phase::Suspending,
            Self::Asleep => Phase::Asleep,
        }
    }
}

pub(crate) struct Driver {
    options: Arc<Options>,
    selected: Selected,
    snapshot: watch::Sender<Snapshot>,
    link: watch::Sender<Option<Link>>,
    progress: broadcast::Sender<Progress>,
    connections: Arc<Connections>,
    events: mpsc::UnboundedSender<(u64, Event)>,
    reports: mpsc::UnboundedReceiver<(u64, Event)>,
    generation: u64,
    state: State,
    /// Those who wait for a link.
    waiting: Vec<Answer<Lease>>,
    /// Those who wait for a stop.
    stopping: Vec<Answer<()>>,
    /// What becomes of a guest that is asleep when those get their wish.
    sleeper: Sleeper,
    /// Those who wait for a sleep.
    sleeping: Vec<Answer<()>>,
}

impl Driver {
    pub(crate) fn new(
        options: Options,
        selected: Selected,
        snapshot: watch::Sender<Snapshot>,
        link: watch::Sender<Option<Link>>,
        progress: broadcast::Sender<Progress>,
        connections: Arc<Connections>,
    ) -> Self {
        let (events, reports) = mpsc::unbounded_channel();
        Self {
            options: Arc::new(options),
            selected,
            snapshot,
            link,
            progress,
            connections,
            events,
            reports,
            generation: 0,
            state: State::Stopped,
            waiting: Vec::new(),
            stopping: Vec::new(),
            sleeper: Sleeper::Stays,
            sleeping: Vec::new(),
        }
    }

    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.look_for_guest();
        loop {
            let timer = self.next_timer();
            let sleep = async {
                match timer {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Lease { retry_accelerator, answer }) => self.lease(retry_accelerator, answer),
                    Some(Command::Stop { asleep, answer }) => self.stop(asleep, answer),
                    Some(Command::Sleep { answer }) => self.sleep(answer),
                    None => return,
                },
                Some((generation, event)) = self.reports.recv() => {
                    if generation == self.generation {
                        self.event(event);
                    }
                }
                () = sleep => self.timer(),
            }
        }
    }

    // Requests

    fn lease(&mut self, retry_accelerator: bool, answer: Answer<Lease>) {
        match &self.state {
            State::Running(running) => match &running.link {
                Some(link) => {
                    // A caller that left in the meantime drops its lease at once.
                    let _ = answer.send(Ok(Lease::new(link.clone(), &self.connections)));
                }
                None => self.waiting.push(answer),
            },
            State::Starting { .. } | State::Stopping | State::Suspending => self.waiting.push(answer),
            State::Stopped | State::Failed | State::Asleep => {
                self.waiting.push(answer);
                self.start(retry_accelerator);
            }
        }
    }

    fn stop(&mut self, asleep: Sleeper, answer: Answer<()>) {
        if asleep == Sleeper::Ends {
            self.sleeper = asleep;
        }
        // Whoever waits for a guest that is not to be has waited long enough.
        self.fail_waiting(&Arc::new(Error::CalledOff));
        match &self.state {
            State::Stopped => {
                self.stopping.push(answer);
                self.stopped();
            }
            State::Failed => {
                self.enter(Trigger::StopAsked, State::Stopped, None);
                self.stopping.push(answer);
                self.stopped();
            }
            State::Stopping | State::Suspending => self.stopping.push(answer),
            State::Asleep => {
                self.stopping.push(answer);
                self.asleep_is_stopped();
            }
            State::Starting { call_off } => {
                self.stopping.push(answer);
                call_off.send_replace(true);
                self.enter(Trigger::StopAsked, State::Stopping, None);
            }
            State::Running(_) => {
                self.stopping.push(answer);
                self.end_running(Trigger::StopAsked, None);
            }
        }
    }

    fn sleep(&mut self, answer: Answer<()>) {
        let cannot = |reason: &str| Arc::new(Error::CannotSleep { reason: reason.to_owned() });
        let refused = match &self.state {
            State::Suspending => return self.sleeping.push(answer),
            State::Asleep => {
                let _ = answer.send(Ok(()));
                return;
            }
            State::Running(running) => match (self.selected.backend.cannot_save(), &running.link) {
                (Some(reason), _) => cannot(reason),
                (None, None) => cannot("it is out of reach at this moment"),
                (None, Some(_)) => {
                    self.sleeping.push(answer);
                    return self.begin_sleep();
                }
            },
            State::Stopped | State::Failed => cannot("it does not run"),
            State::Starting { .. } => cannot("it is starting"),
            State::Stopping => cannot("it is stopping"),
        };
        let _ = answer.send(Err(refused));
    }

    // Work beside the task

    fn reporter(&self) -> Reporter {
        Reporter { progress: self.progress.clone(), snapshot: self.snapshot.clone(), began: Instant::now() }
    }

    /// Runs work beside the task and takes its event under the present generation.
    fn spawn(&self, work: impl Future<Output = Event> + Send + 'static) -> AbortHandle {
        let (generation, events) = (self.generation, self.events.clone());
        let task = tokio::spawn(async move {
            // The task may have ended, and with it all interest.
            let _ = events.send((generation, work.await));
        });
        task.abort_handle()
    }

    fn look_for_guest(&mut self) {
        let (call_off, cancel) = watch::channel(false);
        self.generation += 1;
        self.enter(Trigger::Wanted, State::Starting { call_off }, None);
        let (options, selected, reporter) =
            (Arc::clone(&self.options), self.selected.clone(), self.reporter());
        self.spawn(async move {
            Event::Adopted(boot::adopt(&options, &selected, Cancel(cancel), &reporter).await)
        });
    }

    fn start(&mut self, retry_accelerator: bool) {
        let (call_off, cancel) = watch::channel(false);
        self.generation += 1;
        self.enter(Trigger::Wanted, State::Starting { call_off }, None);
        let (options, selected, reporter) =
            (Arc::clone(&self.options), self.selected.clone(), self.reporter());
        self.spawn(async move {
            let cancel = Cancel(cancel);
            Event::Booted(boot::start(&options, &selected, retry_accelerator, cancel, &reporter).await)
        });
    }

    /// Leaves `Running`: the guest is stopped, or its remains are removed.
    fn end_running(&mut self, trigger: Trigger, failure: Option<Arc<Error>>) {
        let State::Running(running) = std::mem::replace(&mut self.state, State::Stopping) else {
            unreachable!("callers have seen that it runs");
        };
        let link = running.link.clone();
        let guest = Arc::clone(&running.guest);
        drop(running);
        self.publish(Phase::Running, trigger, None);
        self.stop_guest(guest, link, failure);
    }

    fn stop_guest(&self, guest: Arc<dyn Guest>, link: Option<Link>, failure: Option<Arc<Error>>) {
        let (options, reporter) = (Arc::clone(&self.options), self.reporter());
        self.spawn(async move {
            // A guest that failed is not asked any more.
            let asked = link.as_ref().filter(|_| failure.is_none());
            let result = boot::stop(&options, &guest, asked, &reporter).await;
            // Whatever still holds a stream of the dead guest lets go now, and the next guest finds its socket free.
            if let Some(link) = link {
                link.close();
            }
            Event::Stopped { result, failure }
        });
    }

    /// Leaves `Running` for a sleep; callers have seen that there is a link.
    fn begin_sleep(&mut self) {
        let State::Running(running) = std::mem::replace(&mut self.state, State::Suspending) else {
            unreachable!("callers have seen that it runs");
        };
        let (guest, link) = (Arc::clone(&running.guest), running.link.clone());
        // No news of it counts from here on: its end shows in the save.
        self.generation += 1;
        self.publish(Phase::Running, Trigger::SleepAsked, None);
        drop(running);
        let Some(link) = link else { unreachable!("callers have seen the link") };
        let (options, reporter) = (Arc::clone(&self.options), self.reporter());
        self.spawn(async move {
            let (_never, cancel) = watch::channel(false);
            Event::Slept(sleep::suspend(&options, guest, link, Cancel(cancel), &reporter).await)
        });
    }

    /// Those who want it stopped while it is asleep get their wish.
    fn asleep_is_stopped(&mut self) {
        if self.sleeper == Sleeper::Ends {
            self.sleeper = Sleeper::Stays;
            let discarded = Store::new(&self.options.paths).discard().map_err(Arc::new);
            if discarded.is_ok() {
                self.enter(Trigger::StopAsked, State::Stopped, None);
            }
            for answer in self.stopping.drain(..) {
                let _ = answer.send(discarded.clone());
            }
        }
        for answer in self.stopping.drain(..) {
            let _ = answer.send(Ok(()));
        }
    }

    fn slept(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Asleep => {
                self.enter(Trigger::Saved, State::Asleep, None);
                for answer in self.sleeping.drain(..) {
                    let _ = answer.send(Ok(()));
                }
                self.asleep();
            }
            Outcome::RunsOn(booted, error) => {
                let reason = chain(&error);
                for answer in self.sleeping.drain(..) {
                    let _ = answer.send(Err(Arc::new(Error::CannotSleep { reason: reason.clone() })));
                }
                self.runs(*booted, Trigger::NotSaved);
                // What failed once would fail every few minutes.
                if let State::Running(running) = &mut self.state {
                    running.idle_sleep = false;
                }
                if !self.stopping.is_empty() {
                    self.end_running(Trigger::StopAsked, None);
                }
            }
            Outcome::Lost(error) => {
                let error = Arc::new(error);
                for answer in self.sleeping.drain(..) {
                    let _ = answer.send(Err(Arc::clone(&error)));
                }
                self.enter(Trigger::StoppedAfterFailure, State::Failed, Some(error));
                self.stopped();
            }
        }
    }

    /// It has come to rest in a file: whoever wants more of it is served.
    fn asleep(&mut self) {
        if !self.stopping.is_empty() {
            self.asleep_is_stopped();
        }
        self.waiting.retain(|answer| !answer.is_closed());
        if !self.waiting.is_empty() {
            self.start(false);
        }
    }

    // What the work reports

    fn event(&mut self, event: Event) {
        match event {
            Event::Adopted(Ok(boot::Found::Running(booted))) => self.booted(*booted),
            Event::Booted(Ok(booted)) => self.booted(booted),
            Event::Slept(outcome) => self.slept(outcome),
            Event::Adopted(Ok(boot::Found::Asleep)) if !matches!(self.state, State::Stopping) => {
                self.enter(Trigger::Saved, State::Asleep, None);
                self.asleep();
            }
            Event::Adopted(Ok(boot::Found::Nothing | boot::Found::Asleep)) => {
                self.enter(Trigger::NothingFound, State::Stopped, None);
                self.stopped();
            }
            Event::Adopted(Err(error)) | Event::Booted(Err(error)) => self.boot_failed(error),
            Event::SessionUp(link) => self.session_up(link),
            Event::SessionLost(reason) => self.session_lost(&reason),
            Event::SessionsEnded(error) => {
                tracing::warn!(%error, "the guest's transport ended");
                self.give_up();
            }
            Event::GuestEnded(exit) => self.guest_ended(exit),
            Event::Containers(containers) => self.containers(containers),
            Event::Stopped { result: Err(error), .. } => {
                let error = Arc::new(error);
                for answer in self.stopping.drain(..) {
                    let _ = answer.send(Err(Arc::clone(&error)));
                }
                self.fail_waiting(&error);
                self.enter(Trigger::StoppedAfterFailure, State::Failed, Some(error));
            }
            Event::Stopped { result: Ok(()), failure: Some(error) } => {
                if let Error::Ended { exit: Exit { reason: ExitReason::Shutdown, .. } } = &*error {
                    self.enter(Trigger::Stopped, State::Stopped, Some(error));
                } else {
                    self.enter(Trigger::StoppedAfterFailure, State::Failed, Some(error));
                }
                self.stopped();
            }
            Event::Stopped { result: Ok(()), failure: None } => {
                self.enter(Trigger::Stopped, State::Stopped, None);
                self.stopped();
            }
        }
    }

    fn booted(&mut self, booted: Booted) {
        if let State::Stopping = self.state {
            // Called off, but quicker than the call.
            self.stop_guest(booted.guest, Some(booted.link), None);
            return;
        }
        self.runs(booted, Trigger::Booted);
    }

    fn runs(&mut self, booted: Booted, trigger: Trigger) {
        let Booted { guest, sessions, link, hello, took, woken, wake_note, templated, template_note } =
            booted;
        let watched = Arc::clone(&guest);
        let waiter = self.spawn(async move { Event::GuestEnded(watched.wait().await) });
        let serve = session::serve(
            self.generation,
            link.clone(),
            sessions,
            Arc::clone(&self.options),
            self.events.clone(),
        );
        let server = tokio::spawn(serve).abort_handle();
        let (idle, idle_sleep) = self.idle_policy();
        let description = guest.description();
        tracing::info!(pid = description.pid, elapsed_ms = took.as_millis() as u64, "guest is up");
        let running = Running {
            guest,
            link: Some(link.clone()),
            check_at: idle.is_some().then(Instant::now),
            idle,
            idle_sleep,
            given: self.connections.given(),
            relink_by: None,
            _tasks: [AbortOnDrop(waiter), AbortOnDrop(server)],
        };
        self.enter(trigger, State::Running(Box::new(running)), None);
        self.snapshot.send_modify(|snapshot| {
            snapshot.description = Some(description);
            snapshot.hello = Some(hello);
            if trigger == Trigger::Booted {
                snapshot.boot = Some(took);
                snapshot.woken = woken;
                snapshot.wake_note = wake_note;
                snapshot.templated = templated;
                snapshot.template_note = template_note;
            }
        });
        self.link.send_replace(Some(link.clone()));
        self.answer_waiting(&link);
    }

    /// When it is idle, and whether it sleeps then.
    fn idle_policy(&self) -> (Option<IdlePolicy>, bool) {
        match Settings::load(&self.options.paths.settings()) {
            Ok(settings) => {
                let can_sleep = self.selected.backend.cannot_save().is_none();
                let sleeps = can_sleep && settings.daemon.idle == IdleAction::Sleep;
                (settings.daemon.idle_stop().map(IdlePolicy::new), sleeps)
            }
            Err(error) => {
                tracing::warn!(%error, "settings cannot be read, the guest is not stopped when idle");
                (None, false)
            }
        }
    }

    fn boot_failed(&mut self, error: Error) {
        let error = Arc::new(error);
        if let State::Stopping = self.state {
            self.enter(Trigger::BootFailed, State::Stopped, None);
        } else {
            tracing::error!(error = %error, "guest does not start");
            self.fail_waiting(&error);
            self.enter(Trigger::BootFailed, State::Failed, Some(error));
        }
        self.stopped();
    }

    fn session_up(&mut self, link: Link) {
        let State::Running(running) = &mut self.state else { return };
        running.link = Some(link.clone());
        running.relink_by = None;
        self.link.send_replace(Some(link.clone()));
        self.answer_waiting(&link);
    }

    fn session_lost(&mut self, reason: &str) {
        tracing::warn!(error = reason, "link session ended");
        let State::Running(running) = &mut self.state else { return };
        running.link = None;
        running.relink_by = Some(Instant::now() + self.options.relink_deadline);
        self.link.send_replace(None);
    }

    /// The guest cannot be reached any more, so it is of no use.
    fn give_up(&mut self) {
        let State::Running(running) = &self.state else { return };
        let error = Arc::new(Error::LinkLost { console: running.guest.console_tail() });
        tracing::error!(error = %error, "guest is given up");
        self.fail_waiting(&error);
        self.end_running(Trigger::Ended, Some(error));
    }

    fn guest_ended(&mut self, exit: Exit) {
        if !matches!(self.state, State::Running(_)) {
            return;
        }
        tracing::warn!(op = ?exit.reason, error = %exit, "guest ended");
        let error = Arc::new(Error::Ended { exit });
        self.end_running(Trigger::Ended, Some(error));
    }

    /// The guest is gone: whoever stopped it hears so, and whoever needs it gets a new one.
    fn stopped(&mut self) {
        // A stop ends what is saved, too: of a guest that was found asleep, or whose wake was called off.
        if std::mem::replace(&mut self.sleeper, Sleeper::Stays) == Sleeper::Ends
            && let Err(error) = Store::new(&self.options.paths).discard()
        {
            tracing::warn!(error = %chain(&error), "saved guest is left behind");
        }
        for answer in self.stopping.drain(..) {
            let _ = answer.send(Ok(()));
        }
        self.waiting.retain(|answer| !answer.is_closed());
        if !self.waiting.is_empty() {
            self.start(false);
        }
    }

    fn answer_waiting(&mut self, link: &Link) {
        for answer in self.waiting.drain(..) {
            let _ = answer.send(Ok(Lease::new(link.clone(), &self.connections)));
        }
    }

    fn fail_waiting(&mut self, error: &Arc<Error>) {
        for answer in self.waiting.drain(..) {
            let _ = answer.send(Err(Arc::clone(error)));
        }
    }

    // Time

    fn next_timer(&self) -> Option<Instant> {
        let State::Running(running) = &self.state else { return None };
        [running.check_at, running.relink_by].into_iter().flatten().min()
    }

    fn timer(&mut self) {
        let now = Instant::now();
        let State::Running(running) = &mut self.state else { return };
        if running.relink_by.is_some_and(|by| by <= now) {
            self.give_up();
            return;
        }
        if running.check_at.is_none_or(|at| at > now) {
            return;
        }
        // Set again by the answer.
        running.check_at = None;
        match running.link.clone() {
            Some(link) if self.connections.count() == 0 => {
                self.spawn(async move { Event::Containers(query_status(&link).await) });
            }
            // In use, or out of reach for now: there is nothing to ask.
            _ => self.containers(None),
        }
    }

    /// Decides about idleness; a guest that does not tell counts as busy.
    fn containers(&mut self, status: Option<Status>) {
        let given = self.connections.given();
        let State::Running(running) = &mut self.state else { return };
        let busy = if running.idle_sleep { (self.options.busy)() } else { 0 };
        let containers = status.as_ref().map_or(1, |status| {
            let paused = if running.idle_sleep { status.containers_paused } else { 0 };
            status.containers_running.saturating_sub(paused)
        });
        let Some(policy) = &mut running.idle else { return };
        // What came and went since the guest was asked may have started a container that it has not counted.
        let connections = self.connections.count() + (given - running.given) + busy;
        running.given = given;
        let now = Instant::now();
        match policy.observe(now, connections, containers) {
            Decision::Wait(pause) => running.check_at = Some(now + pause.max(Duration::from_millis(50))),
            Decision::Stop => {
                tracing::info!(sleeps = running.idle_sleep, "guest is idle");
                if running.idle_sleep && running.link.is_some() {
                    self.begin_sleep();
                } else {
                    self.end_running(Trigger::Idle, None);
                }
            }
        }
    }

    // States

    fn enter(&mut self, trigger: Trigger, state: State, reason: Option<Arc<Error>>) {
        let from = self.state.phase();
        self.state = state;
        self.publish(from, trigger, reason);
    }

    fn publish(&self, from: Phase, trigger: Trigger, reason: Option<Arc<Error>>) {
        let phase = self.state.phase();
        debug_assert_eq!(from.next(trigger), Some(phase), "{from:?} by {trigger:?}");
        tracing::info!(op = ?trigger, machine = ?phase, "machine state");
        if phase != Phase::Running {
            self.link.send_replace(None);
        }
        self.snapshot.send_modify(|snapshot| {
            snapshot.phase = phase;
            snapshot.since = Instant::now();
            snapshot.reason = reason;
            if phase != Phase::Running {
                snapshot.hello = None;
            }
            if matches!(phase, Phase::Stopped | Phase::Failed | Phase::Asleep) {
                snapshot.description = None;
                snapshot.progress = None;
            }
        });
    }
}
