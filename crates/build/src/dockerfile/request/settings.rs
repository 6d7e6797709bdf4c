//! The attributes of a build: what `docker build`'s options become.

use std::collections::BTreeMap;

use skiff_images::Platform;

use crate::dockerfile::check;
use crate::dockerfile::fault::{Fault, Result};
use crate::dockerfile::instruction::{boolean, fields};
use crate::frontend::ResolveMode;
use crate::graph::pb;

/// Which stages do without the cache.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NoCache {
    /// None.
    #[default]
    No,
    /// All of them.
    All,
    /// Those of these names.
    Stages(Vec<String>),
}

/// What the user asks for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `build-arg:NAME`.
    pub build_args: BTreeMap<String, String>,
    /// `label:NAME`.
    pub labels: BTreeMap<String, String>,
    /// `target`; empty: the last stage.
    pub target: String,
    /// `platform`; empty: the builder's.
    pub platforms: Vec<Platform>,
    /// The builder's.
    pub build_platform: Platform,
    /// Whether results are by platform.
    pub multi_platform: bool,
    /// `image-resolve-mode`.
    pub resolve_mode: ResolveMode,
    /// `add-hosts`.
    pub extra_hosts: Vec<pb::HostIp>,
    /// `shm-size`, in bytes; 0: not given.
    pub shm_size: i64,
    /// `ulimit`.
    pub ulimits: Vec<pb::Ulimit>,
    /// `force-network-mode`.
    pub network: pb::NetMode,
    /// `no-cache`.
    pub no_cache: NoCache,
    /// `cgroup-parent`.
    pub cgroup_parent: String,
    /// `hostname`.
    pub hostname: String,
    /// `build-arg:BUILDKIT_CACHE_MOUNT_NS`.
    pub cache_namespace: String,
    /// `build-arg:SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub epoch: Option<i64>,
    /// `build-arg:BUILDKIT_DOCKERFILE_CHECK`, in place of the file's own.
    pub checks: Option<check::Options>,
    /// All attributes.
    pub attributes: BTreeMap<String, String>,
}

impl Settings {
    /// Reads the attributes.
    ///
    /// # Errors
    /// A value that makes no sense.
    pub fn parse(attributes: &BTreeMap<String, String>, build_platform: &Platform) -> Result<Settings> {
        let text = |key: &str| attributes.get(key).map_or("", String::as_str);
        let build_args = with_prefix(attributes, "build-arg:");
        let argument = |name: &str| build_args.get(name).map_or("", String::as_str);
        let platforms = match text("platform") {
            "" => Vec::new(),
            list => list
                .split(',')
                .map(|one| {
                    one.trim().parse::<Platform>().map_err(|error| {
                        Fault::new(format!("failed to parse target platform {one}: {error}"))
                    })
                })
                .collect::<Result<_>>()?,
        };
        let resolve_mode = match text("image-resolve-mode") {
            "" | "default" | "local" => ResolveMode::PreferLocal,
            "pull" => ResolveMode::ForcePull,
            other => return Err(Fault::new(format!("invalid image-resolve-mode: {other}"))),
        };
        let network = match text("force-network-mode") {
            "" | "sandbox" | "default" => pb::NetMode::Unset,
            "none" => pb::NetMode::None,
            "host" => pb::NetMode::Host,
            other => return Err(Fault::new(format!("invalid netmode {other}"))),
        };
        let multi = match argument("BUILDKIT_MULTI_PLATFORM") {
            "" => text("multi-platform"),
            given => given,
        };
        let multi_platform = match (multi, platforms.len() > 1) {
            ("", several) => several,
            (given, several) => {
                let wanted = boolean(given).ok_or_else(|| {
                    Fault::new(format!("invalid boolean value for multi-platform: {given}"))
                })?;
                if several && !wanted {
                    return Err(Fault::new(
                        "conflicting config: returning multiple target platforms is not allowed",
                    ));
                }
                wanted
            }
        };
        let epoch = match argument("SOURCE_DATE_EPOCH") {
            "" => None,
            "context" => None,
            given => Some(given.parse::<i64>().map_err(|_| {
                Fault::new(format!(
                    "invalid SOURCE_DATE_EPOCH: {given}: strconv.ParseInt: parsing {given:?}: invalid syntax"
                ))
            })?),
        };
        let checks = match build_args.get("BUILDKIT_DOCKERFILE_CHECK") {
            Some(given) => Some(
                check::Options::parse(given)
                    .map_err(|fault| fault.within("failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK"))?,
            ),
            None => None,
        };
        let hostname = match argument("BUILDKIT_SANDBOX_HOSTNAME") {
            "" => text("hostname"),
            given => given,
        };
        Ok(Settings {
            labels: with_prefix(attributes, "label:"),
            target: text("target").to_owned(),
            platforms,
            build_platform: build_platform.clone(),
            multi_platform,
            resolve_mode,
            extra_hosts: hosts(text("add-hosts"))
                .map_err(|fault| fault.within("failed to parse additional hosts"))?,
            shm_size: shm_size(text("shm-size"))?,
            ulimits: ulimits(text("ulimit")).map_err(|fault| fault.within("failed to parse ulimit"))?,
            network,
            no_cache: match attributes.get("no-cache").map(String::as_str) {
                None => NoCache::No,
                Some("") => NoCache::All,
                Some(list) => NoCache::Stages(list.split(',').map(str::to_owned).collect()),
            },
            cgroup_parent: text("cgroup-parent").to_owned(),
            hostname: hostname.to_owned(),
            cache_namespace: argument("BUILDKIT_CACHE_MOUNT_NS").to_owned(),
            epoch,
            checks,
            build_args,
            attributes: attributes.clone(),
        })
    }

