//! A build as a client asks for it: finds the Dockerfile, makes it into a graph for each platform, answers requests.

use std::collections::BTreeMap;

use bollard_buildkit_proto::moby::buildkit::v1::VertexWarning;
use futures_util::future::try_join_all;
use serde_json::json;
use skiff_images::Platform;

use super::check::{self, Linter};
use super::fault::Fault;
use super::ignore;
use super::instruction;
use super::lower::{
    self, Converted, Differ, Draft, IGNORE_FILE, Input, MainContext, StepNote, Vertex, convert, http_source,
    local_source, read_source,
};
use super::parse::{self, directive};
use super::request::{self, GitRef, LintReport, Settings};
use super::sources::{JobSources, Sources};
use crate::error::{Error, Result};
use crate::frontend::{BuildResult, FrontendRequest, IMAGE_CONFIG_KEY, PLATFORMS_KEY, Refs};
use crate::graph::pb;
use crate::progress::Event;
use crate::solver::Job;

/// The metadata key of the base image's configuration.
const BASE_CONFIG_KEY: &str = "containerimage.base.config";
/// The usual name of the file.
const DOCKERFILE: &str = "Dockerfile";
/// How many platforms one build may have.
const MAX_PLATFORMS: usize = 64;
/// What clients may ask to be there (`frontend.caps`).
const CAPABILITIES: [&str; 4] = [
    "moby.buildkit.frontend.inputs",
    "moby.buildkit.frontend.subrequests",
    "moby.buildkit.frontend.contexts",
    "moby.buildkit.frontend.gitquerystring",
];

/// What a request leads to, before anything is run.
#[derive(Debug, Clone)]
pub enum Plan {
    /// Images, one for each platform.
    Build(Build),
    /// An answer as metadata.
    Answer(BTreeMap<String, Vec<u8>>),
}

/// Images to be made.
#[derive(Debug, Clone)]
pub struct Build {
    /// One for each platform.
    pub images: Vec<PlannedImage>,
    /// Whether results are by platform, also when there is only one.
    pub multi_platform: bool,
}

/// An image to be made.
#[derive(Debug, Clone)]
pub struct PlannedImage {
    /// Its platform.
    pub platform: Platform,
    /// Its graph.
    pub definition: pb::Definition,
    /// Its configuration, without layers.
    pub config: Vec<u8>,
    /// The base image's configuration.
    pub base_config: Option<Vec<u8>>,
    /// The instructions that are carried out, for `Step 1/4 : FROM alpine`.
    pub steps: Vec<StepNote>,
}

/// Builds what a request asks for: the frontend `dockerfile.v0`.
///
/// # Errors
/// What is wrong with the request or its Dockerfile; what the solver says.
pub async fn build(job: &Job, request: &FrontendRequest) -> Result<BuildResult> {
    match plan(&JobSources::new(job, &request.inputs), request).await? {
        Plan::Answer(metadata) => Ok(BuildResult { refs: Refs::None, metadata }),
        Plan::Build(build) => {
            let mut refs = BTreeMap::new();
            let metadata = build.metadata();
            for image in build.images {
                refs.insert(image.platform.to_string(), job.solve(image.definition)?);
            }
            let refs = match build.multi_platform {
                true => Refs::Map(refs),
                false => refs.into_values().next().map_or(Refs::None, Refs::Single),
            };
            Ok(BuildResult { refs, metadata })
        }
    }
}

