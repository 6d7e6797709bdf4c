//! Images: the store's calls in the API's models, with events and the rules about containers that use them.

mod list;
mod pattern;
mod search;

use std::collections::{HashMap, HashSet};

use bollard_stubs::models::{
    DriverData, ImageConfig, ImageDeleteResponseItem, ImageHistoryResponseItem, ImageInspect,
    ImageInspectMetadata, ImageInspectRootFs,
};
use futures_util::stream::{self, BoxStream, StreamExt};
pub use list::ListImages;
use skiff_images::{
    Auth, Image, InUse, Parents, ProgressEvent, PushedMember, Reference, RemoteManifest, Removed,
};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;

use crate::clock;
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result};
use crate::events::Kind;
use crate::files::ByteStream;
use crate::state::MountKind;
use crate::system::DOCKER_VERSION;

/// Lines that may wait for a slow client; further ones of pure progress are left out.
const WAITING: usize = 1024;

/// A line of a long operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageProgress {
    /// A step, with figures where there are any.
    Step(ProgressEvent),
    /// Text for people, printed as it is.
    Text(String),
    /// A result for programs.
    Result(serde_json::Value),
}

/// Progress of a long operation. Dropping it cancels the operation.
pub type ProgressStream = BoxStream<'static, Result<ImageProgress>>;

/// An image to be pulled.
#[derive(Debug, Clone, Default)]
pub struct PullImage {
    /// `name`, `name:tag` or `name@digest`.
    pub reference: String,
    /// Every tag of the repository.
    pub all_tags: bool,
    /// `os[/arch[/variant]]`.
    pub platform: Option<String>,
    /// Credentials.
    pub auth: Option<Auth>,
}

/// An image to be pushed.
#[derive(Debug, Clone, Default)]
pub struct PushImage {
    /// `name:tag`, or `name` for every tag of it.
    pub reference: String,
    /// `os[/arch[/variant]]` that it must be for.
    pub platform: Option<String>,
    /// Credentials.
    pub auth: Option<Auth>,
}

/// An image, described.
#[derive(Debug, Clone, Default)]
pub struct ImageDetails {
    /// What the API's model has fields for.
    pub model: ImageInspect,
    /// The image that it was made of here, or nothing.
    pub parent: String,
    /// The version of Docker that made it, as it says.
    pub docker_version: String,
}

/// A root file system to be imported.
#[derive(Debug, Clone, Default)]
pub struct ImportImage {
    /// Where the tar is, when it is not sent along.
    pub url: Option<String>,
    /// `name[:tag]`; `None` imports without a name.
    pub reference: Option<String>,
    /// The image's comment.
    pub message: String,
    /// Dockerfile lines to apply.
    pub changes: Vec<String>,
    /// `os[/arch[/variant]]`.
    pub platform: Option<String>,
}

/// The store's error as the engine's.
pub(crate) fn image_error(error: &skiff_images::Error) -> Error {
    use skiff_images::Code as Theirs;
    if error.is_storage_full() {
        return Error::disk_full(error);
    }
    let code = match error.code() {
        Theirs::InvalidArgument => Code::InvalidArgument,
        Theirs::NotFound => Code::NotFound,
        Theirs::Conflict => Code::Conflict,
        _ => Code::Internal,
    };
    Error::new(code, error.to_string())
}

impl Engine {
    /// Pulls an image from its registry.
    pub fn pull_image(&self, request: PullImage) -> ProgressStream {
        let engine = self.clone();
        self.with_progress(move |lines| async move {
            let progress = |event| {
                // A client that does not keep up misses steps, never the outcome.
                let _ = lines.try_send(Ok(ImageProgress::Step(event)));
            };
            let PullImage { reference, all_tags, platform, auth } = request;
            let images = &engine.0.config.images;
            let parsed = Reference::parse(&reference).map_err(skiff_images::Error::from);
            let parsed = parsed.map_err(|error| image_error(&error))?;
            let short = parsed.familiar_name();
            if all_tags {
                let pulled = images.pull_all(&reference, platform.as_deref(), auth, &progress).await;
                pulled.map_err(|error| image_error(&error))?;
                engine.image_event(&short, "pull", &short, &HashMap::new());
                return Ok(());
            }
            let pulled = images.pull(&reference, platform.as_deref(), auth, &progress).await;
            let name = parsed.or_latest().familiar();
            // An image for another platform has been pulled all the same.
            if let Ok(image) = images.get(&name)
                && matches!(pulled, Ok(_) | Err(skiff_images::Error::OtherPlatform { .. }))
            {
                engine.image_event(&name, "pull", &short, &image.labels);
            }
            pulled.map(drop).map_err(|error| image_error(&error))
        })
    }

