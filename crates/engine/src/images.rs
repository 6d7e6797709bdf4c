//! Images: the store's calls in the API's models, with events and the rules about containers that use them.

use std::collections::{HashMap, HashSet};

use bollard_stubs::models::{
    DriverData, ImageConfig, ImageDeleteResponseItem, ImageHistoryResponseItem, ImageInspect,
    ImageInspectMetadata, ImageInspectRootFs, ImagePruneResponse, ImageSummary,
};
use futures_util::stream::{self, BoxStream, StreamExt};
use skiff_images::{Auth, Image, InUse, ProgressEvent, Reference, Removed};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;

use crate::clock;
use crate::container::until;
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result};
use crate::events::Kind;
use crate::files::ByteStream;
use crate::filters::Filters;
use crate::state::MountKind;

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
    /// Credentials.
    pub auth: Option<Auth>,
}

/// A root file system to be imported.
#[derive(Debug, Clone, Default)]
pub struct ImportImage {
    /// `name[:tag]`; `None` imports without a name.
    pub reference: Option<String>,
    /// The image's comment.
    pub message: String,
    /// Dockerfile lines to apply.
    pub changes: Vec<String>,
    /// `os[/arch[/variant]]`.
    pub platform: Option<String>,
}

/// Which images to list.
#[derive(Debug, Clone, Default)]
pub struct ListImages {
    /// Intermediate images too; this engine has none.
    pub all: bool,
    /// How many bytes each shares with others is wanted.
    pub shared_size: bool,
    /// How many containers use each is wanted.
    pub containers: bool,
    /// Which ones.
    pub filters: Filters,
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
            let PullImage { reference, platform, auth } = request;
            let images = &engine.0.config.images;
            let image = images.pull(&reference, platform.as_deref(), auth, &progress).await;
            let image = image.map_err(|error| image_error(&error))?;
            let name = Reference::parse(&reference).map_or(reference, |name| name.or_latest().familiar());
            let short = name.rsplit_once(':').map_or(name.as_str(), |(repository, _)| repository).to_owned();
            engine.image_event(&name, "pull", &short, &image.labels);
            Ok(())
        })
    }

    /// Pushes an image to its registry.
    pub fn push_image(&self, request: PushImage) -> ProgressStream {
        let engine = self.clone();
        self.with_progress(move |lines| async move {
            let progress = |event| {
                let _ = lines.try_send(Ok(ImageProgress::Step(event)));
            };
            let PushImage { reference, auth } = request;
            let images = &engine.0.config.images;
            let pushed = images.push(&reference, auth, &progress).await;
            for pushed in pushed.map_err(|error| image_error(&error))? {
                let aux = serde_json::json!({
                    "Tag": pushed.tag, "Digest": pushed.digest.to_string(), "Size": pushed.size,
                });
                let _ = lines.send(Ok(ImageProgress::Result(aux))).await;
            }
            let name = Reference::parse(&reference).map_or(reference, |name| name.familiar());
            let labels = images.get(&name).map(|image| image.labels).unwrap_or_default();
            let short = name.rsplit_once(':').map_or(name.as_str(), |(repository, _)| repository).to_owned();
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

    /// Loads the images of an archive.
    pub fn load_images(&self, archive: Box<dyn AsyncRead + Send + Unpin>, quiet: bool) -> ProgressStream {
        let engine = self.clone();
        self.with_progress(move |lines| async move {
            let progress = |event| {
                if !quiet {
                    let _ = lines.try_send(Ok(ImageProgress::Step(event)));
                }
            };
            let loaded = engine.0.config.images.load(archive, None, &progress).await;
            for loaded in loaded.map_err(|error| image_error(&error))? {
                engine.image_event(&loaded.image.id, "load", &loaded.image.id, &loaded.image.labels);
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

    /// Makes an image of a root file system; returns its id.
    ///
    /// # Errors
    /// When the archive or a change makes no sense.
    pub async fn import_image(
        &self,
        request: ImportImage,
        tar: Box<dyn AsyncRead + Send + Unpin>,
    ) -> Result<String> {
        let ImportImage { reference, message, changes, platform } = request;
        let image = self
            .0
            .config
            .images
            .import(tar, reference.as_deref(), &message, &changes, platform.as_deref())
            .await
            .map_err(|error| image_error(&error))?;
        self.image_event(&image.id, "import", &image.id, &image.labels);
        Ok(image.id)
    }

    /// Reads images as an archive.
    ///
    /// # Errors
    /// When there is none of one of the names or ids.
    pub fn save_images(&self, names: &[String]) -> Result<ByteStream> {
        let save = self.0.config.images.save(names).map_err(|error| image_error(&error))?;
        for id in save.ids() {
            let labels = self.find_image(&id).map(|image| image.labels).unwrap_or_default();
            self.image_event(&id, "save", &id, &labels);
        }
        crate::files::stream(move |out| save.write(out))
    }

    /// Lists images, newest first.
    ///
    /// # Errors
    /// When a filter is not known.
    pub async fn list_images(&self, options: ListImages) -> Result<Vec<ImageSummary>> {
        let filters = &options.filters;
        filters.check(&["before", "dangling", "label", "label!", "reference", "since", "until"])?;
        let dangling = filters.boolean("dangling")?;
        let created = |name: &str| -> Result<Option<u64>> {
            match filters.get(name).and_then(|names| names.first()) {
                Some(name) => self.find_image(name).map(|image| Some(created_ns(&image))),
                None => Ok(None),
            }
        };
        let (before, since, until) = (created("before")?, created("since")?, until(filters)?);
        let users = options.containers.then(|| self.image_users());
        let shared = options.shared_size.then(|| self.0.config.images.shared_sizes());
        let mut images = self.0.config.images.list();
        images.retain(|image| {
            let at = created_ns(image);
            before.is_none_or(|before| at < before)
                && since.is_none_or(|since| at > since)
                && until.is_none_or(|until| at < until)
                && dangling.is_none_or(|wanted| wanted == image.repo_tags.is_empty())
                && filters.labels(Some(&image.labels))
                && filters.not_labels(Some(&image.labels))
                && filters.any("reference", |pattern| {
                    image
                        .repo_tags
                        .iter()
                        .chain(&image.repo_digests)
                        .any(|name| reference_matches(pattern, name))
                })
        });
        images.sort_by_key(|image| std::cmp::Reverse(created_ns(image)));
        Ok(images
            .iter()
            .map(|image| ImageSummary {
                id: image.id.clone(),
                parent_id: image.parent.clone().unwrap_or_default(),
                repo_tags: matching(filters, &image.repo_tags),
                repo_digests: matching(filters, &image.repo_digests),
                created: (created_ns(image) / 1_000_000_000) as i64,
                size: image.size as i64,
                shared_size: shared.as_ref().map_or(-1, |shared| {
                    shared.get(&image.id).map_or(0, |&size| i64::try_from(size).unwrap_or(i64::MAX))
                }),
                labels: image.labels.clone(),
                containers: match &users {
                    Some(users) => users.get(&image.id).map_or(0, |users| users.len() as i64),
                    None => -1,
                },
                ..ImageSummary::default()
            })
            .collect())
    }

    /// Describes an image.
    ///
    /// # Errors
    /// When there is none of that name or id.
    pub async fn inspect_image(&self, name: &str) -> Result<ImageInspect> {
        let image = self.find_image(name)?;
        let lower = self.0.config.images.lower_dirs(&image.id).map_err(|error| image_error(&error))?;
        let mut dirs = lower.iter().map(|dir| dir.display().to_string());
        let top = dirs.next().unwrap_or_default();
        let data = HashMap::from([
            ("UpperDir".to_owned(), top),
            ("LowerDir".to_owned(), dirs.collect::<Vec<_>>().join(":")),
        ]);
        let config: ImageConfig =
            serde_json::from_value(image.raw_config["config"].clone()).unwrap_or_default();
        Ok(ImageInspect {
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
        })
    }

    /// Lists an image's layers and steps, newest first.
    ///
    /// # Errors
    /// When there is none of that name or id.
    pub async fn image_history(&self, name: &str) -> Result<Vec<ImageHistoryResponseItem>> {
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
    pub async fn remove_image(&self, name: &str, force: bool) -> Result<Vec<ImageDeleteResponseItem>> {
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
                .remove(&name, force, &|id| in_use(&users, id))
                .map_err(|error| image_error(&error))?;
            Ok(engine.removed(&id, &labels, removed))
        })
        .await
    }

    /// Removes unused images: those without a name, or with `dangling=false` all.
    ///
    /// # Errors
    /// When a filter is not known.
    pub async fn prune_images(&self, filters: Filters) -> Result<ImagePruneResponse> {
        filters.check(&["dangling", "label", "label!", "until"])?;
        let only_dangling = filters.boolean("dangling")?.unwrap_or(true);
        let until = until(&filters)?;
        let engine = self.clone();
        blocking(move || {
            let images = &engine.0.config.images;
            let users = engine.image_users();
            let before = images.disk_usage();
            let mut deleted = Vec::new();
            for image in images.list() {
                if users.contains_key(&image.id)
                    || only_dangling && !image.repo_tags.is_empty()
                    || until.is_some_and(|until| created_ns(&image) >= until)
                    || !filters.labels(Some(&image.labels))
                    || !filters.not_labels(Some(&image.labels))
                {
                    continue;
                }
                match images.remove(&image.id, true, &|id| in_use(&users, id)) {
                    Ok(removed) => deleted.extend(engine.removed(&image.id, &image.labels, removed)),
                    Err(error) => tracing::debug!(%error, image = image.id, "not pruned"),
                }
            }
            let reclaimed = before.saturating_sub(images.disk_usage());
            let attributes = [("reclaimed".to_owned(), reclaimed.to_string())].into();
            engine.0.events.publish(Kind::Image, "prune", "", attributes);
            Ok(ImagePruneResponse {
                images_deleted: Some(deleted),
                space_reclaimed: i64::try_from(reclaimed).ok(),
            })
        })
        .await
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
    pub(crate) fn image_built(&self, id: &str, tags: &[String]) {
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

/// Whether an image's name fits a pattern with `*` and `?`, with or without its tag (Go's path.Match).
/// The names that a `reference` filter asks for; all without one.
fn matching(filters: &Filters, names: &[String]) -> Vec<String> {
    let asked = |name: &&String| filters.any("reference", |pattern| reference_matches(pattern, name));
    names.iter().filter(asked).cloned().collect()
}

fn reference_matches(pattern: &str, name: &str) -> bool {
    let untagged = match name.split_once('@') {
        Some((repository, _)) => repository,
        None => name
            .rsplit_once(':')
            .filter(|(_, tag)| !tag.contains('/'))
            .map_or(name, |(repository, _)| repository),
    };
    glob(pattern.as_bytes(), name.as_bytes()) || glob(pattern.as_bytes(), untagged.as_bytes())
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            // A star does not cross a slash.
            let reach = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
            (0..=reach).any(|length| glob(rest, &text[length..]))
        }
        (Some((b'?', rest)), Some((byte, text))) if *byte != b'/' => glob(rest, text),
        (Some((wanted, rest)), Some((byte, text))) if wanted == byte => glob(rest, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_patterns_match_with_and_without_the_tag() {
        for (pattern, name) in [
            ("busybox", "busybox:latest"),
            ("busy*", "busybox:latest"),
            ("busybox:l*", "busybox:latest"),
            ("localhost:5000/*", "localhost:5000/app:1"),
            ("*/app", "localhost:5000/app:1"),
            ("b?sybox", "busybox:latest"),
        ] {
            assert!(reference_matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("busy", "busybox:latest"), ("*", "a/b:c"), ("busybox:1", "busybox:latest")] {
            assert!(!reference_matches(pattern, name), "{pattern} {name}");
        }
    }
}
