//! `RUN --mount`.

use crate::dockerfile::fault::{Fault, Result};
use crate::dockerfile::suggest::suggest;

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountKind {
    /// A directory or file of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory that stays between builds.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret of the client.
    Secret,
    /// The client's ssh agent.
    Ssh,
}

/// Who may use a cache at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Everybody.
    #[default]
    Shared,
    /// One; others get a new one.
    Private,
    /// One; others wait.
    Locked,
}

/// One `--mount`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// The stage, context or image; empty: the build context.
    pub from: String,
    /// The path there; for secrets their id.
    pub source: String,
    /// Where it is mounted.
    pub target: String,
    /// Whether it can't be written.
    pub read_only: bool,
    /// `id`.
    pub id: String,
    /// `sharing`.
    pub sharing: Option<Sharing>,
    /// Whether the client must have it.
    pub required: bool,
    /// The environment variable that gets a secret.
    pub env: Option<String>,
    /// Mode.
    pub mode: Option<u32>,
    /// User.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Bytes of memory; 0: no bound.
    pub size: i64,
}

const KEYS: [&str; 18] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "env",
];
const KINDS: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];

impl MountKind {
    /// The name in `type=`.
    pub fn name(self) -> &'static str {
        match self {
            MountKind::Bind => "bind",
            MountKind::Cache => "cache",
            MountKind::Tmpfs => "tmpfs",
            MountKind::Secret => "secret",
            MountKind::Ssh => "ssh",
        }
    }

    fn parse(text: &str) -> Option<MountKind> {
        [MountKind::Bind, MountKind::Cache, MountKind::Tmpfs, MountKind::Secret, MountKind::Ssh]
            .into_iter()
            .find(|kind| kind.name() == text)
    }
}

impl Mount {
    /// Finds the stage or image that a mount names. That is needed before variables are known, so there may be none in it.
    pub fn source_of(text: &str) -> Result<Option<String>> {
        let mut from = None;
        let mut tmpfs = false;
        for field in fields(text)? {
            match field.split_once('=') {
                Some((key, value)) if key.eq_ignore_ascii_case("from") => {
                    let variable = value.find('$').is_some_and(|at| at + 1 < value.len());
                    if variable {
                        return Err(Fault::new(format!(
                            "'{}' doesn't support variable expansion, define alias stage instead",
                            key.to_lowercase()
                        )));
                    }
                    from = Some(value.to_owned()).filter(|from| !from.is_empty());
                }
                Some((key, value)) if key.eq_ignore_ascii_case("type") => {
                    tmpfs = value.eq_ignore_ascii_case("tmpfs");
                }
                Some(_) => {}
                None if FLAGS.contains(&field.to_lowercase().as_str()) => {}
                None => return Err(not_a_pair(&field)),
            }
        }
        Ok(from.filter(|_| !tmpfs))
    }

