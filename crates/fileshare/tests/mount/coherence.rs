//! Changes of the host: seen at once by those who look, and as events by those who listen.

use std::fs;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use crate::harness::{Mount, tree};

/// Hears what happens in one directory, as a program in a container does.
struct Listener(OwnedFd);

impl Listener {
    fn new(directory: &Path) -> Listener {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        let all = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO;
        inotify::add_watch(&inotify, directory, all).unwrap();
        Listener(inotify)
    }

    /// What was heard since the last call, in words; equal neighbours are one.
    fn heard(&self) -> Vec<String> {
        let mut heard: Vec<String> = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 65_536];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        while let Ok(event) = reader.next() {
            let words = [
                (ReadFlags::CREATE, "create"),
                (ReadFlags::DELETE, "delete"),
                (ReadFlags::MODIFY, "modify"),
                (ReadFlags::ATTRIB, "attrib"),
                (ReadFlags::MOVED_FROM, "from"),
                (ReadFlags::MOVED_TO, "to"),
            ];
            let word =
                words.iter().find(|(flag, _)| event.events().contains(*flag)).map_or("?", |(_, word)| word);
            let name = event.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let text = format!("{word} {name}");
            if heard.last() != Some(&text) {
                heard.push(text);
            }
        }
        heard
    }
}

#[test]
fn what_the_host_changes_is_seen_at_the_next_look() {
    let mount = Mount::new();
    let (guest, host) = (&mount.guest, &mount.host);
    fs::create_dir_all(host.join("d/e")).unwrap();
    fs::write(host.join("d/file"), "old").unwrap();
    assert_eq!(tree(guest), ["d/", "d/e/", "d/file: old"]);
    assert!(!guest.join("d/late").exists());

    fs::write(host.join("d/file"), "new!").unwrap();
    fs::write(host.join("d/late"), "x").unwrap();
    fs::rename(host.join("d/e"), host.join("f")).unwrap();
    symlink("file", host.join("d/link")).unwrap();
    mount.settle();
    assert_eq!(tree(guest), ["d/", "d/file: new!", "d/late: x", "d/link -> file", "f/"]);

    // The same length within the same moment.
    for round in 0..50 {
        let text = format!("{round:04}");
        fs::write(host.join("d/file"), &text).unwrap();
        mount.settle();
        assert_eq!(fs::read_to_string(guest.join("d/file")).unwrap(), text);
    }
    fs::remove_dir_all(host.join("d")).unwrap();
    mount.settle();
    assert_eq!(tree(guest), ["f/"]);
}

