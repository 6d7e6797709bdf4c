//! What POSIX and Linux promise of a file system, by section.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, XattrFlags};
use rustix::io::Errno;
use skiff_fileshare::Access;

use crate::harness::{Mount, tree};

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw_os_error(error.raw_os_error().unwrap())
}

#[test]
fn files_directories_and_links_are_the_same_on_both_sides() {
    let mount = Mount::new();
    let (guest, host) = (&mount.guest, &mount.host);
    fs::create_dir_all(guest.join("a/b")).unwrap();
    fs::write(guest.join("a/file"), "text").unwrap();
    symlink("../file", guest.join("a/b/link")).unwrap();
    fs::hard_link(guest.join("a/file"), guest.join("a/second")).unwrap();
    assert_eq!(fs::read_to_string(guest.join("a/b/link")).unwrap(), "text");
    assert_eq!(fs::metadata(guest.join("a/second")).unwrap().nlink(), 2);
    let inode = |name| fs::metadata(guest.join(name)).unwrap().ino();
    assert_eq!(inode("a/file"), inode("a/second"));
    assert_eq!(inode("a/file"), fs::metadata(host.join("a/file")).unwrap().ino());
    assert_eq!(tree(guest), tree(host));
    assert_eq!(tree(host), ["a/", "a/b/", "a/b/link -> ../file", "a/file: text", "a/second: text"]);

    assert_eq!(errno(&fs::remove_dir(guest.join("a")).unwrap_err()), Errno::NOTEMPTY);
    assert_eq!(errno(&fs::remove_file(guest.join("a/b")).unwrap_err()), Errno::ISDIR);
    assert_eq!(errno(&fs::remove_dir(guest.join("a/file")).unwrap_err()), Errno::NOTDIR);
    assert_eq!(errno(&fs::create_dir(guest.join("a")).unwrap_err()), Errno::EXIST);
    assert_eq!(errno(&fs::read(guest.join("none")).unwrap_err()), Errno::NOENT);
    assert_eq!(errno(&fs::write(guest.join("x".repeat(256)), "").unwrap_err()), Errno::NAMETOOLONG);
    fs::write(guest.join("x".repeat(255)), "").unwrap();
    fs::remove_dir_all(guest.join("a")).unwrap();
    assert_eq!(tree(host).len(), 1);
}

#[test]
fn a_directory_of_thousands_is_listed_whole_while_it_changes() {
    let mount = Mount::new();
    for number in 0..3000 {
        fs::write(mount.host.join(format!("{number:04}-{}", "n".repeat(100))), "").unwrap();
    }
    let mut listing = fs::read_dir(&mount.guest).unwrap();
    let mut seen: Vec<_> = listing.by_ref().take(10).map(|entry| entry.unwrap().file_name()).collect();
    fs::write(mount.guest.join("late"), "").unwrap();
    seen.extend(listing.map(|entry| entry.unwrap().file_name()));
    seen.retain(|name| name != "late");
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3000);
    assert_eq!(fs::read_dir(&mount.guest).unwrap().count(), 3001);
}

