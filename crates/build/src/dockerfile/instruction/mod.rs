//! What instructions mean: typed, with their flags checked, before any variable is known.

mod device;
mod flags;
mod health;
mod mount;
mod parse;
mod transfer;

use std::fmt;

pub use device::Device;
pub use health::Health;
pub use mount::{Mount, MountKind, Sharing, boolean, fields};
pub use parse::{Document, parse, parse_trigger};
pub use transfer::Transfer;

use super::fault::Lines;
use super::parse::Heredoc;
pub use super::parse::words::Pair;

/// Every keyword, for suggestions.
pub const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A stage: from one `FROM` to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// The keyword as it is written.
    pub keyword: String,
    /// What it begins with.
    pub base: String,
    /// Its name, in small letters; empty when it has none.
    pub name: String,
    /// `--platform`.
    pub platform: String,
    /// The `FROM` as it is written.
    pub code: String,
    /// Where that is.
    pub lines: Lines,
    /// What a comment before it says about it.
    pub description: String,
    /// Its instructions.
    pub instructions: Vec<Instruction>,
}

/// One instruction of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// The keyword as it is written.
    pub keyword: String,
    /// All of it as it is written.
    pub code: String,
    /// Where it is.
    pub lines: Lines,
    /// What it says.
    pub kind: Kind,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `ADD`.
    Add(Transfer),
    /// `ARG`.
    Arg(Vec<Argument>),
    /// `CMD`.
    Cmd(Command),
    /// `COPY`.
    Copy(Transfer),
    /// `ENTRYPOINT`.
    Entrypoint(Command),
    /// `ENV`.
    Env(Vec<Pair>),
    /// `EXPOSE`.
    Expose(Vec<String>),
    /// `HEALTHCHECK`.
    Healthcheck(Health),
    /// `LABEL`.
    Label(Vec<Pair>),
    /// `MAINTAINER`.
    Maintainer(String),
    /// `ONBUILD`: the instruction for later.
    Onbuild(String),
    /// `RUN`.
    Run(Run),
    /// `SHELL`.
    Shell(Vec<String>),
    /// `STOPSIGNAL`.
    StopSignal(String),
    /// `USER`.
    User(String),
    /// `VOLUME`.
    Volume(Vec<String>),
    /// `WORKDIR`.
    Workdir(String),
}

/// One name of an `ARG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub key: String,
    /// Its default.
    pub value: Option<String>,
    /// What a comment before it says about it.
    pub description: String,
}

/// A command, for a shell or not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command {
    /// Its words; one text for a shell.
    pub words: Vec<String>,
    /// Whether a shell runs it.
    pub shell: bool,
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What is run.
    pub command: Command,
    /// Its here-documents.
    pub heredocs: Vec<Heredoc>,
    /// The texts of `--mount`; variables in them are not expanded yet.
    pub mounts: Vec<String>,
    /// The stages and images that mounts name, one for each mount.
    pub mount_sources: Vec<Option<String>>,
    /// `--network`.
    pub network: Network,
    /// `--security=insecure`.
    pub insecure: bool,
    /// `--device`.
    pub devices: Vec<Device>,
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// That of the build.
    #[default]
    Default,
    /// None.
    None,
    /// The host's.
    Host,
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.key),
            None => f.write_str(&self.key),
        }
    }
}