    /// Pushes an image to its registry.
    pub fn push_image(&self, request: PushImage) -> ProgressStream {
        let engine = self.clone();
        self.with_progress(move |lines| async move {
            let progress = |event| {
                let _ = lines.try_send(Ok(ImageProgress::Step(event)));
            };
            let PushImage { reference, platform, auth } = request;
            engine.check_platform(&reference, platform.as_deref())?;
            let images = &engine.0.config.images;
            let pushed = images.push(&reference, auth, &progress).await;
            for pushed in pushed.map_err(|error| image_error(&error))? {
                let aux = serde_json::json!({
                    "Tag": pushed.tag, "Digest": pushed.digest.to_string(), "Size": pushed.size,
                });
                let _ = lines.send(Ok(ImageProgress::Result(aux))).await;
            }
            let parsed = Reference::parse(&reference).ok();
            let short = parsed.as_ref().map_or_else(|| reference.clone(), Reference::familiar_name);
            let name = parsed.map_or(reference, |name| name.familiar());
            let labels = images.get(&name).map(|image| image.labels).unwrap_or_default();
            engine.image_event(&name, "push", &short, &labels);
            Ok(())
        })
    }

    /// Asks a registry whether it takes credentials; returns a token to keep instead of the password, or nothing.
    ///
    /// # Errors
    /// [`Code::Unauthorized`] when it does not.
    pub async fn check_credentials(&self, server: &str, auth: Auth) -> Result<String> {
        let logged_in =
            self.0.config.images.login(server, auth).await.map_err(|error| match error.code() {
                skiff_images::Code::Unauthorized => Error::new(Code::Unauthorized, error.to_string()),
                _ => image_error(&error),
            })?;
        Ok(logged_in.identity_token.expose().to_owned())
    }

    /// Describes what a registry has under a name.
    ///
    /// # Errors
    /// What the registry refuses.
    pub async fn describe_remote(&self, name: &str, auth: Option<Auth>) -> Result<serde_json::Value> {
        self.0.config.images.describe_remote(name, auth).await.map_err(|error| image_error(&error))
    }

    /// Fetches the manifest or the list of them that a registry has under a name.
    ///
    /// # Errors
    /// What the registry refuses.
    pub async fn remote_manifest(&self, name: &str, auth: Option<Auth>) -> Result<RemoteManifest> {
        self.0.config.images.remote_manifest(name, auth).await.map_err(|error| image_error(&error))
    }

    /// Pushes a list of manifests that was made by hand, with its members.
    ///
    /// # Errors
    /// Members at another registry; what the registry refuses.
    pub async fn push_manifest_list(
        &self,
        name: &str,
        list: Vec<u8>,
        members: &[String],
        auth: Option<Auth>,
    ) -> Result<(String, Vec<PushedMember>)> {
        let pushed = self.0.config.images.push_list(name, list, members, auth).await;
        let (digest, members) = pushed.map_err(|error| image_error(&error))?;
        Ok((digest.to_string(), members))
    }

