//! What happens in the engine, told to whoever listens.
//!
//! The bus keeps the last [`KEPT`] events for `since`. A listener that falls further behind than that is cut off: its
//! stream ends with an error instead of growing without bound or losing events silently.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard_stubs::models::{EventActor, EventMessage, EventMessageScopeEnum, EventMessageTypeEnum};
use futures_util::stream::BoxStream;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::clock;
use crate::error::{Code, Error, Result};
use crate::filters::Filters;

const KEPT: usize = 1024;

/// What kind of thing an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A container or one of its execs.
    Container,
    /// An image.
    Image,
    /// A volume.
    Volume,
    /// A network.
    Network,
    /// The build cache.
    Builder,
    /// The engine itself.
    Daemon,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Volume => "volume",
            Self::Network => "network",
            Self::Builder => "builder",
            Self::Daemon => "daemon",
        }
    }
}

/// The thing an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Actor {
    /// Its id or name.
    #[serde(rename = "ID")]
    pub id: String,
    /// Docker's attributes of it.
    #[serde(rename = "Attributes")]
    pub attributes: HashMap<String, String>,
}

/// One event, serialised as Docker does, the fields for old clients included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The action, for clients from before 1.22; containers and images only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The actor's id, for the same clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The container's image, for the same clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What kind of thing it is about.
    #[serde(rename = "Type")]
    pub kind: Kind,
    /// What happened.
    #[serde(rename = "Action")]
    pub action: String,
    /// To whom.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// Always `local`.
    pub scope: &'static str,
    /// Seconds since the epoch.
    pub time: u64,
    /// Nanoseconds since the epoch.
    #[serde(rename = "timeNano")]
    pub time_nano: u64,
}

impl From<Event> for EventMessage {
    fn from(event: Event) -> Self {
        let typ = match event.kind {
            Kind::Container => EventMessageTypeEnum::CONTAINER,
            Kind::Image => EventMessageTypeEnum::IMAGE,
            Kind::Volume => EventMessageTypeEnum::VOLUME,
            Kind::Network => EventMessageTypeEnum::NETWORK,
            Kind::Builder => EventMessageTypeEnum::BUILDER,
            Kind::Daemon => EventMessageTypeEnum::DAEMON,
        };
        Self {
            typ: Some(typ),
            action: Some(event.action),
            actor: Some(EventActor { id: Some(event.actor.id), attributes: Some(event.actor.attributes) }),
            scope: Some(EventMessageScopeEnum::LOCAL),
            time: i64::try_from(event.time).ok(),
            time_nano: i64::try_from(event.time_nano).ok(),
        }
    }
}

/// What a listener wants to hear.
#[derive(Debug, Clone, Default)]
pub struct EventOptions {
    /// Also events from this time on, in nanoseconds since the epoch.
    pub since: Option<u64>,
    /// Ends at this time, in nanoseconds since the epoch.
    pub until: Option<u64>,
    /// Which events.
    pub filters: Filters,
}

/// Events as they happen; ends at `until` or when the listener is too slow.
pub type EventStream = BoxStream<'static, Result<Event>>;

#[derive(Debug)]
pub(crate) struct Bus {
    kept: Mutex<VecDeque<Event>>,
    live: broadcast::Sender<Event>,
}

impl Bus {
    pub(crate) fn new() -> Self {
        Self { kept: Mutex::new(VecDeque::with_capacity(KEPT)), live: broadcast::channel(KEPT).0 }
    }

    pub(crate) fn listeners(&self) -> usize {
        self.live.receiver_count()
    }

    pub(crate) fn publish(&self, kind: Kind, action: &str, id: &str, attributes: HashMap<String, String>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Stamped under the lock: the order of events is the order of their times.
        let time_nano = clock::now_ns().max(kept.back().map_or(0, |last| last.time_nano + 1));
        let old_style = matches!(kind, Kind::Container | Kind::Image);
        let event = Event {
            status: old_style.then(|| action.to_owned()),
            id: old_style.then(|| id.to_owned()),
            from: if kind == Kind::Container { attributes.get("image").cloned() } else { None },
            kind,
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            scope: "local",
            time: time_nano / 1_000_000_000,
            time_nano,
        };
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(event.clone());
        // No listener is no error.
        let _ = self.live.send(event);
    }

    pub(crate) fn subscribe(&self, options: EventOptions) -> Result<EventStream> {
        let EventOptions { since, until, filters } = options;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = self.live.subscribe();
        let past: VecDeque<Event> = match (since, until) {
            (None, None) => VecDeque::new(),
            (since, until) => kept
                .iter()
                .filter(|event| {
                    since.is_none_or(|since| event.time_nano >= since)
                        && until.is_none_or(|until| event.time_nano <= until)
                        && matches(&filters, event)
                })
                .cloned()
                .collect(),
        };
        drop(kept);
        let end = until.map(|until| {
            tokio::time::Instant::now() + Duration::from_nanos(until.saturating_sub(clock::now_ns()))
        });
        let state = (past, receiver, filters, end);
        Ok(Box::pin(futures_util::stream::unfold(
            state,
            |(mut past, mut receiver, filters, end)| async move {
                if let Some(event) = past.pop_front() {
                    return Some((Ok(event), (past, receiver, filters, end)));
                }
                loop {
                    let received = match end {
                        Some(end) => tokio::time::timeout_at(end, receiver.recv()).await.ok()?,
                        None => receiver.recv().await,
                    };
                    let event = match received {
                        Ok(event) if matches(&filters, &event) => Ok(event),
                        Ok(_) => continue,
                        Err(broadcast::error::RecvError::Closed) => return None,
                        Err(broadcast::error::RecvError::Lagged(_)) => {
                            let error =
                                Error::new(Code::Unavailable, "the reader is too slow: events were dropped");
                            // What follows would have a gap: this is the end.
                            let closed = broadcast::channel(1).1;
                            return Some((Err(error), (past, closed, filters, end)));
                        }
                    };
                    return Some((event, (past, receiver, filters, end)));
                }
            },
        )))
    }
}