/// Reads the Dockerfile and makes graphs of it; runs nothing but what that needs.
///
/// # Errors
/// What is wrong with the request or its Dockerfile.
pub async fn plan(sources: &dyn Sources, request: &FrontendRequest) -> Result<Plan> {
    let attributes = &request.attributes;
    check_capabilities(attributes)?;
    let settings = Settings::parse(attributes, &Platform::host()).map_err(|fault| fault.into_error(None))?;
    if settings.platforms.len() > MAX_PLATFORMS {
        return Err(Error::invalid(format!("more than {MAX_PLATFORMS} platforms")));
    }
    let asked = attributes.get("requestid").map_or("", String::as_str);
    if asked == "frontend.subrequests.describe" {
        return Ok(Plan::Answer(request::describe()));
    }
    let origin = Origin::find(sources, attributes).await?;
    let file = origin.dockerfile(sources).await?;
    check_syntax(&file, attributes)?;
    let text = String::from_utf8_lossy(&file.source.data).into_owned();
    let to_error = |fault: Fault| fault.into_error(Some(&file.source));
    let options = match &settings.checks {
        Some(options) => options.clone(),
        None => match directive::find(&text, "check") {
            Some(check) => check::Options::parse(&check.value)
                .map_err(|fault| fault.within("failed to parse check options").into_error(None))?,
            None => check::Options::default(),
        },
    };
    if asked == "frontend.targets" {
        let mut linter = Linter::default();
        let parsed = parse::parse(&text).map_err(to_error)?;
        let document = instruction::parse(&parsed.nodes, &mut linter).map_err(to_error)?;
        return Ok(Plan::Answer(request::targets(&document.stages, &file.source)));
    }
    let context = origin.context(sources, file.ignore.as_deref()).await?;
    let conversion = Conversion { text: &text, file: &file, settings: &settings, sources, context: &context };
    match asked {
        "" => {}
        "frontend.outline" => {
            let (converted, _) = conversion.run(&platforms(&settings)[0], false, &options).await;
            return Ok(Plan::Answer(request::outline(&converted.map_err(to_error)?, &file.source)));
        }
        "frontend.lint" => {
            let all = settings.target.is_empty();
            let (converted, linter) = conversion.run(&platforms(&settings)[0], all, &options).await;
            let report = LintReport { linter: &linter, fault: converted.as_ref().err() };
            return Ok(Plan::Answer(request::lint(&report, &file.source)));
        }
        other => return Err(Error::invalid(format!("unsupported request {other}"))),
    }
    let platforms = platforms(&settings);
    let made = try_join_all(platforms.iter().enumerate().map(|(number, platform)| {
        let (conversion, options, file) = (&conversion, &options, &file);
        async move {
            let (converted, linter) = conversion.run(platform, false, options).await;
            // The findings are the same for all platforms.
            if number == 0 {
                file.tell(sources, &linter);
            }
            converted.map_err(|fault| fault.into_error(Some(&file.source)))
        }
    }))
    .await?;
    let images = platforms
        .into_iter()
        .zip(made)
        .map(|(platform, converted)| PlannedImage {
            platform: if settings.platforms.is_empty() { converted.image.platform() } else { platform },
            config: converted.image.to_json(),
            definition: converted.definition,
            base_config: converted.base_config,
            steps: converted.steps,
        })
        .collect();
    Ok(Plan::Build(Build { images, multi_platform: settings.multi_platform }))
}

fn platforms(settings: &Settings) -> Vec<Platform> {
    match settings.platforms.as_slice() {
        [] => vec![settings.build_platform.clone()],
        platforms => platforms.to_vec(),
    }
}

fn check_capabilities(attributes: &BTreeMap<String, String>) -> Result<()> {
    let wanted = attributes.get("frontend.caps").map_or("", String::as_str);
    for one in wanted.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let name = one.split('+').next().unwrap_or(one);
        if !CAPABILITIES.contains(&name) {
            return Err(Error::invalid(format!("unsupported frontend capability {one}")));
        }
    }
    Ok(())
}

/// `# syntax=docker/dockerfile…` means what is built in; other frontends are images, which are not run.
fn check_syntax(file: &File, attributes: &BTreeMap<String, String>) -> Result<()> {
    let text = String::from_utf8_lossy(&file.source.data);
    let (name, lines) =
        match attributes.get("build-arg:BUILDKIT_SYNTAX").or_else(|| attributes.get("cmdline")) {
            Some(given) => (given.clone(), None),
            None => match directive::find(&text, "syntax") {
                Some(found) => (found.value, Some(found.lines)),
                None => return Ok(()),
            },
        };
    let name = name.split_whitespace().next().unwrap_or_default();
    let bare = name.strip_prefix("docker.io/").unwrap_or(name);
    let built_in = ["docker/dockerfile", "docker/dockerfile-upstream"].iter().any(|known| {
        bare.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
    });
    if built_in || name.is_empty() {
        return Ok(());
    }
    let fault =
        Fault::new(format!("syntax {name} is not supported: only docker/dockerfile is, which is built in"));
    let fault = lines.into_iter().fold(fault, Fault::at);
    Err(fault.into_error(Some(&file.source)))
}