    /// Loads the images of an archive.
    pub fn load_images(
        &self,
        archive: Box<dyn AsyncRead + Send + Unpin>,
        quiet: bool,
        platform: Option<String>,
    ) -> ProgressStream {
        let engine = self.clone();
        self.with_progress(move |lines| async move {
            let progress = |event| {
                if !quiet {
                    let _ = lines.try_send(Ok(ImageProgress::Step(event)));
                }
            };
            let loaded = engine.0.config.images.load(archive, platform.as_deref(), &progress).await;
            for loaded in loaded.map_err(|error| image_error(&error))? {
                engine.image_event(&loaded.image.id, "load", &loaded.image.id, &loaded.image.labels);
                for (name, old) in &loaded.moved {
                    let text = format!(
                        "The image {name} already exists, renaming the old one with ID {old} to empty string\n"
                    );
                    let _ = lines.send(Ok(ImageProgress::Text(text))).await;
                }
                let text = match loaded.names.as_slice() {
                    [] => format!("Loaded image ID: {}\n", loaded.image.id),
                    names => names.iter().map(|name| format!("Loaded image: {name}\n")).collect(),
                };
                // The client may have gone; the image is loaded all the same.
                let _ = lines.send(Ok(ImageProgress::Text(text))).await;
            }
            Ok(())
        })
    }

    fn with_progress<F, W>(&self, work: F) -> ProgressStream
    where
        F: FnOnce(mpsc::Sender<Result<ImageProgress>>) -> W + Send + 'static,
        W: Future<Output = Result<()>> + Send + 'static,
    {
        let (lines, receiver) = mpsc::channel(WAITING);
        let last = lines.clone();
        let mut task = tokio::task::JoinSet::new();
        task.spawn_on(
            async move {
                if let Err(error) = work(lines).await {
                    let _ = last.send(Err(error)).await;
                }
            },
            &self.0.runtime,
        );
        // The set is dropped with the stream, and its task with the set.
        stream::unfold((receiver, task), |(mut receiver, task)| async move {
            receiver.recv().await.map(|line| (line, (receiver, task)))
        })
        .boxed()
    }

    /// Makes an image of a root file system; the last step's status is its id.
    pub fn import_image(
        &self,
        request: ImportImage,
        tar: Box<dyn AsyncRead + Send + Unpin>,
    ) -> ProgressStream {
        let engine = self.clone();
        self.with_progress(move |lines| async move {
            let step = |text: String| Ok(ImageProgress::Step(ProgressEvent::line(text)));
            let id = match &request.url {
                None => engine.import(request, tar).await?,
                Some(url) => {
                    let file = engine.0.config.images.download(url).await;
                    let (file, _) = file.map_err(|error| image_error(&error))?;
                    let _ = lines.send(step(format!("Downloading from {url}"))).await;
                    engine.import(request, Box::new(file)).await?
                }
            };
            let _ = lines.send(step(id)).await;
            Ok(())
        })
    }

    async fn import(&self, request: ImportImage, tar: Box<dyn AsyncRead + Send + Unpin>) -> Result<String> {
        let ImportImage { url, reference, mut message, changes, platform } = request;
        if message.is_empty() {
            message = format!("Imported from {}", url.as_deref().unwrap_or("-"));
        }
        let image = self
            .0
            .config
            .images
            .import(tar, reference.as_deref(), &message, &changes, platform.as_deref(), DOCKER_VERSION)
            .await
            .map_err(|error| image_error(&error))?;
        if let Some(name) = reference.and_then(|name| Reference::parse(&name).ok()) {
            self.image_event(&image.id, "tag", &name.or_latest().familiar(), &image.labels);
        }
        self.image_event(&image.id, "import", &image.id, &image.labels);
        Ok(image.id)
    }

    /// Reads images as an archive.
    ///
    /// # Errors
    /// When there is none of one of the names or ids.
    pub fn save_images(&self, names: &[String], platform: Option<&str>) -> Result<ByteStream> {
        for name in names {
            self.check_platform(name, platform)?;
        }
        let save = self.0.config.images.save(names).map_err(|error| image_error(&error))?;
        for id in save.ids() {
            let labels = self.find_image(&id).map(|image| image.labels).unwrap_or_default();
            self.image_event(&id, "save", &id, &labels);
        }
        crate::files::stream(move |out| save.write(out))
    }

