//! Random calls of the API, valid and not: the engine answers each, never with a 500 of its own making, and keeps nothing.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};
use skiff_testkit::{NativeEngine, http};

use crate::images;

/// Fields of create, of its host part and of the small bodies, as in the API's description.
const FIELDS: &[&str] = &[
    "Hostname",
    "User",
    "Env",
    "Cmd",
    "Entrypoint",
    "Image",
    "WorkingDir",
    "Labels",
    "Volumes",
    "ExposedPorts",
    "Tty",
    "StopSignal",
    "StopTimeout",
    "Healthcheck",
    "HostConfig",
    "NetworkingConfig",
    "Binds",
    "Mounts",
    "Memory",
    "NanoCpus",
    "CpuPeriod",
    "PidsLimit",
    "NetworkMode",
    "PortBindings",
    "RestartPolicy",
    "LogConfig",
    "CapAdd",
    "CapDrop",
    "Dns",
    "ExtraHosts",
    "Ulimits",
    "Sysctls",
    "Tmpfs",
    "ShmSize",
    "Devices",
    "SecurityOpt",
    "Links",
    "VolumesFrom",
    "PidMode",
    "IpcMode",
    "UTSMode",
    "UsernsMode",
    "OomScoreAdj",
    "AutoRemove",
    "Init",
    "CgroupParent",
    "DeviceCgroupRules",
    "BlkioDeviceReadBps",
    "ImageOptions",
    "BindOptions",
    "Name",
    "Driver",
    "DriverOpts",
    "IPAM",
    "Options",
    "Container",
    "EndpointConfig",
    "Detach",
    "AttachStdout",
    "Privileged",
    "ConsoleSize",
    "DetachKeys",
];

const PATHS: &[(&str, &str)] = &[
    ("POST", "/containers/create?name={word}"),
    ("GET", "/containers/json?all=1&filters={json}&limit={word}"),
    ("GET", "/containers/{id}/json?size={word}"),
    ("POST", "/containers/{id}/start"),
    ("POST", "/containers/{id}/stop?t={number}"),
    ("POST", "/containers/{id}/kill?signal={word}"),
    ("POST", "/containers/{id}/rename?name={word}"),
    ("POST", "/containers/{id}/update"),
    ("POST", "/containers/{id}/resize?h={word}&w={number}"),
    ("POST", "/containers/{id}/exec"),
    ("POST", "/exec/{id}/start"),
    ("GET", "/exec/{id}/json"),
    ("GET", "/containers/{id}/logs?stdout=1&tail={word}&since={word}"),
    ("GET", "/containers/{id}/top?ps_args={word}"),
    ("GET", "/containers/{id}/stats?stream=0&one-shot=1"),
    ("DELETE", "/containers/{id}?force={word}&v={word}"),
    ("POST", "/containers/prune?filters={json}"),
    ("POST", "/volumes/create"),
    ("GET", "/volumes?filters={json}"),
    ("DELETE", "/volumes/{word}?force={word}"),
    ("POST", "/networks/create"),
    ("GET", "/networks?filters={json}"),
    ("POST", "/networks/{word}/connect"),
    ("DELETE", "/networks/{word}"),
    ("GET", "/images/json?filters={json}"),
    ("GET", "/images/{word}/json"),
    ("POST", "/images/{word}/tag?repo={word}&tag={word}"),
    ("GET", "/system/df?type={word}"),
    ("GET", "/events?since=1&until=2&filters={json}"),
    ("GET", "/v{number}/info"),
    ("POST", "/{word}/{word}"),
    ("GET", "/swarm"),
    ("POST", "/containers/{id}/wait?condition={word}"),
    ("HEAD", "/_ping"),
    ("POST", "/containers/{id}/pause"),
    ("POST", "/containers/{id}/unpause"),
    ("POST", "/containers/{id}/restart?t=0&signal={word}"),
    ("GET", "/containers/{id}/changes"),
    ("HEAD", "/containers/{id}/archive?path={word}"),
    ("GET", "/containers/{id}/archive?path={word}"),
    ("PUT", "/containers/{id}/archive?path=/{word}&noOverwriteDirNonDir={word}&copyUIDGID={word}"),
    ("GET", "/containers/{id}/attach/ws?stream=0&logs={word}&detachKeys={word}"),
    ("POST", "/exec/{id}/resize?h={word}&w={number}"),
    ("POST", "/networks/{word}/disconnect"),
    ("POST", "/networks/prune?filters={json}"),
    ("POST", "/volumes/prune?filters={json}"),
    ("GET", "/plugins/{word}/json"),
    ("GET", "/nodes/{word}?filters={json}"),
];

const WORDS: &[&str] = &[
    "busybox",
    "fuzz",
    "fuzz-2",
    "",
    "0",
    "1",
    "-1",
    "true",
    "all",
    "bridge",
    "host",
    "none",
    "local",
    "tcp",
    "80/tcp",
    "../../etc",
    "%00",
    "%2e%2e",
    "9999999999999999999999",
    "sh",
    "SIGKILL",
    "99",
    "nonesuch",
    "a=b",
    "/tmp",
    "unix:///x",
    "container:fuzz",
    "\u{fc}\u{1f600}",
    "1.5",
    "NaN",
    "json-file",
    "always",
    "no-new-privileges",
    "127.0.0.1",
    "10.1.0.0/16",
    "ALL",
    "sleep",
];