#[test]
fn renames_replace_exchange_and_refuse_as_asked() {
    let mount = Mount::new();
    let at = |name: &str| mount.guest.join(name);
    fs::write(at("one"), "1").unwrap();
    fs::write(at("two"), "2").unwrap();
    let rename = |from: &str, to: &str, flags| rustix::fs::renameat_with(CWD, at(from), CWD, at(to), flags);
    assert_eq!(rename("one", "two", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename("one", "two", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(tree(&mount.host), ["one: 2", "two: 1"]);
    assert_eq!(tree(&mount.guest), ["one: 2", "two: 1"]);
    fs::rename(at("one"), at("two")).unwrap();
    assert_eq!(tree(&mount.guest), ["two: 2"]);
    fs::create_dir_all(at("d/e")).unwrap();
    assert_eq!(errno(&fs::rename(at("d"), at("d/e/f")).unwrap_err()), Errno::INVAL);
    assert_eq!(errno(&fs::rename(at("two"), at("d")).unwrap_err()), Errno::ISDIR);
    fs::rename(at("d"), at("moved")).unwrap();
    fs::write(at("moved/e/file"), "in").unwrap();
    assert_eq!(tree(&mount.host), ["moved/", "moved/e/", "moved/e/file: in", "two: 2"]);
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    let mount = Mount::new();
    let path = mount.guest.join("file");
    let mut file = fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(b"before ").unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all(b"after").unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before after");
    assert_eq!(file.metadata().unwrap().len(), 12);
    file.set_len(3).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 3);
    file.sync_all().unwrap();
    assert_eq!(tree(&mount.host), Vec::<String>::new());
}

#[test]
fn an_open_file_stays_the_same_whatever_becomes_of_its_name() {
    let mount = Mount::new();
    for (name, text) in
        [("gone", "gone"), ("replaced", "old"), ("moved", "moved"), ("hosts", "old"), ("new", "new")]
    {
        fs::write(mount.host.join(name), text).unwrap();
    }
    let open = |name| fs::File::options().read(true).write(true).open(mount.guest.join(name)).unwrap();
    let files = ["gone", "replaced", "moved", "hosts"].map(open);
    fs::remove_file(mount.guest.join("gone")).unwrap();
    fs::rename(mount.guest.join("new"), mount.guest.join("replaced")).unwrap();
    fs::rename(mount.host.join("moved"), mount.host.join("elsewhere")).unwrap();
    fs::remove_file(mount.host.join("hosts")).unwrap();
    fs::write(mount.host.join("hosts"), "another").unwrap();
    mount.settle();
    for (file, text) in files.iter().zip(["gone", "old", "moved", "old"]) {
        file.write_at(b"!", text.len() as u64).unwrap();
        let mut bytes = vec![0; text.len() + 1];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), format!("{text}!"));
        file.sync_all().unwrap();
    }
    assert_eq!(tree(&mount.host), ["elsewhere: moved!", "hosts: another", "replaced: new"]);
}