    /// Describes an image.
    ///
    /// # Errors
    /// When there is none of that name or id.
    pub async fn inspect_image(&self, name: &str, platform: Option<&str>) -> Result<ImageDetails> {
        self.check_platform(name, platform)?;
        let image = self.find_image(name)?;
        let lower = self.0.config.images.lower_dirs(&image.id).map_err(|error| image_error(&error))?;
        let mut dirs = lower.iter().map(|dir| dir.display().to_string());
        let top = dirs.next().unwrap_or_default();
        let below = dirs.collect::<Vec<_>>().join(":");
        let mut data = HashMap::new();
        if !top.is_empty() {
            // Nothing is mounted at an image's places: containers have their own, and so it is with dockerd.
            data.insert("MergedDir".to_owned(), format!("{top}.merged"));
            data.insert("WorkDir".to_owned(), format!("{top}.work"));
            data.insert("UpperDir".to_owned(), top);
        }
        if !below.is_empty() {
            data.insert("LowerDir".to_owned(), below);
        }
        let config: ImageConfig =
            serde_json::from_value(image.raw_config["config"].clone()).unwrap_or_default();
        let model = ImageInspect {
            id: Some(image.id.clone()),
            repo_tags: Some(image.repo_tags.clone()),
            repo_digests: Some(image.repo_digests.clone()),
            comment: Some(image.comment.clone()),
            created: image.created.clone(),
            author: Some(image.author.clone()),
            config: Some(config),
            architecture: Some(image.architecture.clone()),
            variant: Some(image.variant.clone()).filter(|variant| !variant.is_empty()),
            os: Some(image.os.clone()),
            size: Some(image.size as i64),
            graph_driver: Some(DriverData { name: "overlay2".to_owned(), data }),
            root_fs: Some(ImageInspectRootFs {
                typ: "layers".to_owned(),
                layers: Some(image.layers.iter().map(ToString::to_string).collect()),
            }),
            metadata: Some(ImageInspectMetadata {
                last_tag_time: image
                    .last_tagged
                    .and_then(|at| u64::try_from(at).ok())
                    .map(|at| clock::rfc3339(Some(at * 1_000_000_000))),
            }),
            ..ImageInspect::default()
        };
        let docker_version = image.raw_config["docker_version"].as_str().unwrap_or_default().to_owned();
        Ok(ImageDetails { model, parent: image.parent.unwrap_or_default(), docker_version })
    }

