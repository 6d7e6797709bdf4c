//! The receiving end: what the client says it has goes into a sink, which tells what of it is to be sent.

use std::collections::{HashMap, HashSet};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use futures_util::{Stream, StreamExt};
use rustix::fs::FileType;
use skiff_build::{ContextEntry, ContextSink, EntryKind, Wanted};
use thiserror::Error;
use tokio::sync::mpsc;
use tonic::Status;

use super::mode::Mode;
use super::order::{Order, PathError, check_clean};

/// The most entries of one tree.
const ENTRIES_LIMIT: u32 = 2 << 20;
/// The most bytes of one file's attributes, as the kernel has it.
const XATTR_LIMIT: usize = 64 << 10;

/// Why a tree could not be received.
#[derive(Debug, Error)]
pub(crate) enum ReceiveError {
    /// A path breaks the rules.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The sender did something that no sender does.
    #[error("invalid file transfer: {what}")]
    Protocol {
        /// What it was.
        what: String,
    },
    /// More entries than any tree may have.
    #[error("too many files: at most {ENTRIES_LIMIT} may be sent")]
    TooMany,
    /// Whoever takes the tree can't.
    #[error(transparent)]
    Sink(skiff_build::Error),
    /// The sender gave up and said why.
    #[error("error from sender: {message}")]
    Sender {
        /// Its words.
        message: String,
    },
    /// The connection failed.
    #[error("{}", .0.message())]
    Transport(Status),
    /// The sender left in the middle.
    #[error("the file transfer ended early")]
    Ended,
}

/// Is told what came last, and how many bytes came so far.
pub(crate) type OnBytes<'a> = &'a (dyn for<'b> Fn(&'b str, u64) + Send + Sync);

/// Receives a tree.
///
/// # Errors
/// See [`ReceiveError`].
pub(crate) async fn receive(
    mut packets: impl Stream<Item = Result<Packet, Status>> + Send + Unpin,
    requests: mpsc::UnboundedSender<Packet>,
    sink: &mut dyn ContextSink,
    on_bytes: OnBytes<'_>,
) -> Result<(), ReceiveError> {
    let mut transfer = Transfer::new(sink);
    while !transfer.is_complete() {
        let packet = match packets.next().await {
            Some(Ok(packet)) => packet,
            Some(Err(status)) => return Err(ReceiveError::Transport(status)),
            None => return Err(ReceiveError::Ended),
        };
        match transfer.take(packet, on_bytes) {
            Ok(None) => {}
            // At most one request for each entry, and entries are bounded.
            Ok(Some(request)) => requests.send(request).map_err(|_| ReceiveError::Ended)?,
            Err(error) => {
                let data = error.to_string().into_bytes();
                let _ =
                    requests.send(Packet { r#type: PacketType::PacketErr.into(), data, ..Packet::default() });
                return Err(error);
            }
        }
    }
    let end = Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() };
    requests.send(end).map_err(|_| ReceiveError::Ended)?;
    // The sender repeats the end; that it rather hangs up is all the same.
    while let Some(Ok(packet)) = packets.next().await {
        if packet.r#type() == PacketType::PacketFin {
            break;
        }
    }
    Ok(())
}

/// The state of a transfer, without its connection.
struct Transfer<'a> {
    sink: &'a mut dyn ContextSink,
    order: Order,
    /// Regular files that came: what links may name.
    regular: HashSet<String>,
    /// Files whose data is asked for, by the number of their entry.
    wanted: HashMap<u32, String>,
    next_id: u32,
    listed: bool,
    bytes: u64,
}

impl<'a> Transfer<'a> {
    fn new(sink: &'a mut dyn ContextSink) -> Self {
        Self {
            sink,
            order: Order::default(),
            regular: HashSet::new(),
            wanted: HashMap::new(),
            next_id: 0,
            listed: false,
            bytes: 0,
        }
    }

    /// Whether everything that was asked for has come.
    fn is_complete(&self) -> bool {
        self.listed && self.wanted.is_empty()
    }

