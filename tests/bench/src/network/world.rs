//! What is beyond this host: a network namespace behind a veth pair, with a server.

use std::process::{Command, Stdio};

use anyhow::Context;

use crate::process::{Running, check};

/// The server's address.
pub const SERVER: &str = "198.18.78.2:4711";

/// The namespace and its server; they go with it.
pub struct World {
    name: String,
    server: Option<Running>,
}

impl World {
    /// Makes it beside this thread's network namespace.
    pub fn new() -> anyhow::Result<Self> {
        let name = format!("skb{}", std::process::id() % 100_000);
        let mut world = Self { name, server: None };
        let name = &world.name;
        for line in [
            format!("netns add {name}"),
            format!("link add {name}h type veth peer name {name}n netns {name}"),
            format!("addr add 198.18.78.1/24 dev {name}h"),
            format!("link set {name}h up"),
            format!("-n {name} addr add 198.18.78.2/24 dev {name}n"),
            format!("-n {name} link set {name}n up"),
        ] {
            check(Command::new("ip").args(line.split(' ')))?;
        }
        let own = std::env::current_exe().context("this program has a path")?;
        let mut server = Command::new("ip");
        server.args(["netns", "exec", name]).arg(own).args(["serve", SERVER]).stdin(Stdio::null());
        world.server = Some(Running(server.spawn()?));
        Ok(world)
    }

    /// What the server's process has in its command line.
    pub fn mark(&self) -> String {
        format!("serve {SERVER}").replace(' ', "\0")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.server.take());
        let _ = Command::new("ip").args(["link", "del", &format!("{}h", self.name)]).status();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}