fn matches(filters: &Filters, event: &Event) -> bool {
    let attribute = |name: &str| event.actor.attributes.get(name).map(String::as_str);
    let about = |filter: &str, kind: Kind| {
        filters.any(filter, |wanted| {
            event.kind == kind
                && (event.actor.id == wanted
                    || event.actor.id.starts_with(wanted) && wanted.len() >= 4
                    || attribute("name") == Some(wanted))
        })
    };
    let image = filters.any("image", |wanted| {
        let untagged =
            |name: &str| name.rsplit_once(':').map_or(name, |(repository, _)| repository).to_owned();
        let names = match event.kind {
            Kind::Image => [Some(event.actor.id.as_str()), attribute("name")],
            _ => [attribute("image"), None],
        };
        names.into_iter().flatten().any(|name| name == wanted || untagged(name) == wanted)
    });
    filters.any("type", |wanted| event.kind.name() == wanted)
        && filters.any("scope", |wanted| event.scope == wanted)
        // "exec_create: sh" and "health_status: healthy" are asked for by their first word too.
        && filters.any("event", |wanted| {
            event.action == wanted || event.action.split(':').next() == Some(wanted)
        })
        && filters.any("daemon", |wanted| event.kind == Kind::Daemon && event.actor.id == wanted)
        && about("container", Kind::Container)
        && about("volume", Kind::Volume)
        && about("network", Kind::Network)
        && image
        && filters.labels(Some(&event.actor.attributes))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;
    use crate::filters::filters;

    fn attributes(name: &str) -> HashMap<String, String> {
        HashMap::from([
            ("name".to_owned(), name.to_owned()),
            ("image".to_owned(), "busybox:latest".to_owned()),
        ])
    }

    #[tokio::test]
    async fn past_and_coming_events_arrive_once_and_in_order() {
        let bus = Bus::new();
        bus.publish(Kind::Container, "create", "c1", attributes("web"));
        let stream = bus.subscribe(EventOptions { since: Some(0), ..EventOptions::default() }).unwrap();
        bus.publish(Kind::Container, "start", "c1", attributes("web"));
        let seen: Vec<_> = stream.take(2).map(|event| event.unwrap().action).collect().await;
        assert_eq!(seen, ["create", "start"]);
    }

    #[tokio::test]
    async fn until_in_the_past_ends_the_stream() {
        let bus = Bus::new();
        bus.publish(Kind::Image, "pull", "busybox:latest", HashMap::new());
        let options =
            EventOptions { since: Some(0), until: Some(clock::now_ns()), filters: Filters::default() };
        let seen: Vec<_> = bus.subscribe(options).unwrap().collect().await;
        assert_eq!(seen.len(), 1);
    }

    #[tokio::test]
    async fn slow_listener_is_told_and_cut_off() {
        let bus = Bus::new();
        let mut stream = bus.subscribe(EventOptions::default()).unwrap();
        for _ in 0..KEPT * 2 + 1 {
            bus.publish(Kind::Container, "start", "c1", HashMap::new());
        }
        assert_eq!(stream.next().await.unwrap().unwrap_err().code, Code::Unavailable);
        assert!(stream.next().await.is_none());
    }

    #[test]
    fn filters_select_by_type_action_name_image_and_label() {
        let bus = Bus::new();
        let mut with_label = attributes("web");
        with_label.insert("tier".to_owned(), "front".to_owned());
        bus.publish(Kind::Container, "exec_create: sh", "0123456789abcdef", with_label);
        let event = bus.kept.lock().unwrap()[0].clone();
        for fits in [
            filters(&[("type", &["container"])]),
            filters(&[("event", &["exec_create"])]),
            filters(&[("container", &["web"])]),
            filters(&[("container", &["0123456789ab"])]),
            filters(&[("image", &["busybox"])]),
            filters(&[("image", &["busybox:latest"])]),
            filters(&[("label", &["tier=front"])]),
        ] {
            assert!(matches(&fits, &event), "{fits:?}");
        }
        for not in [
            filters(&[("type", &["image"])]),
            filters(&[("event", &["start"])]),
            filters(&[("container", &["db"])]),
            filters(&[("volume", &["web"])]),
            filters(&[("label", &["tier=back"])]),
        ] {
            assert!(!matches(&not, &event), "{not:?}");
        }
    }

    #[test]
    fn old_clients_find_status_id_and_from() {
        let bus = Bus::new();
        bus.publish(Kind::Container, "start", "c1", attributes("web"));
        let json = serde_json::to_value(&bus.kept.lock().unwrap()[0]).unwrap();
        assert_eq!(json["status"], "start");
        assert_eq!(json["from"], "busybox:latest");
        assert_eq!(json["Actor"]["ID"], "c1");
        assert_eq!(json["Type"], "container");
    }
}