#[test]
fn a_file_is_written_by_who_made_it_even_if_nobody_else_may() {
    let mount = Mount::new();
    let path = mount.guest.join("object");
    let mut file = fs::File::options().write(true).create_new(true).mode(0o444).open(&path).unwrap();
    for part in ["one ", "two ", "three"] {
        file.write_all(part.as_bytes()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    drop(file);
    assert_eq!(tree(&mount.host), ["object: one two three"]);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o444);
}

#[test]
fn what_is_cached_is_opened_and_read_without_a_request() {
    let mount = Mount::new();
    fs::write(mount.host.join("file"), "text").unwrap();
    mount.settle();
    let read = || assert_eq!(fs::read_to_string(mount.guest.join("file")).unwrap(), "text");
    // The first time takes messages, and leaves the access time to be asked for.
    read();
    read();
    let before = mount.requests();
    for _ in 0..20 {
        read();
    }
    assert_eq!(mount.requests(), before);
}

#[test]
fn a_program_written_inside_can_be_run_outside() {
    let mount = Mount::new();
    let (inside, outside) = (mount.guest.join("program"), mount.host.join("program"));
    fs::copy("/bin/true", &outside).unwrap();
    fs::write(&inside, fs::read("/bin/true").unwrap()).unwrap();
    // As long as it is open to be written, it can't be run.
    let patience = std::time::Instant::now();
    loop {
        match std::process::Command::new(&outside).status() {
            Ok(status) => break assert!(status.success()),
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                assert!(patience.elapsed().as_secs() < 20, "{error}");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn appends_go_to_the_end_whoever_else_writes() {
    let mount = Mount::new();
    let open = |path| fs::File::options().append(true).create(true).open(path).unwrap();
    let (mut inside, mut outside) = (open(mount.guest.join("log")), open(mount.host.join("log")));
    for _ in 0..50 {
        inside.write_all(b"guest\n").unwrap();
        outside.write_all(b"host!\n").unwrap();
    }
    let text = fs::read_to_string(mount.host.join("log")).unwrap();
    assert_eq!(text, "guest\nhost!\n".repeat(50));
    mount.settle();
    assert_eq!(fs::read_to_string(mount.guest.join("log")).unwrap(), text);
}

#[test]
fn holes_allocation_and_copies_within_the_host_work() {
    let mount = Mount::new();
    let path = mount.guest.join("sparse");
    let file = fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    file.set_len(8 << 20).unwrap();
    file.write_at(b"data", 4 << 20).unwrap();
    // Where the host's file system has no holes, the whole file is data.
    let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap();
    assert!(data == 4 << 20 || data == 0, "{data}");
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 9 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 9 << 20);
    match rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 4 << 20, 4096)
    {
        Ok(()) => {
            let mut bytes = [1; 4];
            file.read_exact_at(&mut bytes, 4 << 20).unwrap();
            assert_eq!(bytes, [0; 4]);
        }
        Err(errno) => assert_eq!(errno, Errno::OPNOTSUPP),
    }
    file.write_at(b"copied", 100).unwrap();
    let target = fs::File::create(mount.guest.join("target")).unwrap();
    let mut from = 100;
    let copied = rustix::fs::copy_file_range(&file, Some(&mut from), &target, None, 6).unwrap();
    assert_eq!((copied, fs::read(mount.host.join("target")).unwrap()), (6, b"copied".to_vec()));
    assert_eq!(fs::read(mount.guest.join("target")).unwrap(), b"copied");
}

#[test]
fn large_writes_and_reads_keep_every_byte() {
    let mount = Mount::new();
    let content: Vec<u8> =
        (0..5_000_003u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(mount.guest.join("big"), &content).unwrap();
    assert!(fs::read(mount.host.join("big")).unwrap() == content);
    assert!(fs::read(mount.guest.join("big")).unwrap() == content);
    let mut file = fs::File::open(mount.guest.join("big")).unwrap();
    file.seek(SeekFrom::Start(4_999_999)).unwrap();
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).unwrap();
    assert_eq!(tail, content[4_999_999..]);
}

#[test]
fn owners_and_permissions_are_remembered_and_the_hosts_owner_stays() {
    let mount = Mount::new();
    let (guest, host) = (mount.guest.join("file"), mount.host.join("file"));
    fs::write(&guest, "x").unwrap();
    let owner = fs::metadata(&host).unwrap().uid();
    std::os::unix::fs::chown(&guest, Some(999), Some(998)).unwrap();
    fs::set_permissions(&guest, fs::Permissions::from_mode(0o4444)).unwrap();
    let shown = fs::metadata(&guest).unwrap();
    assert_eq!((shown.uid(), shown.gid(), shown.mode() & 0o7777), (999, 998, 0o444));
    let real = fs::metadata(&host).unwrap();
    assert_eq!((real.uid(), real.mode() & 0o7777), (owner, 0o644));
    // Another name does not change whose it is, and links have owners too.
    fs::rename(&guest, mount.guest.join("moved")).unwrap();
    assert_eq!(fs::metadata(mount.guest.join("moved")).unwrap().uid(), 999);
    symlink("x", mount.guest.join("link")).unwrap();
    std::os::unix::fs::lchown(mount.guest.join("link"), Some(7), Some(8)).unwrap();
    assert_eq!(fs::symlink_metadata(mount.guest.join("link")).unwrap().uid(), 7);
    // setuid of the host means nothing in a container.
    fs::write(mount.host.join("suid"), "").unwrap();
    fs::set_permissions(mount.host.join("suid"), fs::Permissions::from_mode(0o6755)).unwrap();
    assert_eq!(fs::metadata(mount.guest.join("suid")).unwrap().mode() & 0o7777, 0o755);
    // The bookkeeping is not shown.
    let mut list = [0u8; 256];
    assert_eq!(rustix::fs::listxattr(mount.guest.join("moved"), &mut list[..]), Ok(0));
}

#[test]
fn extended_attributes_of_users_pass_and_others_do_not() {
    let mount = Mount::new();
    let path = mount.guest.join("file");
    fs::write(&path, "").unwrap();
    let none = XattrFlags::empty();
    rustix::fs::setxattr(&path, "user.colour", b"blue", none).unwrap();
    let mut value = [0u8; 64];
    assert_eq!(rustix::fs::getxattr(&path, "user.colour", &mut value[..]), Ok(4));
    assert_eq!(&value[..4], b"blue");
    assert_eq!(rustix::fs::getxattr(mount.host.join("file"), "user.colour", &mut value[..]), Ok(4));
    assert_eq!(rustix::fs::setxattr(&path, "user.colour", b"", XattrFlags::CREATE), Err(Errno::EXIST));
    for name in ["user.skiff.owner", "trusted.x", "security.capability"] {
        assert!(rustix::fs::setxattr(&path, name, b"0:0:", none).is_err(), "{name}");
    }
    rustix::fs::removexattr(&path, "user.colour").unwrap();
    assert_eq!(rustix::fs::getxattr(&path, "user.colour", &mut value[..]), Err(Errno::NODATA));
}

#[test]
fn pipes_and_sockets_work_and_devices_are_refused() {
    let mount = Mount::new();
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, mount.guest.join("pipe"), FileType::Fifo, mode, 0).unwrap();
    let listener = UnixListener::bind(mount.guest.join("socket")).unwrap();
    let mut client = UnixStream::connect(mount.guest.join("socket")).unwrap();
    client.write_all(b"hi").unwrap();
    let mut bytes = [0; 2];
    listener.accept().unwrap().0.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hi");
    let device = rustix::fs::mknodat(CWD, mount.guest.join("dev"), FileType::CharacterDevice, mode, 0x103);
    assert_eq!(device, Err(Errno::PERM));
    // A pipe of the host must not stop the server when the guest looks at it.
    assert!(fs::symlink_metadata(mount.guest.join("pipe")).is_ok());
}

#[test]
fn times_are_set_and_kept() {
    let mount = Mount::new();
    let path = mount.guest.join("file");
    let file = fs::File::create(&path).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    file.set_modified(time).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), time);
    assert_eq!(fs::metadata(mount.host.join("file")).unwrap().modified().unwrap(), time);
    let old = fs::metadata(&path).unwrap().ctime_nsec();
    rustix::fs::utimensat(CWD, &path, &now(), AtFlags::empty()).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.modified().unwrap() > time && metadata.ctime_nsec() != old);
}