/// Numbers that repeat for the same seed (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.below(WORDS.len())]
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.below(if depth == 0 { 6 } else { 10 }) {
            0 => Value::Null,
            1 => Value::Bool(self.below(2) == 0),
            2 => json!([0, 1, -1, 1 << 20, i64::MAX, i64::MIN][self.below(6)]),
            3 => json!(1.5),
            4 | 5 => json!(self.word()),
            6 | 7 => (0..self.below(4)).map(|_| self.value(depth - 1)).collect(),
            _ => Value::Object(self.object(depth - 1)),
        }
    }

    fn object(&mut self, depth: u32) -> Map<String, Value> {
        let field = |chance: &mut Self| {
            let name = if chance.below(5) == 0 { chance.word() } else { FIELDS[chance.below(FIELDS.len())] };
            (name.to_owned(), chance.value(depth))
        };
        (0..self.below(5)).map(|_| field(self)).collect()
    }

    /// One time in three a container that can be made, with something odd in it.
    fn body(&mut self) -> Vec<u8> {
        match self.below(12) {
            0 => b"{\"Image\":".to_vec(),
            1 => Vec::new(),
            2..=6 => {
                let mut body =
                    json!({"Image": "busybox", "Cmd": ["sleep", "3"], "HostConfig": {}, "Name": "fuzz"});
                let (name, value) = (FIELDS[self.below(FIELDS.len())], self.value(2));
                match self.below(3) {
                    0 => body[name] = value,
                    1 => body["HostConfig"][name] = value,
                    _ => {}
                }
                body.to_string().into_bytes()
            }
            _ => self.value(3).to_string().into_bytes(),
        }
    }

    fn path(&mut self, template: &str) -> String {
        let mut path = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            let (kind, after) = after.split_once('}').unwrap_or((after, ""));
            path.push_str(before);
            match kind {
                "json" => path.push_str(&escape(&self.value(2).to_string())),
                "number" => path.push_str(["0", "1", "1.30", "1.51", "99"][self.below(5)]),
                "id" => path.push_str(if self.below(3) == 0 { "fuzz" } else { "" }),
                _ => path.push_str(&escape(self.word())),
            }
            if kind == "id" && path.ends_with('/') {
                path.push_str(&escape(self.word()));
            }
            rest = after;
        }
        path + rest
    }
}

/// What may stand in a request's first line; what is escaped already stays as it is.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/' | b':' | b'%' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// What dockerd, too, says with status 500 where the client is to blame.
const DOCKERS_OWN: [&str; 1] = ["is not paused"];

/// Calls for `$SKIFF_FUZZ_SECONDS` (30) from `$SKIFF_FUZZ_SEED` (1) on.
///
/// # Errors
/// When an answer is a 500, the engine dies or panics, or something of a container is left.
pub fn check() -> anyhow::Result<()> {
    let number =
        |name: &str, default: u64| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seed, seconds) = (number("SKIFF_FUZZ_SEED", 1), number("SKIFF_FUZZ_SECONDS", 30));
    let mut engine = NativeEngine::start()?;
    let docker = engine.docker()?;
    images::load(&docker)?;
    docker.run("run --rm busybox true")?.ok()?;
    let (pid, before) = (engine.engine_pid()?, descriptors(engine.engine_pid()?)?);
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut calls = 0;
    while Instant::now() < end {
        let (method, template) = PATHS[chance.below(PATHS.len())];
        let (path, body) = (chance.path(template), chance.body());
        // A wait for something that goes on is a call without an end.
        if path.contains("/wait") && path.contains("fuzz") {
            continue;
        }
        let sent =
            || format!("seed {seed}, call {calls}: {method} {path} {}", String::from_utf8_lossy(&body));
        let answer = http::unix_request(method, &engine.socket(), &path, &body).with_context(sent)?;
        *statuses.entry(answer.status).or_default() += 1;
        let is_dockers = DOCKERS_OWN.iter().any(|text| answer.text().contains(text));
        ensure!(answer.status != 500 || is_dockers, "{}\n500: {}", sent(), answer.text());
        ensure!(engine.engine_pid()? == pid, "{}\nthe engine died\n{}", sent(), engine.log_tail());
        calls += 1;
    }
    println!("fuzz: seed {seed}: {calls} calls: {statuses:?}");
    let ids = docker.run("ps -aq --no-trunc")?.ok()?.out();
    if !ids.trim().is_empty() {
        docker.command("rm -f -v").args(ids.split_whitespace()).run()?.ok()?;
    }
    docker.run("network prune -f")?.ok()?;
    engine.expect_no_leftovers(Duration::from_secs(10))?;
    let after = descriptors(pid)?;
    ensure!(after <= before + 8, "the engine had {before} descriptors, now {after}");
    ensure!(!engine.log_tail().contains("panicked"), "{}", engine.log_tail());
    engine.stop()
}

fn descriptors(pid: i32) -> anyhow::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}