    /// Lists an image's layers and steps, newest first.
    ///
    /// # Errors
    /// When there is none of that name or id.
    pub async fn image_history(
        &self,
        name: &str,
        platform: Option<&str>,
    ) -> Result<Vec<ImageHistoryResponseItem>> {
        self.check_platform(name, platform)?;
        let entries = self.0.config.images.history(name).map_err(|error| image_error(&error))?;
        let seconds = |text: Option<String>| {
            text.and_then(|text| clock::parse(&text)).map_or(0, |at| (at / 1_000_000_000) as i64)
        };
        let item = |entry: skiff_images::HistoryEntry| ImageHistoryResponseItem {
            id: entry.id,
            created: seconds(entry.created),
            created_by: entry.created_by,
            tags: entry.tags,
            size: entry.size as i64,
            comment: entry.comment,
        };
        Ok(entries.into_iter().map(item).collect())
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// When there is no such image or the name is none.
    pub async fn tag_image(&self, name: &str, repository: &str, tag: &str) -> Result<()> {
        let target = if tag.is_empty() { repository.to_owned() } else { format!("{repository}:{tag}") };
        let (engine, name) = (self.clone(), name.to_owned());
        blocking(move || {
            let image = engine.0.config.images.tag(&name, &target).map_err(|error| image_error(&error))?;
            let shown = Reference::parse(&target).map_or(target, |name| name.or_latest().familiar());
            engine.image_event(&image.id, "tag", &shown, &image.labels);
            Ok(())
        })
        .await
    }

    /// Removes a name, and the image with its last one.
    ///
    /// # Errors
    /// When a container uses it, or it has several names.
    pub async fn remove_image(
        &self,
        name: &str,
        force: bool,
        parents: Parents,
        platform: Option<&str>,
    ) -> Result<Vec<ImageDeleteResponseItem>> {
        self.check_platform(name, platform)?;
        let (engine, name) = (self.clone(), name.to_owned());
        blocking(move || {
            let users = engine.image_users();
            let image = engine.find_image(&name);
            let (id, labels) =
                image.map_or_else(|_| (name.clone(), HashMap::new()), |image| (image.id, image.labels));
            let removed = engine
                .0
                .config
                .images
                .remove(&name, force, parents, &|id| in_use(&users, id))
                .map_err(|error| image_error(&error))?;
            Ok(engine.removed(&id, &labels, removed))
        })
        .await
    }

    /// Fails when an image that is here is for another platform than the one wanted.
    fn check_platform(&self, name: &str, wanted: Option<&str>) -> Result<()> {
        let Some(wanted) = wanted else { return Ok(()) };
        let wanted = wanted.parse().map_err(|error| image_error(&error))?;
        match self.0.config.images.get(name) {
            Ok(image) => image.check_platform(name, &wanted).map_err(|error| image_error(&error)),
            // The operation itself says what is missing.
            Err(_) => Ok(()),
        }
    }

    fn find_image(&self, name: &str) -> Result<Image> {
        self.0.config.images.get(name).map_err(|error| image_error(&error))
    }

    /// Tells what was removed of the image `image`.
    fn removed(
        &self,
        image: &str,
        labels: &HashMap<String, String>,
        removed: Vec<Removed>,
    ) -> Vec<ImageDeleteResponseItem> {
        let none = HashMap::new();
        removed
            .into_iter()
            .map(|removed| match removed {
                Removed::Untagged(name) => {
                    self.image_event(image, "untag", image, labels);
                    ImageDeleteResponseItem { untagged: Some(name), deleted: None }
                }
                Removed::UntaggedToo(name) => ImageDeleteResponseItem { untagged: Some(name), deleted: None },
                Removed::DeletedLayer(id) => ImageDeleteResponseItem { untagged: None, deleted: Some(id) },
                Removed::Deleted(id) => {
                    self.image_event(&id, "delete", &id, &none);
                    ImageDeleteResponseItem { untagged: None, deleted: Some(id) }
                }
            })
            .collect()
    }

    /// Which containers use which image: id and whether it runs.
    fn image_users(&self) -> HashMap<String, Vec<(String, bool)>> {
        let mut users: HashMap<String, Vec<(String, bool)>> = HashMap::new();
        for container in self.0.registry.all() {
            let record = container.record();
            let user = (record.id.clone(), container.changes.borrow().running);
            for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Image) {
                users.entry(mount.source.clone()).or_default().push(user.clone());
            }
            users.entry(record.image_id.clone()).or_default().push(user);
        }
        users
    }

    /// Lets go of images that were removed by force while a container kept their layers. Blocks.
    pub(crate) fn collect_images(&self) {
        let used: HashSet<String> = self.image_users().into_keys().collect();
        if let Err(error) = self.0.config.images.collect(&|id| used.contains(id)) {
            tracing::warn!(%error, "removed images can't be deleted");
        }
    }

    /// Tells of an image that was built, and of its names.
    pub fn image_built(&self, id: &str, tags: &[String]) {
        let labels = self.find_image(id).map(|image| image.labels).unwrap_or_default();
        for tag in tags {
            let shown =
                Reference::parse(tag).map_or_else(|_| tag.clone(), |name| name.or_latest().familiar());
            self.image_event(id, "tag", &shown, &labels);
        }
    }

    pub(crate) fn image_event(&self, id: &str, action: &str, name: &str, labels: &HashMap<String, String>) {
        let mut attributes = labels.clone();
        attributes.insert("name".to_owned(), name.to_owned());
        self.0.events.publish(Kind::Image, action, id, attributes);
    }
}

fn in_use(users: &HashMap<String, Vec<(String, bool)>>, image: &str) -> Option<InUse> {
    let users = users.get(image)?;
    match users.iter().find(|(_, running)| *running) {
        Some((id, _)) => Some(InUse::Running(id.clone())),
        None => users.first().map(|(id, _)| InUse::Stopped(id.clone())),
    }
}

fn created_ns(image: &Image) -> u64 {
    image.created.as_deref().and_then(clock::parse).unwrap_or(0)
}