fn now() -> rustix::fs::Timestamps {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    rustix::fs::Timestamps { last_access: now, last_modification: now }
}

#[test]
fn locks_are_kept_between_processes_of_the_guest() {
    let mount = Mount::new();
    let path = mount.guest.join("lock");
    let (one, two) = (fs::File::create(&path).unwrap(), fs::File::open(&path).unwrap());
    one.lock().unwrap();
    assert!(matches!(two.try_lock(), Err(fs::TryLockError::WouldBlock)));
    one.unlock().unwrap();
    two.try_lock().unwrap();
}

#[test]
fn a_read_only_share_is_read_only_whatever_the_guest_does() {
    let mount = Mount::with(Access::ReadOnly);
    fs::write(mount.host.join("file"), "text").unwrap();
    let path = mount.guest.join("file");
    assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    for result in [
        fs::write(&path, "").map(drop),
        fs::write(mount.guest.join("new"), "").map(drop),
        fs::remove_file(&path),
        fs::create_dir(mount.guest.join("dir")),
        fs::rename(&path, mount.guest.join("other")),
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)),
        symlink("x", mount.guest.join("link")),
        fs::OpenOptions::new().read(true).custom_flags(0o1000).open(&path).map(drop),
    ] {
        assert_eq!(errno(&result.unwrap_err()), Errno::ROFS);
    }
    assert_eq!(tree(&mount.host), ["file: text"]);
}

#[test]
fn symlinks_of_the_share_lead_nowhere_on_the_host() {
    let mount = Mount::new();
    let secret = tempfile::NamedTempFile::new().unwrap();
    symlink(secret.path(), mount.host.join("out")).unwrap();
    // The server shows the link; where it leads is the guest's business.
    assert_eq!(fs::read_link(mount.guest.join("out")).unwrap(), secret.path());
    let nofollow = fs::OpenOptions::new().read(true).custom_flags(0o400_000).open(mount.guest.join("out"));
    assert_eq!(errno(&nofollow.unwrap_err()), Errno::LOOP);
}
