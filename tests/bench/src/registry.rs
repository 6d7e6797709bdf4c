//! Debian's registry on the loopback of whoever pulls, with a look at what it really reads for it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::process::Running;

/// A registry with nothing in it.
pub struct Registry {
    /// `127.0.0.1:port`
    pub address: String,
    network: Option<std::path::PathBuf>,
    process: Running,
    _directory: tempfile::TempDir,
}

impl Registry {
    /// Starts one, in another network namespace if need be.
    pub fn start(network: Option<&Path>) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        // Free here is not free in another namespace, but there is nobody else there.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (address, file) = (format!("127.0.0.1:{port}"), directory.path().join("config.yml"));
        let store = directory.path().join("store");
        let config = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
            store.display()
        );
        std::fs::write(&file, config)?;
        let mut command = inside(network, "docker-registry");
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Running(command.spawn().context("run docker-registry")?);
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut asked = inside(network, "curl");
            asked.args(["-sf", "-o", "/dev/null", &format!("http://{address}/v2/")]);
            if asked.status().context("run curl")?.success() {
                break;
            }
            ensure!(Instant::now() < deadline, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { address, network: network.map(Path::to_owned), process, _directory: directory })
    }

    /// Puts an OCI layout there.
    pub fn fill(&self, layout: &Path, name: &str) -> anyhow::Result<()> {
        let mut copy = inside(self.network.as_deref(), "skopeo");
        copy.args(["copy", "-q", "--dest-tls-verify=false", &format!("oci:{}", layout.display())]);
        crate::process::check(copy.arg(format!("docker://{}/{name}", self.address)))
    }

    /// How many bytes its process has read so far, from files and from sockets.
    pub fn has_read(&self) -> anyhow::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.process.0.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("rchar:"));
        line.and_then(|count| count.trim().parse().ok()).context("no rchar in /proc/PID/io")
    }
}

/// A program in a network namespace, or here.
fn inside(network: Option<&Path>, program: &str) -> Command {
    match network {
        None => Command::new(program),
        Some(network) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", network.display())).arg(program);
            command
        }
    }
}