/// The Dockerfile.
struct File {
    source: pb::SourceInfo,
    /// The digest of the vertex that it is from.
    vertex: String,
    /// Its own ignore file.
    ignore: Option<Vec<u8>>,
}

impl File {
    fn tell(&self, sources: &dyn Sources, linter: &Linter) {
        for warning in linter.warnings() {
            sources.tell(Event::Warning(VertexWarning {
                vertex: self.vertex.clone(),
                level: 1,
                short: warning.short().into_bytes(),
                detail: vec![warning.rule.description().as_bytes().to_vec()],
                url: warning.rule.url(),
                info: Some(self.source.clone()),
                ranges: vec![warning.lines.range()],
            }));
        }
    }
}

struct Conversion<'a> {
    text: &'a str,
    file: &'a File,
    settings: &'a Settings,
    sources: &'a dyn Sources,
    context: &'a MainContext,
}

impl Conversion<'_> {
    async fn run(
        &self,
        platform: &Platform,
        all_stages: bool,
        options: &check::Options,
    ) -> (Result<Converted, Fault>, Linter) {
        let mut linter = Linter::new(options.clone());
        let input = Input {
            text: self.text,
            source: &self.file.source,
            settings: self.settings,
            sources: self.sources,
            platform: platform.clone(),
            context: self.context,
            all_stages,
        };
        let converted = convert(input, &mut linter).await;
        (converted, linter)
    }
}

/// Where the Dockerfile and the context are from.
struct Origin {
    /// The context, when it is no directory of the client.
    graph: Option<(Draft, lower::Out)>,
    /// Where the Dockerfile is, when it is not with the client.
    dockerfile: Option<(Draft, lower::Out)>,
    /// The client's name of the context.
    context_name: String,
    /// The client's name of the Dockerfile's directory.
    dockerfile_name: String,
    /// The file.
    filename: String,
}

impl Origin {
    async fn find(sources: &dyn Sources, attributes: &BTreeMap<String, String>) -> Result<Origin> {
        let key = attributes.get("contextkey").map_or("context", String::as_str);
        let place = attributes.get(key).map_or("", String::as_str);
        let mut origin = Origin {
            graph: None,
            dockerfile: None,
            context_name: "context".to_owned(),
            dockerfile_name: attributes.get("dockerfilekey").map_or("dockerfile", String::as_str).to_owned(),
            filename: attributes.get("filename").map_or(DOCKERFILE, String::as_str).to_owned(),
        };
        let to_error = |fault: Fault| fault.into_error(None);
        if let Some(mut git) = GitRef::parse(place).map_err(to_error)? {
            let keep = attributes.get("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR").map(String::as_str);
            if keep.and_then(instruction::boolean) == Some(true) {
                git.keep_git_dir = Some(true);
            }
            let name = format!("[internal] load git source {place}");
            origin.graph = Some(alone(pb::op::Op::Source(git.source()), &name).map_err(to_error)?);
            origin.dockerfile.clone_from(&origin.graph);
        } else if place.starts_with("http://") || place.starts_with("https://") {
            origin.download(sources, place).await?;
        } else {
            if let Some(definition) = sources.input("context").filter(|input| !input.def.is_empty()) {
                origin.graph = Some(imported(definition).map_err(to_error)?);
            }
            let file = sources.input(&origin.dockerfile_name).filter(|input| !input.def.is_empty());
            if let Some(definition) = file {
                origin.dockerfile = Some(imported(definition).map_err(to_error)?);
            }
        }
        // `-f` beside a remote context is a file of the client.
        if attributes.contains_key("dockerfilekey") {
            origin.dockerfile = None;
        }
        if let (Some(directory), Some((draft, out))) = (attributes.get("contextsubdir"), &mut origin.graph) {
            *out = scoped(draft, *out, directory).map_err(to_error)?;
        }
        Ok(origin)
    }