#[test]
fn a_file_that_changes_under_a_name_which_nobody_watches_is_read_anew() {
    let mount = Mount::new();
    let elsewhere = tempfile::tempdir_in(mount.host.parent().unwrap()).unwrap();
    let other = elsewhere.path().join("other");
    fs::write(&other, "one").unwrap();
    fs::hard_link(&other, mount.host.join("file")).unwrap();
    let read = || fs::read_to_string(mount.guest.join("file")).unwrap();
    assert_eq!(read(), "one");
    for text in ["two", "three"] {
        fs::write(&other, text).unwrap();
        let patience = Instant::now();
        while read() != text {
            assert!(patience.elapsed().as_secs() < 20, "it still reads {:?}", read());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn programs_hear_of_the_hosts_changes_as_of_their_own() {
    let mount = Mount::new();
    let host = &mount.host;
    fs::write(host.join("known"), "1").unwrap();
    mount.settle();
    let listener = Listener::new(&mount.guest);
    let hear = || {
        mount.settle();
        listener.heard()
    };
    fs::write(host.join("known"), "22").unwrap();
    assert_eq!(hear(), ["modify known"]);
    std::os::unix::net::UnixListener::bind(host.join("socket")).unwrap();
    assert_eq!(hear(), ["create socket"]);
    fs::create_dir(host.join("dir")).unwrap();
    assert_eq!(hear(), ["create dir"]);
    symlink("known", host.join("link")).unwrap();
    assert_eq!(hear(), ["create link"]);
    fs::write(host.join("new"), "text").unwrap();
    assert_eq!(hear(), ["create new", "modify new"]);
    fs::rename(host.join("new"), host.join("newer")).unwrap();
    assert_eq!(hear(), ["from new", "to newer"]);
    fs::set_permissions(host.join("newer"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(hear(), ["attrib newer"]);
    // How editors save: a new file takes the old one's place.
    fs::write(host.join("known.tmp"), "333").unwrap();
    fs::rename(host.join("known.tmp"), host.join("known")).unwrap();
    assert_eq!(hear(), ["create known.tmp", "modify known.tmp", "from known.tmp", "to known"]);
    assert_eq!(fs::read_to_string(mount.guest.join("known")).unwrap(), "333");
    fs::remove_file(host.join("newer")).unwrap();
    fs::remove_dir(host.join("dir")).unwrap();
    assert_eq!(hear(), ["delete newer", "delete dir"]);
    // One that nobody in the guest has ever seen, and that is gone already.
    fs::write(host.join("brief"), "").unwrap();
    fs::remove_file(host.join("brief")).unwrap();
    assert_eq!(hear(), ["create brief", "delete brief"]);
    // Several kinds of change, made before anybody looks: each look shows all of them.
    for mode in [0o600, 0o644] {
        fs::OpenOptions::new().append(true).open(host.join("known")).unwrap().write_all(b"4").unwrap();
        fs::set_permissions(host.join("known"), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    assert_eq!(hear(), ["modify known", "attrib known", "modify known", "attrib known"]);
    // And one whose changes are reported when there is nothing to look at any more.
    fs::write(host.join("gone"), "text").unwrap();
    fs::set_permissions(host.join("gone"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::remove_file(host.join("gone")).unwrap();
    assert_eq!(hear(), ["create gone", "modify gone", "attrib gone", "delete gone"]);
    // Nothing was done on the host by all this.
    assert_eq!(tree(host), ["known: 33344", "link -> known", "socket: "]);
    assert_eq!(tree(&mount.guest), tree(host));
}

#[test]
fn a_change_is_heard_however_soon_its_name_moves_on() {
    let mount = Mount::new();
    let host = &mount.host;
    fs::write(host.join("known"), "").unwrap();
    mount.settle();
    let listener = Listener::new(&mount.guest);
    for round in 0..300u32 {
        // The move meets the new name's way into the guest at every stage.
        let pause = Duration::from_micros(u64::from(round % 100) * 10);
        fs::write(host.join("known.tmp"), round.to_string()).unwrap();
        let since = Instant::now();
        while since.elapsed() < pause {
            std::hint::spin_loop();
        }
        fs::rename(host.join("known.tmp"), host.join("known")).unwrap();
        mount.settle();
        let all = ["create known.tmp", "modify known.tmp", "from known.tmp", "to known"];
        assert_eq!(listener.heard(), all, "round {round}");
    }
}

#[test]
fn the_guests_own_changes_are_heard_once() {
    let mount = Mount::new();
    let guest = &mount.guest;
    let listener = Listener::new(guest);
    fs::write(guest.join("a"), "1").unwrap();
    fs::write(guest.join("a"), "22").unwrap();
    fs::rename(guest.join("a"), guest.join("b")).unwrap();
    fs::create_dir(guest.join("d")).unwrap();
    fs::remove_dir(guest.join("d")).unwrap();
    fs::remove_file(guest.join("b")).unwrap();
    mount.settle();
    std::thread::sleep(Duration::from_millis(50));
    mount.settle();
    let expected = ["create a", "modify a", "from a", "to b", "create d", "delete d", "delete b"];
    assert_eq!(listener.heard(), expected);
}

#[test]
fn a_burst_of_changes_is_heard_whole() {
    const FILES: usize = 1000;
    let mount = Mount::new();
    let listener = Listener::new(&mount.guest);
    let started = Instant::now();
    for number in 0..FILES {
        fs::write(mount.host.join(format!("{number}")), "text").unwrap();
        if number % 2 == 0 {
            fs::remove_file(mount.host.join(format!("{number}"))).unwrap();
        }
    }
    mount.settle();
    let heard = listener.heard();
    eprintln!("{} events in {:?}", heard.len(), started.elapsed());
    for number in 0..FILES {
        let count = |word: &str| heard.iter().filter(|text| **text == format!("{word} {number}")).count();
        assert_eq!((count("create"), count("delete")), (1, usize::from(number % 2 == 0)), "{number}");
    }
    assert_eq!(fs::read_dir(&mount.guest).unwrap().count(), FILES / 2);
}

#[test]
fn both_sides_may_write_the_same_tree_at_once() {
    let mount = Mount::new();
    std::thread::scope(|scope| {
        for (side, root) in [("guest", &mount.guest), ("guest2", &mount.guest), ("host", &mount.host)] {
            scope.spawn(move || {
                for number in 0..150 {
                    let directory = root.join(format!("d{}", number % 5));
                    let _ = fs::create_dir(&directory);
                    let path = directory.join(format!("{side}-{number}"));
                    fs::write(&path, side).unwrap();
                    if number % 3 == 0 {
                        fs::rename(&path, directory.join(format!("{side}-{number}-moved"))).unwrap();
                    } else if number % 7 == 1 {
                        fs::remove_file(&path).unwrap();
                    }
                }
            });
        }
    });
    mount.settle();
    assert_eq!(tree(&mount.guest), tree(&mount.host));
    assert!(tree(&mount.host).len() > 300);
}