    /// Reads a mount, expanding variables in its values.
    pub fn parse(text: &str, mut expand: impl FnMut(&str) -> Result<String>) -> Result<Mount> {
        let mut mount = Mount::default();
        let mut read_only = None;
        for field in fields(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_lowercase(), Some(value)),
                None => (field.to_lowercase(), None),
            };
            let value = match (key.as_str(), value) {
                ("readonly" | "ro", None) => {
                    read_only = Some(true);
                    continue;
                }
                ("readwrite" | "rw", None) => {
                    read_only = Some(false);
                    continue;
                }
                ("required", None) => "true".to_owned(),
                (_, None) => return Err(not_a_pair(&field)),
                (_, Some(value)) => expand(value)?,
            };
            let invalid = || Fault::new(format!("invalid value for {key}: {value}"));
            let number = |radix| {
                u32::from_str_radix(&value, radix)
                    .map(Some)
                    .map_err(|_| Fault::new(format!("invalid value {value} for {key}")))
            };
            match key.as_str() {
                "type" => {
                    mount.kind = MountKind::parse(&value.to_lowercase()).ok_or_else(|| {
                        suggest(Fault::new(format!("unsupported mount type {value:?}")), &value, KINDS, true)
                    })?;
                }
                "from" => mount.from = value,
                "source" | "src" => mount.source = value,
                "target" | "dst" | "destination" => mount.target = value,
                "readonly" | "ro" => read_only = Some(boolean(&value).ok_or_else(invalid)?),
                "readwrite" | "rw" => read_only = Some(!boolean(&value).ok_or_else(invalid)?),
                "required" => {
                    if !matches!(mount.kind, MountKind::Secret | MountKind::Ssh) {
                        return Err(Fault::new(format!(
                            "unexpected key '{key}' for mount type '{}'",
                            mount.kind.name()
                        )));
                    }
                    mount.required = boolean(&value).ok_or_else(invalid)?;
                }
                "size" => {
                    if mount.kind != MountKind::Tmpfs {
                        return Err(Fault::new(format!(
                            "unexpected key '{key}' for mount type '{}'",
                            mount.kind.name()
                        )));
                    }
                    mount.size = bytes(&value).ok_or_else(invalid)?;
                }
                "id" => mount.id = value,
                "sharing" => {
                    mount.sharing = Some(match value.to_lowercase().as_str() {
                        "shared" => Sharing::Shared,
                        "private" => Sharing::Private,
                        "locked" => Sharing::Locked,
                        _ => {
                            let fault = Fault::new(format!("unsupported sharing value {value:?}"));
                            return Err(suggest(fault, &value, ["shared", "private", "locked"], true));
                        }
                    });
                }
                "mode" => mount.mode = number(8)?,
                "uid" => mount.uid = number(10)?,
                "gid" => mount.gid = number(10)?,
                "env" => mount.env = Some(value),
                _ => {
                    let fault = Fault::new(format!("unexpected key '{key}' in '{field}'"));
                    return Err(suggest(fault, &key, KEYS, true));
                }
            }
        }
        let writable = matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs);
        mount.read_only = read_only.unwrap_or(!writable);
        mount.check()?;
        Ok(mount)
    }

    fn check(&self) -> Result<()> {
        let kind = self.kind.name();
        let owned = matches!(self.kind, MountKind::Secret | MountKind::Ssh | MountKind::Cache);
        for (name, given) in
            [("mode", self.mode.is_some()), ("uid", self.uid.is_some()), ("gid", self.gid.is_some())]
        {
            if given && !owned {
                return Err(Fault::new(format!("{name} not allowed for {kind:?} type mounts")));
            }
        }
        if self.env.is_some() && self.kind != MountKind::Secret {
            return Err(Fault::new(format!("env not allowed for {kind:?} type mounts")));
        }
        if self.kind == MountKind::Secret {
            if !self.from.is_empty() {
                return Err(Fault::new("secret mount should not have a from"));
            }
            if self.sharing.is_some() {
                return Err(Fault::new("secret mount should not define sharing"));
            }
            if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
                return Err(Fault::new("invalid secret mount. one of source, target required"));
            }
            if !self.source.is_empty() && !self.id.is_empty() {
                return Err(Fault::new("both source and id can't be set"));
            }
        }
        if self.sharing.is_some() && self.kind != MountKind::Cache {
            return Err(Fault::new(format!("invalid cache sharing set for {kind} mount")));
        }
        Ok(())
    }
}

const FLAGS: [&str; 5] = ["readonly", "ro", "readwrite", "rw", "required"];

fn not_a_pair(field: &str) -> Fault {
    Fault::new(format!("invalid field '{field}' must be a key=value pair"))
}

