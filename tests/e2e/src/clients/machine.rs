//! What this machine's own clients are told of registries, proxies and authorities, told to those in containers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use skiff_testkit::{Program, binaries};
use tempfile::TempDir;

/// Where containers see the files.
pub(super) const SEEN: &str = "/machine";

/// Variables that name proxies.
const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "no_proxy"];
/// Variables by which clients are told of registries.
const OF_CLIENTS: [&str; 8] = [
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "NPM_CONFIG_REGISTRY",
    "CARGO_REGISTRIES_",
    "CARGO_SOURCE_",
    "CARGO_HTTP_",
    "CARGO_NET_",
];
/// The release of npm that runs on Debian's node.
const NPM: &str = "npm@10";

/// A directory of settings for clients in containers; it holds the machine's secrets as long as it lives.
pub(super) struct Machine {
    directory: TempDir,
}

impl Machine {
    /// Gathers them.
    pub(super) fn settings() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("skiff-clients-").tempdir_in("/tmp")?;
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
        let copies = [
            (home.join(".npmrc"), "npmrc"),
            (cargo.join("config.toml"), "cargo.toml"),
            (cargo.join("credentials.toml"), "credentials.toml"),
        ];
        for (from, to) in copies {
            let text = fs::read_to_string(&from).unwrap_or_default();
            fs::write(directory.path().join(to), as_seen_inside(&text))?;
        }
        fs::write(directory.path().join("pip.conf"), pip_settings())?;
        Ok(Self { directory })
    }

    /// The directory, for what else a container should see.
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Options of `docker run`, for every client.
    pub(super) fn options(&self) -> Vec<String> {
        let mut options = vec!["-v".to_owned(), format!("{}:{SEEN}:ro", self.path().display())];
        let mut set = |name: &str, value: &str| options.extend(["-e".to_owned(), format!("{name}={value}")]);
        set("PIP_CONFIG_FILE", &format!("{SEEN}/pip.conf"));
        set("NPM_CONFIG_USERCONFIG", &format!("{SEEN}/npmrc"));
        set("NODE_EXTRA_CA_CERTS", "/etc/ssl/certs/ca-certificates.crt");
        for (name, value) in variables() {
            set(&name, &value);
        }
        options
    }

    /// Options of `docker build`, and the lines of a Dockerfile that let its steps see them.
    pub(super) fn build_arguments(&self) -> (Vec<String>, String) {
        let (mut options, mut lines) = (Vec::new(), String::new());
        for (name, value) in variables() {
            // Proxies are arguments of every build.
            if !is_proxy(&name) {
                lines += &format!("ARG {name}\n");
            }
            options.extend(["--build-arg".to_owned(), format!("{name}={value}")]);
        }
        (options, lines)
    }

    /// Unpacks a release of npm below the directory; its own registry has it.
    pub(super) fn with_npm(&self) -> anyhow::Result<()> {
        let kept = binaries::target_directory().join("clients");
        fs::create_dir_all(&kept).with_context(|| format!("make {}", kept.display()))?;
        let packed = || {
            let files = fs::read_dir(&kept).into_iter().flatten().flatten().map(|entry| entry.path());
            files.into_iter().find(|path| path.extension().is_some_and(|end| end == "tgz"))
        };
        if packed().is_none() {
            let pack = Program::new("npm").args(["pack", NPM, "--pack-destination"]).args([kept.as_os_str()]);
            pack.run()?.ok()?;
        }
        let archive = packed().context("npm packed nothing")?;
        let unpack = Program::new("tar").args(["-C".as_ref(), self.path().as_os_str(), "-xzf".as_ref()]);
        unpack.args([archive.as_os_str()]).run()?.ok()?;
        ensure!(self.path().join("package/bin/npm-cli.js").is_file(), "npm is packed in another way");
        Ok(())
    }
}

/// The variables that tell clients, as containers should see them.
fn variables() -> impl Iterator<Item = (String, String)> {
    let known = |name: &str| {
        OF_CLIENTS.iter().any(|start| name.starts_with(start)) && !name.ends_with("_CAINFO") || is_proxy(name)
    };
    std::env::vars().filter(move |(name, _)| known(name)).map(|(name, value)| (name, as_seen_inside(&value)))
}

fn is_proxy(name: &str) -> bool {
    PROXIES.contains(&name.to_lowercase().as_str())
}

/// Why this machine itself does not reach the registry of a client, if so; a container could not either.
pub(super) fn unreached(client: &str) -> Option<String> {
    let url = match client {
        "pip" => setting(&pip_settings(), "index-url").unwrap_or_else(|| "https://pypi.org/simple/".into()),
        "npm" => match Program::new("npm").args(["config", "get", "registry"]).run() {
            Ok(told) => told.out().trim().to_owned(),
            Err(error) => return Some(format!("{error:#}")),
        },
        _ => "https://index.crates.io/config.json".into(),
    };
    let ask = Program::new("curl").args(["-sS", "--max-time", "30", "-o", "/dev/null", &url]).run();
    match ask {
        Ok(asked) if asked.code == 0 => None,
        Ok(asked) => Some(format!("{client}'s registry is not reached from here: {}", asked.err().trim())),
        Err(error) => Some(format!("{error:#}")),
    }
}

/// Where this machine's Rust is.
pub(super) fn sysroot() -> Option<PathBuf> {
    let asked = Program::new("rustc").args(["--print", "sysroot"]).run().ok()?;
    let path = PathBuf::from(asked.out().trim());
    (asked.code == 0 && path.join("bin/cargo").is_file()).then_some(path)
}

/// Addresses of this machine's loopback have another name in containers.
fn as_seen_inside(text: &str) -> String {
    text.replace("://127.0.0.1", "://host.docker.internal").replace("://localhost", "://host.docker.internal")
}

/// The settings of pip that are about registries, whatever file they come from.
fn pip_settings() -> String {
    let listed = Program::new("python3").args(["-m", "pip", "config", "list"]).run();
    let listed = listed.map(|listed| listed.out()).unwrap_or_default();
    let mut text = "[global]\n".to_owned();
    for wanted in ["index-url", "extra-index-url", "trusted-host", "proxy"] {
        if let Some(value) = setting(&listed, wanted) {
            text += &format!("{wanted} = {}\n", as_seen_inside(&value));
        }
    }
    text
}

/// The value of a line `global.NAME='value'` or `NAME = value`.
fn setting(text: &str, wanted: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        let name = name.trim().rsplit('.').next()?;
        (name == wanted).then(|| value.trim().trim_matches('\'').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_in_either_form() {
        let listed = ":env:.index-url='https://registry.example/simple'\nglobal.cert='/x'\n";
        assert_eq!(setting(listed, "index-url").as_deref(), Some("https://registry.example/simple"));
        assert_eq!(setting("[global]\nindex-url = http://a/b\n", "index-url").as_deref(), Some("http://a/b"));
        assert_eq!(setting(listed, "proxy"), None);
    }

    #[test]
    fn a_proxy_on_loopback_has_the_hosts_name_inside() {
        assert_eq!(as_seen_inside("http://localhost:3128"), "http://host.docker.internal:3128");
    }
}