    /// Says whether a stage does without the cache.
    pub fn ignores_cache(&self, stage: &str) -> bool {
        match &self.no_cache {
            NoCache::No => false,
            NoCache::All => true,
            NoCache::Stages(names) => names.iter().any(|name| name.eq_ignore_ascii_case(stage)),
        }
    }

    /// The proxy's variables, which steps get without `ARG` and which change no cache key.
    pub fn proxy(&self) -> Option<pb::ProxyEnv> {
        let mut proxy = pb::ProxyEnv::default();
        let mut any = false;
        for (name, value) in &self.build_args {
            let field = match name.to_ascii_lowercase().as_str() {
                "http_proxy" => &mut proxy.http_proxy,
                "https_proxy" => &mut proxy.https_proxy,
                "ftp_proxy" => &mut proxy.ftp_proxy,
                "no_proxy" => &mut proxy.no_proxy,
                "all_proxy" => &mut proxy.all_proxy,
                _ => continue,
            };
            field.clone_from(value);
            any = true;
        }
        any.then_some(proxy)
    }

    /// The time of `SOURCE_DATE_EPOCH` as configurations have it.
    pub fn created(&self) -> Option<String> {
        let at = jiff::Timestamp::from_second(self.epoch?).ok()?;
        Some(at.to_string())
    }
}

fn with_prefix(attributes: &BTreeMap<String, String>, prefix: &str) -> BTreeMap<String, String> {
    attributes
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone())))
        .collect()
}

fn csv(text: &str) -> Result<Vec<String>> {
    if text.is_empty() { Ok(Vec::new()) } else { fields(text) }
}

fn hosts(text: &str) -> Result<Vec<pb::HostIp>> {
    csv(text)?
        .iter()
        .map(|field| {
            let Some((host, ip)) = field.split_once('=') else {
                return Err(Fault::new(format!("invalid key-value pair {field}")));
            };
            let bare = ip.trim_start_matches('[').trim_end_matches(']');
            let ip: std::net::IpAddr =
                bare.parse().map_err(|_| Fault::new(format!("failed to parse IP {ip}")))?;
            Ok(pb::HostIp { host: host.to_lowercase(), ip: ip.to_string() })
        })
        .collect()
}

fn shm_size(text: &str) -> Result<i64> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        Fault::new(format!("failed to parse shm size: strconv.ParseInt: parsing {text:?}: invalid syntax"))
    })
}

fn ulimits(text: &str) -> Result<Vec<pb::Ulimit>> {
    csv(text)?
        .iter()
        .map(|field| {
            let invalid = || Fault::new(format!("invalid ulimit argument: {field}"));
            let (name, limits) = field.split_once('=').ok_or_else(invalid)?;
            let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
            let number = |text: &str| text.parse::<i64>().map_err(|_| invalid());
            Ok(pb::Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(attributes: &[(&str, &str)]) -> Result<Settings> {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::parse(&attributes, &"linux/amd64".parse().unwrap())
    }

    #[test]
    fn attributes_become_settings() {
        let read = settings(&[
            ("build-arg:A", "1"),
            ("build-arg:HTTP_PROXY", "p"),
            ("build-arg:SOURCE_DATE_EPOCH", "0"),
            ("label:l", "v"),
            ("platform", "linux/arm64,linux/amd64"),
            ("add-hosts", "A=1.2.3.4,b=::1"),
            ("ulimit", "nofile=1:2,core=3"),
            ("shm-size", "99"),
            ("no-cache", "a,b"),
            ("force-network-mode", "host"),
            ("image-resolve-mode", "pull"),
        ])
        .unwrap();
        assert_eq!(read.build_args["A"], "1");
        assert_eq!(read.labels["l"], "v");
        assert!(read.multi_platform && read.ignores_cache("B") && !read.ignores_cache("c"));
        assert_eq!(read.extra_hosts[1], pb::HostIp { host: "b".into(), ip: "::1".into() });
        assert_eq!(read.extra_hosts[0].host, "a");
        assert_eq!(read.ulimits[1], pb::Ulimit { name: "core".into(), soft: 3, hard: 3 });
        assert_eq!(read.proxy().unwrap().http_proxy, "p");
        assert_eq!(read.created().unwrap(), "1970-01-01T00:00:00Z");
        assert_eq!((read.shm_size, read.network), (99, pb::NetMode::Host));
        assert!(settings(&[("no-cache", "")]).unwrap().ignores_cache("x"));
        assert!(settings(&[]).unwrap().proxy().is_none());
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for (key, value, message) in [
            ("image-resolve-mode", "x", "invalid image-resolve-mode: x"),
            ("force-network-mode", "x", "invalid netmode x"),
            ("multi-platform", "x", "invalid boolean value for multi-platform: x"),
            ("add-hosts", "a", "failed to parse additional hosts: invalid key-value pair a"),
            ("add-hosts", "a=b", "failed to parse additional hosts: failed to parse IP b"),
            ("ulimit", "nofile", "failed to parse ulimit: invalid ulimit argument: nofile"),
            ("shm-size", "1g", "failed to parse shm size: strconv.ParseInt: parsing \"1g\": invalid syntax"),
        ] {
            assert_eq!(settings(&[(key, value)]).unwrap_err().message, message);
        }
        let both = settings(&[("platform", "linux/a,linux/b"), ("multi-platform", "0")]);
        assert_eq!(
            both.unwrap_err().message,
            "conflicting config: returning multiple target platforms is not allowed"
        );
    }
}