    /// Takes the next packet; returns what is to be asked for because of it.
    fn take(&mut self, packet: Packet, on_bytes: OnBytes<'_>) -> Result<Option<Packet>, ReceiveError> {
        match packet.r#type() {
            PacketType::PacketStat if self.listed => Err(protocol("an entry after the end of the list")),
            PacketType::PacketStat => match packet.stat {
                Some(stat) => self.entry(stat),
                None => {
                    self.listed = true;
                    Ok(None)
                }
            },
            PacketType::PacketData => {
                let path = self.wanted.get(&packet.id);
                let path =
                    path.ok_or_else(|| protocol(format!("data of {}, which nobody asked for", packet.id)))?;
                if packet.data.is_empty() {
                    self.wanted.remove(&packet.id);
                    self.sink.end(packet.id).map_err(ReceiveError::Sink)?;
                } else {
                    self.bytes += packet.data.len() as u64;
                    on_bytes(path, self.bytes);
                    self.sink.data(packet.id, &packet.data).map_err(ReceiveError::Sink)?;
                }
                Ok(None)
            }
            PacketType::PacketErr => {
                Err(ReceiveError::Sender { message: String::from_utf8_lossy(&packet.data).into_owned() })
            }
            PacketType::PacketReq => Err(protocol("a request from the sender")),
            PacketType::PacketFin => Err(protocol("the end before all files were sent")),
        }
    }

    fn entry(&mut self, stat: Stat) -> Result<Option<Packet>, ReceiveError> {
        let id = self.next_id;
        if id >= ENTRIES_LIMIT {
            return Err(ReceiveError::TooMany);
        }
        self.next_id += 1;
        let mode = Mode::from_go(stat.mode)
            .ok_or_else(|| protocol(format!("{:?} has the mode {:#o}", stat.path, stat.mode)))?;
        self.order.accept(&stat.path, mode.kind == FileType::Directory)?;
        let size: usize = stat.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size > XATTR_LIMIT {
            return Err(protocol(format!("{:?} has {size} bytes of attributes", stat.path)));
        }
        let kind = match mode.kind {
            FileType::Directory => EntryKind::Directory,
            FileType::RegularFile if stat.linkname.is_empty() => {
                let size = u64::try_from(stat.size)
                    .map_err(|_| protocol(format!("{:?} has the size {}", stat.path, stat.size)))?;
                self.regular.insert(stat.path.clone());
                EntryKind::File { size }
            }
            FileType::RegularFile => {
                check_clean(&stat.linkname)?;
                if !self.regular.contains(&stat.linkname) {
                    return Err(protocol(format!(
                        "{:?} is a link to {:?}, which did not come before",
                        stat.path, stat.linkname
                    )));
                }
                self.regular.insert(stat.path.clone());
                EntryKind::HardLink { target: stat.linkname.into_bytes() }
            }
            FileType::Symlink => EntryKind::Symlink { target: stat.linkname.into_bytes() },
            FileType::Fifo => EntryKind::Fifo,
            FileType::CharacterDevice => EntryKind::Char { device: device(&stat)? },
            FileType::BlockDevice => EntryKind::Block { device: device(&stat)? },
            // Nobody listens on it here.
            _ => return Ok(None),
        };
        let is_file = matches!(kind, EntryKind::File { .. });
        let entry = ContextEntry {
            path: stat.path.clone().into_bytes(),
            kind,
            mode: mode.permissions,
            uid: stat.uid,
            gid: stat.gid,
            mtime: time(stat.mod_time),
            xattrs: stat.xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect(),
        };
        match self.sink.entry(id, entry, true).map_err(ReceiveError::Sink)? {
            Wanted::Yes if is_file => {
                self.wanted.insert(id, stat.path);
                Ok(Some(Packet { r#type: PacketType::PacketReq.into(), id, ..Packet::default() }))
            }
            Wanted::Yes | Wanted::No => Ok(None),
        }
    }
}

fn device(stat: &Stat) -> Result<(u32, u32), ReceiveError> {
    match (u32::try_from(stat.devmajor), u32::try_from(stat.devminor)) {
        (Ok(major), Ok(minor)) => Ok((major, minor)),
        _ => Err(protocol(format!("{:?} has no such device number", stat.path))),
    }
}

fn time(nanoseconds: i64) -> (i64, u32) {
    const SECOND: i64 = 1_000_000_000;
    (nanoseconds.div_euclid(SECOND), u32::try_from(nanoseconds.rem_euclid(SECOND)).unwrap_or(0))
}

fn protocol(what: impl Into<String>) -> ReceiveError {
    ReceiveError::Protocol { what: what.into() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Remembers everything; wants what it is told to want.
    #[derive(Default)]
    struct Memory {
        entries: BTreeMap<u32, ContextEntry>,
        data: BTreeMap<u32, Vec<u8>>,
        ended: Vec<u32>,
        known: bool,
    }

    impl ContextSink for Memory {
        fn entry(&mut self, id: u32, entry: ContextEntry, _: bool) -> skiff_build::Result<Wanted> {
            let wanted = matches!(entry.kind, EntryKind::File { .. }) && !self.known;
            assert!(self.entries.insert(id, entry).is_none());
            Ok(if wanted { Wanted::Yes } else { Wanted::No })
        }

        fn data(&mut self, id: u32, bytes: &[u8]) -> skiff_build::Result<()> {
            assert!(!self.ended.contains(&id));
            self.data.entry(id).or_default().extend_from_slice(bytes);
            Ok(())
        }

        fn end(&mut self, id: u32) -> skiff_build::Result<()> {
            self.ended.push(id);
            Ok(())
        }
    }

    fn stat(path: &str, mode: u32) -> Packet {
        let stat = Stat { path: path.to_owned(), mode, ..Stat::default() };
        Packet { stat: Some(stat), ..Packet::default() }
    }

    fn data(id: u32, data: &[u8]) -> Packet {
        Packet { r#type: PacketType::PacketData.into(), id, data: data.to_vec(), stat: None }
    }

    const DIR: u32 = (1 << 31) | 0o755;

    fn run(packets: Vec<Packet>, sink: &mut Memory) -> (Result<(), ReceiveError>, Vec<Packet>) {
        let (requests, mut asked) = mpsc::unbounded_channel();
        let packets = futures_util::stream::iter(packets.into_iter().map(Ok));
        let outcome = futures_util::FutureExt::now_or_never(receive(packets, requests, sink, &|_, _| {}))
            .expect("everything is at hand");
        let mut all = Vec::new();
        while let Ok(packet) = asked.try_recv() {
            all.push(packet);
        }
        (outcome, all)
    }

    #[test]
    fn files_are_asked_for_by_the_number_of_their_entry_and_may_come_interleaved() {
        let mut sink = Memory::default();
        let fin = Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() };
        let packets = vec![
            stat("a", DIR),
            stat("a/x", 0o644),
            stat("a/y", 0o4755),
            Packet::default(),
            data(1, b"on"),
            data(2, b"two"),
            data(1, b"e"),
            data(2, b""),
            data(1, b""),
            fin.clone(),
        ];
        let (outcome, asked) = run(packets, &mut sink);
        outcome.unwrap();
        let ids: Vec<u32> = asked.iter().map(|packet| packet.id).collect();
        assert_eq!(ids, [1, 2, 0]);
        assert_eq!(asked[2].r#type(), PacketType::PacketFin);
        assert_eq!(sink.data, BTreeMap::from([(1, b"one".to_vec()), (2, b"two".to_vec())]));
        assert_eq!(sink.ended, [2, 1]);
        assert_eq!(sink.entries[&0].kind, EntryKind::Directory);
    }

    #[test]
    fn what_is_known_is_not_asked_for() {
        let mut sink = Memory { known: true, ..Memory::default() };
        let (outcome, asked) = run(vec![stat("x", 0o644), Packet::default()], &mut sink);
        outcome.unwrap();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].r#type(), PacketType::PacketFin);
    }

    #[test]
    fn hostile_senders_are_refused_and_told_so() {
        let link = |path: &str, target: &str| {
            let stat =
                Stat { path: path.to_owned(), mode: 0o644, linkname: target.to_owned(), ..Stat::default() };
            Packet { stat: Some(stat), ..Packet::default() }
        };
        for packets in [
            vec![stat("../a", 0o644)],
            vec![stat("/a", 0o644)],
            vec![stat("a", 0o644), stat("a/b", 0o644)],
            vec![stat("a", 1 << 27), stat("a/b", 0o644)],
            vec![data(0, b"x")],
            vec![stat("a", DIR), data(0, b"x")],
            vec![link("b", "a")],
            vec![stat("a", 1 << 27), link("b", "a")],
            vec![link("b", "../../etc/passwd")],
            vec![stat("a", u32::MAX)],
            vec![stat("a", 0o644), Packet::default(), stat("b", 0o644)],
            vec![stat("a", 0o644), Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() }],
        ] {
            let text = format!("{packets:?}");
            let (outcome, asked) = run(packets, &mut Memory::default());
            assert!(outcome.is_err(), "{text}");
            assert_eq!(asked.last().map(Packet::r#type), Some(PacketType::PacketErr), "{text}");
        }
    }

    #[test]
    fn the_senders_own_error_is_shown() {
        let error =
            Packet { r#type: PacketType::PacketErr.into(), data: b"gone".to_vec(), ..Packet::default() };
        let (outcome, _) = run(vec![error], &mut Memory::default());
        assert_eq!(outcome.unwrap_err().to_string(), "error from sender: gone");
        let (outcome, _) = run(vec![stat("a", 0o644)], &mut Memory::default());
        assert!(matches!(outcome, Err(ReceiveError::Ended)));
    }

    proptest! {
        #[test]
        fn whatever_comes_the_sink_sees_only_what_the_rules_allow(
            packets in proptest::collection::vec(
                (0..6_i32, "[ab./]{0,4}", prop_oneof![Just(0o644_u32), Just(DIR), Just(1 << 27), any::<u32>()], 0..4_u32, "[ab]{0,2}"),
                0..40,
            ),
        ) {
            let packets = packets.into_iter().map(|(kind, path, mode, id, text)| {
                let stat = Stat { path, mode, linkname: text.clone(), ..Stat::default() };
                Packet { r#type: kind, stat: Some(stat), id, data: text.into_bytes() }
            }).collect();
            let mut sink = Memory::default();
            let _ = run(packets, &mut sink);
            for id in sink.data.keys().chain(&sink.ended) {
                let is_file = matches!(sink.entries[id].kind, EntryKind::File { .. });
                prop_assert!(is_file);
            }
            for entry in sink.entries.values() {
                let clean = entry.path.split(|byte| *byte == b'/').all(|name| !matches!(name, b"" | b"." | b".."));
                prop_assert!(clean);
            }
        }
    }
}