    /// A URL is a tar archive with the context, or only the Dockerfile.
    async fn download(&mut self, sources: &dyn Sources, url: &str) -> Result<()> {
        const FILE: &str = "context";
        let to_error = |fault: Fault| fault.into_error(None);
        let source = pb::op::Op::Source(http_source(url, FILE, ""));
        let (mut draft, out) = alone(source, "[internal] load remote build context").map_err(to_error)?;
        let (definition, _) = draft.definition(Some(out), None, &[])?;
        let head = sources
            .read_files(definition, &[FILE], Some((0, 1024)))
            .await?
            .pop()
            .flatten()
            .ok_or_else(|| Error::failed("failed to read downloaded context"))?;
        let root = match is_archive(&head) {
            true => unpacked(&mut draft, out, FILE).map_err(to_error)?,
            false => {
                FILE.clone_into(&mut self.filename);
                out
            }
        };
        self.graph = Some((draft, root));
        self.dockerfile.clone_from(&self.graph);
        Ok(())
    }

    async fn dockerfile(&self, sources: &dyn Sources) -> Result<File> {
        let name = self.filename.as_str();
        let mut names = vec![name.to_owned()];
        // `dockerfile` will do when there is no `Dockerfile`.
        let directory = name.strip_suffix(DOCKERFILE).filter(|dir| dir.is_empty() || dir.ends_with('/'));
        if let Some(directory) = directory {
            names.push(format!("{directory}{}", DOCKERFILE.to_lowercase()));
        }
        let (draft, out) = match &self.dockerfile {
            Some((draft, out)) => (draft.clone(), *out),
            None => {
                let mut follow = vec![name.to_owned(), format!("{name}{IGNORE_FILE}")];
                follow.extend(names.iter().skip(1).cloned());
                let local =
                    local_source(&self.dockerfile_name, &self.dockerfile_name, &follow, &[], Differ::None);
                alone(local, &format!("[internal] load build definition from {name}"))
                    .map_err(|fault| fault.into_error(None))?
            }
        };
        let (definition, digests) = draft.definition(Some(out), None, &[Some(out)])?;
        // The file itself, what will do in its place, and the ignore file beside it.
        let own_ignore = format!("{name}{IGNORE_FILE}");
        let paths: Vec<&str> = names.iter().map(String::as_str).chain([own_ignore.as_str()]).collect();
        let mut files = sources.read_files(definition.clone(), &paths, None).await?;
        let ignore = files.pop().flatten();
        let data = files.into_iter().flatten().next();
        let Some(data) = data else {
            return Err(Error::not_found(format!(
                "failed to read dockerfile: open {name}: no such file or directory"
            )));
        };
        if data.len() > parse::MAX_FILE {
            return Err(Error::invalid(format!(
                "the Dockerfile is larger than {} MiB",
                parse::MAX_FILE >> 20
            )));
        }
        Ok(File {
            source: pb::SourceInfo {
                filename: name.to_owned(),
                data,
                definition: Some(definition),
                language: DOCKERFILE.to_owned(),
            },
            vertex: digests.into_iter().flatten().next().unwrap_or_default(),
            ignore,
        })
    }