/// Go's `strconv.ParseBool`.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads `64m`, `1.5g`, `1024`: powers of 1024, in bytes.
pub fn bytes(text: &str) -> Option<i64> {
    let text = text.trim().to_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit = text[end..].trim_start();
    let unit = unit.strip_suffix('b').unwrap_or(unit);
    let unit = unit.strip_suffix('i').filter(|unit| !unit.is_empty()).unwrap_or(unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let size = number * 1024f64.powi(power);
    #[expect(clippy::cast_possible_truncation, reason = "checked to be within the range")]
    (size.is_finite() && size < 9e18).then_some(size as i64)
}

/// Takes one line of comma-separated values apart.
pub fn fields(text: &str) -> Result<Vec<String>> {
    let wrong = |what: &str| Fault::new(format!("failed to parse csv mounts: {what}"));
    if text.is_empty() {
        return Err(wrong("EOF"));
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, more) = match rest.split_once(',') {
                Some((field, more)) => (field, Some(more)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err(wrong("parse error on line 1: bare \" in non-quoted field"));
            }
            fields.push(field.to_owned());
            match more {
                Some(more) => rest = more,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut inside = quoted;
        loop {
            let Some((part, after)) = inside.split_once('"') else {
                return Err(wrong("parse error on line 1: extraneous or missing \" in quoted-field"));
            };
            field.push_str(part);
            match after.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    inside = more;
                }
                None => {
                    inside = after;
                    break;
                }
            }
        }
        fields.push(field);
        match inside.strip_prefix(',') {
            Some(more) => rest = more,
            None if inside.is_empty() => return Ok(fields),
            None => return Err(wrong("parse error on line 1: extraneous or missing \" in quoted-field")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(text: &str) -> Result<Mount> {
        Mount::parse(text, |value| Ok(value.replace("$x", "X")))
    }

    #[test]
    fn every_option_of_a_mount_is_read() {
        let read =
            mount("type=cache,target=/a$x,id=c,sharing=locked,mode=0750,uid=7,gid=8,from=st,source=/s,ro")
                .unwrap();
        assert_eq!(
            read,
            Mount {
                kind: MountKind::Cache,
                from: "st".into(),
                source: "/s".into(),
                target: "/aX".into(),
                read_only: true,
                id: "c".into(),
                sharing: Some(Sharing::Locked),
                mode: Some(0o750),
                uid: Some(7),
                gid: Some(8),
                ..Mount::default()
            }
        );
        assert_eq!(mount("target=/a").unwrap().kind, MountKind::Bind);
        assert!(mount("target=/a").unwrap().read_only);
        assert!(!mount("target=/a,rw").unwrap().read_only);
        assert!(!mount("target=/a,readonly=false").unwrap().read_only);
        assert!(!mount("type=tmpfs,target=/a").unwrap().read_only);
        assert_eq!(mount("type=tmpfs,target=/a,size=64m").unwrap().size, 64 << 20);
        assert!(mount("type=secret,id=a,required").unwrap().required);
        assert_eq!(mount("type=secret,id=a,env=A").unwrap().env.as_deref(), Some("A"));
        assert!(mount("type=ssh").unwrap().id.is_empty());
        assert_eq!(mount("\"target=/a,b\",src=c").unwrap().target, "/a,b");
        assert_eq!(mount("TYPE=CACHE,dst=/a").unwrap().kind, MountKind::Cache);
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_buildkits_words() {
        for (text, message) in [
            ("type=cach", "unsupported mount type \"cach\" (did you mean cache?)"),
            ("type=volume", "unsupported mount type \"volume\""),
            ("type=bind,taget=/a", "unexpected key 'taget' in 'taget=/a' (did you mean target?)"),
            ("target", "invalid field 'target' must be a key=value pair"),
            ("target=/a,ro=maybe", "invalid value for ro: maybe"),
            ("target=/a,rw=maybe", "invalid value for rw: maybe"),
            ("target=/a,mode=755", "mode not allowed for \"bind\" type mounts"),
            ("target=/a,uid=1", "uid not allowed for \"bind\" type mounts"),
            ("target=/a,gid=1", "gid not allowed for \"bind\" type mounts"),
            ("target=/a,env=A", "env not allowed for \"bind\" type mounts"),
            ("type=cache,target=/a,mode=9", "invalid value 9 for mode"),
            ("type=cache,target=/a,uid=x", "invalid value x for uid"),
            ("type=cache,target=/a,sharing=some", "unsupported sharing value \"some\""),
            ("target=/a,sharing=shared", "invalid cache sharing set for bind mount"),
            ("target=/a,required", "unexpected key 'required' for mount type 'bind'"),
            ("target=/a,size=1m", "unexpected key 'size' for mount type 'bind'"),
            ("type=tmpfs,size=much", "invalid value for size: much"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,id=a,source=b", "both source and id can't be set"),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
            ("", "failed to parse csv mounts: EOF"),
            (
                "\"a",
                "failed to parse csv mounts: parse error on line 1: extraneous or missing \" in quoted-field",
            ),
            ("a\"b", "failed to parse csv mounts: parse error on line 1: bare \" in non-quoted field"),
        ] {
            assert_eq!(mount(text).unwrap_err().message, message, "{text}");
        }
    }

    #[test]
    fn a_mounts_stage_can_be_no_variable() {
        assert_eq!(Mount::source_of("type=bind,from=a,target=/x").unwrap().as_deref(), Some("a"));
        assert_eq!(Mount::source_of("type=tmpfs,from=a").unwrap(), None);
        assert_eq!(Mount::source_of("target=/$x,ro").unwrap(), None);
        assert_eq!(
            Mount::source_of("from=$a").unwrap_err().message,
            "'from' doesn't support variable expansion, define alias stage instead"
        );
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, expected) in [
            ("1024", Some(1024)),
            ("1k", Some(1024)),
            ("1.5kb", Some(1536)),
            ("2GiB", Some(2 << 30)),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
