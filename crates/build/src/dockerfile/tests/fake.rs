//! A solver that runs nothing.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use prost::Message as _;
use serde_json::Value;

use crate::dockerfile::frontend::{Plan, PlannedImage, plan};
use crate::dockerfile::sources::Sources;
use crate::error::{Error, Result};
use crate::frontend::{FrontendRequest, ResolveMode, ResolvedImage};
use crate::graph::{CUSTOM_NAME, pb};
use crate::progress::Event;

pub const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A client's files, a registry's images, and what was asked for.
#[derive(Default)]
pub struct Fake {
    pub files: BTreeMap<(String, String), Vec<u8>>,
    pub images: BTreeMap<String, Value>,
    pub inputs: BTreeMap<String, pb::Definition>,
    pub attributes: BTreeMap<String, String>,
    pub asked: Mutex<Vec<String>>,
    pub told: Mutex<Vec<String>>,
}

pub fn image(config: Value) -> Value {
    serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        "history": [{"created_by": "base"}],
    })
}

impl Fake {
    /// A client with a Dockerfile, and `alpine`.
    pub fn new(dockerfile: &str) -> Fake {
        let mut fake = Fake::default().file("dockerfile", "Dockerfile", dockerfile);
        fake.attributes.insert("platform".into(), "linux/amd64".into());
        for name in ["alpine", "busybox", "golang", "debian"] {
            fake = fake.image(
                name,
                serde_json::json!({
                    "Env": ["PATH=/bin", "BASE=1"], "Cmd": ["sh"], "WorkingDir": "/base",
                }),
            );
        }
        fake
    }

    pub fn file(mut self, local: &str, path: &str, text: &str) -> Fake {
        self.files.insert((format!("local://{local}"), path.to_owned()), text.as_bytes().to_vec());
        self
    }

    pub fn image(mut self, name: &str, config: Value) -> Fake {
        let name = skiff_images::Reference::parse(name).unwrap().or_latest().to_string();
        self.images.insert(name, image(config));
        self
    }

    pub fn with(mut self, key: &str, value: &str) -> Fake {
        self.attributes.insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn without(mut self, key: &str) -> Fake {
        self.attributes.remove(key);
        self
    }

    pub fn plan(&self) -> Result<Plan> {
        let request = FrontendRequest { attributes: self.attributes.clone(), inputs: self.inputs.clone() };
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(plan(self, &request))
    }

    /// The only image.
    pub fn build(&self) -> Made {
        match self.plan().unwrap_or_else(|error| panic!("{error}: {:?}", error.location())) {
            Plan::Build(build) => Made(build.images.into_iter().next().unwrap()),
            Plan::Answer(answer) => panic!("an answer: {:?}", answer.keys()),
        }
    }

    pub fn answer(&self, key: &str) -> String {
        match self.plan().unwrap() {
            Plan::Answer(answer) => String::from_utf8(answer[key].clone()).unwrap(),
            Plan::Build(_) => panic!("images"),
        }
    }

    pub fn error(&self) -> Error {
        match self.plan() {
            Err(error) => error,
            Ok(_) => panic!("it can be built"),
        }
    }

    pub fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort();
        asked
    }
}

#[async_trait]
impl Sources for Fake {
    async fn resolve_layout(&self, place: &str, _: &pb::Platform, _: &str) -> Result<ResolvedImage> {
        Err(Error::not_found(format!("no layout {place}")))
    }

    async fn resolve_image(
        &self,
        name: &str,
        _: &pb::Platform,
        _: ResolveMode,
        log_name: &str,
    ) -> Result<ResolvedImage> {
        self.asked.lock().unwrap().push(log_name.to_owned());
        match self.images.get(name) {
            Some(config) => Ok(ResolvedImage {
                name: name.to_owned(),
                digest: DIGEST.to_owned(),
                config: serde_json::to_vec(config).unwrap(),
            }),
            None => Err(Error::not_found(format!("failed to resolve source metadata for {name}: not found"))),
        }
    }

    async fn read_files(
        &self,
        definition: pb::Definition,
        paths: &[&str],
        range: Option<(u64, u64)>,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        let vertices = vertices(&definition);
        let Some(pb::op::Op::Source(source)) = vertices[0].op.op.clone() else { panic!("no source") };
        self.asked.lock().unwrap().push(vertices[0].name.clone());
        let length = range.map_or(usize::MAX, |(_, length)| usize::try_from(length).unwrap());
        let read = |path: &&str| {
            let data = self.files.get(&(source.identifier.clone(), (*path).to_owned())).cloned();
            data.map(|data| data.into_iter().take(length).collect())
        };
        Ok(paths.iter().map(read).collect())
    }

    fn input(&self, name: &str) -> Option<pb::Definition> {
        self.inputs.get(name).cloned()
    }

    fn tell(&self, event: Event) {
        if let Event::Warning(warning) = event {
            self.told.lock().unwrap().push(String::from_utf8(warning.short).unwrap());
        }
    }
}

/// A vertex with its name.
#[derive(Debug, Clone)]
pub struct Seen {
    pub name: String,
    pub op: pb::Op,
    pub metadata: pb::OpMetadata,
}

pub fn vertices(definition: &pb::Definition) -> Vec<Seen> {
    definition
        .def
        .iter()
        .map(|bytes| {
            let metadata = definition.metadata[&crate::graph::digest(bytes)].clone();
            Seen {
                name: metadata.description.get(CUSTOM_NAME).cloned().unwrap_or_default(),
                op: pb::Op::decode(bytes.as_slice()).unwrap(),
                metadata,
            }
        })
        .collect()
}

/// What a Dockerfile became.
pub struct Made(pub PlannedImage);

impl Made {
    pub fn vertices(&self) -> Vec<Seen> {
        vertices(&self.0.definition)
    }

    pub fn names(&self) -> Vec<String> {
        self.vertices().into_iter().map(|seen| seen.name).filter(|name| !name.is_empty()).collect()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.0.config).unwrap()
    }

    pub fn config(&self, key: &str) -> Value {
        self.json()["config"][key].clone()
    }

    /// What the file's own instructions say in the history.
    pub fn history(&self) -> Vec<String> {
        let entries = self.json()["history"].as_array().unwrap().clone();
        let own = entries.iter().filter(|entry| entry["comment"] == "buildkit.dockerfile.v0");
        own.map(|entry| {
            let mark = if entry["empty_layer"] == true { "" } else { "+ " };
            format!("{mark}{}", entry["created_by"].as_str().unwrap())
        })
        .collect()
    }

    pub fn execs(&self) -> Vec<pb::ExecOp> {
        self.vertices()
            .into_iter()
            .filter_map(|seen| match seen.op.op {
                Some(pb::op::Op::Exec(exec)) => Some(exec),
                _ => None,
            })
            .collect()
    }

    pub fn sources(&self) -> Vec<pb::SourceOp> {
        self.vertices()
            .into_iter()
            .filter_map(|seen| match seen.op.op {
                Some(pb::op::Op::Source(source)) => Some(source),
                _ => None,
            })
            .collect()
    }

    pub fn copies(&self) -> Vec<pb::FileActionCopy> {
        self.vertices()
            .into_iter()
            .filter_map(|seen| match seen.op.op {
                Some(pb::op::Op::File(file)) => Some(file.actions),
                _ => None,
            })
            .flatten()
            .filter_map(|action| match action.action {
                Some(pb::file_action::Action::Copy(copy)) => Some(copy),
                _ => None,
            })
            .collect()
    }
}