    async fn context(self, sources: &dyn Sources, own_ignore: Option<&[u8]>) -> Result<MainContext> {
        if let Some((draft, out)) = self.graph {
            return Ok(MainContext::Graph(Box::new(draft), Some(out)));
        }
        let (text, name) = match own_ignore {
            Some(text) => (text.to_vec(), format!("{}{IGNORE_FILE}", self.filename)),
            None => {
                let hint = format!("{}-{IGNORE_FILE}", self.context_name);
                let op =
                    local_source(&self.context_name, &hint, &[IGNORE_FILE.to_owned()], &[], Differ::None);
                let shown = format!("[internal] load {IGNORE_FILE}");
                let text = read_source(sources, op, &shown, IGNORE_FILE)
                    .await
                    .map_err(|fault| fault.into_error(None))?;
                (text.unwrap_or_default(), IGNORE_FILE.to_owned())
            }
        };
        let excludes = ignore::read(&String::from_utf8_lossy(&text))
            .and_then(|patterns| ignore::Matcher::new(&patterns).map(|_| patterns))
            .map_err(|fault| fault.within(&format!("failed parsing {name}")).into_error(None))?;
        Ok(MainContext::Local { name: self.context_name, excludes })
    }
}

fn alone(op: pb::op::Op, name: &str) -> super::fault::Result<(Draft, lower::Out)> {
    let mut draft = Draft::default();
    let out = draft.add(Vertex { op: Some(op), name: name.to_owned(), ..Vertex::default() })?;
    Ok((draft, out))
}

fn imported(definition: pb::Definition) -> super::fault::Result<(Draft, lower::Out)> {
    let mut draft = Draft::default();
    let out = draft.import(definition)?;
    Ok((draft, out))
}

fn scoped(draft: &mut Draft, from: lower::Out, directory: &str) -> super::fault::Result<lower::Out> {
    copied(
        draft,
        from,
        pb::FileActionCopy {
            src: format!("/{}", ignore::clean(directory).trim_start_matches('/')),
            dir_copy_contents: true,
            ..pb::FileActionCopy::default()
        },
    )
}

fn unpacked(draft: &mut Draft, from: lower::Out, file: &str) -> super::fault::Result<lower::Out> {
    copied(
        draft,
        from,
        pb::FileActionCopy {
            src: format!("/{file}"),
            attempt_unpack_docker_compatibility: true,
            ..pb::FileActionCopy::default()
        },
    )
}

fn copied(draft: &mut Draft, from: lower::Out, copy: pb::FileActionCopy) -> super::fault::Result<lower::Out> {
    let copy = pb::FileActionCopy { dest: "/".to_owned(), mode: -1, timestamp: -1, ..copy };
    let op = pb::op::Op::File(pb::FileOp {
        actions: vec![pb::FileAction {
            input: -1,
            secondary_input: 0,
            output: 0,
            action: Some(pb::file_action::Action::Copy(copy)),
        }],
    });
    draft.add(Vertex {
        op: Some(op),
        inputs: vec![from],
        name: "[internal] load remote build context".to_owned(),
        ..Vertex::default()
    })
}

fn is_archive(head: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    MAGIC.iter().any(|magic| head.starts_with(magic)) || head.get(257..262) == Some(b"ustar".as_slice())
}

impl Build {
    /// The metadata of the result.
    pub fn metadata(&self) -> BTreeMap<String, Vec<u8>> {
        let mut metadata = BTreeMap::new();
        let mut list = Vec::new();
        for image in &self.images {
            let id = image.platform.to_string();
            let suffix = if self.multi_platform { format!("/{id}") } else { String::new() };
            metadata.insert(format!("{IMAGE_CONFIG_KEY}{suffix}"), image.config.clone());
            if let Some(base) = &image.base_config {
                metadata.insert(format!("{BASE_CONFIG_KEY}{suffix}"), base.clone());
            }
            let mut platform = json!({"architecture": image.platform.architecture, "os": image.platform.os});
            if !image.platform.variant.is_empty() {
                platform["variant"] = image.platform.variant.clone().into();
            }
            list.push(json!({"ID": id, "Platform": platform}));
        }
        let platforms = json!({ "Platforms": list });
        metadata.insert(PLATFORMS_KEY.to_owned(), platforms.to_string().into_bytes());
        metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_by_their_first_bytes() {
        assert!(is_archive(b"\x1f\x8b\x08\0"));
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(is_archive(&tar));
        assert!(!is_archive(b"FROM alpine"));
    }
}
