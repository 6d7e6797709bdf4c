//! A root file system with busybox, as a tar.

const APPLETS: &[&str] = &[
    "sh", "true", "false", "echo", "cat", "sleep", "wc", "seq", "id", "hostname", "kill", "printf", "ls",
    "env",
];

pub fn busybox() -> Vec<u8> {
    let program = ["/usr/bin/busybox", "/bin/busybox"].iter().find_map(|path| std::fs::read(path).ok());
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, bytes: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        match link {
            Some(link) => tar.append_link(&mut header, path, link).unwrap(),
            None => tar.append_data(&mut header, path, bytes).unwrap(),
        }
    };
    for dir in ["bin/", "etc/", "tmp/", "srv/"] {
        add(dir, tar::EntryType::Directory, 0o755, &[], None);
    }
    add("bin/busybox", tar::EntryType::Regular, 0o755, &program.expect("busybox is installed"), None);
    for applet in APPLETS {
        add(&format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, &[], Some("busybox"));
    }
    add("etc/passwd", tar::EntryType::Regular, 0o644, b"root:x:0:0:root:/root:/bin/sh\n", None);
    add("etc/group", tar::EntryType::Regular, 0o644, b"root:x:0:\n", None);
    add("srv/content", tar::EntryType::Regular, 0o644, b"from the image\n", None);
    tar.into_inner().unwrap()
}
