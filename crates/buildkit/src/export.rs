//! Exporters: what becomes of a build's result, and what the client is told about it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use skiff_build::export::{self, Archive, ExportedImage, ExportedList, ImageOptions};
use skiff_build::{BuildResult, Error, Job, Progress, Ref, Refs, Result};

use crate::fsutil::Shape;
use crate::session::Session;
use crate::shown::Shown;

/// What images are pushed as.
const PUSHED: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// What images for several platforms are pushed as.
const PUSHED_LIST: &str = "application/vnd.oci.image.index.v1+json";
/// How often the progress of a transfer is told.
const TELL: Duration = Duration::from_millis(100);

/// What an exporter has made.
#[derive(Debug, Default)]
pub(crate) struct Exported {
    /// What the client is told.
    pub told: HashMap<String, String>,
    /// The image's configuration, when it is an image.
    pub configuration: Option<Vec<u8>>,
    /// The id and the names of an image that is in the store now.
    pub stored: Option<(String, Vec<String>)>,
}

/// One exporter of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exporter {
    kind: Kind,
    image: ImageOptions,
    /// Whether the image is pushed, too.
    push: bool,
    /// Whether it was asked for as dockerd's own: by clients that push, or push once more, by the Docker API.
    is_moby: bool,
    /// Whether files are sent in a directory for each platform; without it, when there may be several.
    split: Option<bool>,
    /// Its place in the client's list, which its files are sent under.
    index: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An image of the store.
    Image,
    /// A directory at the client.
    Local,
    /// A tar of the files, at the client.
    Tar,
    /// An image archive, at the client.
    Archive(Archive),
}

impl Exporter {
    /// Reads an exporter of a request; `None` for the one that exports nothing.
    ///
    /// # Errors
    /// For an unknown kind, in BuildKit's words; for attributes that can't be done.
    pub fn read(kind: &str, attributes: &HashMap<String, String>, index: usize) -> Result<Option<Self>> {
        let is_moby = kind == "moby";
        let kind = match kind {
            "" | "cacheonly" => return Ok(None),
            "moby" | "image" => Kind::Image,
            "local" => Kind::Local,
            "tar" => Kind::Tar,
            "oci" => Kind::Archive(Archive::Oci),
            "docker" => Kind::Archive(Archive::Docker),
            other => return Err(Error::not_found(format!("exporter \"{other}\" could not be found"))),
        };
        let flag = |name: &str| -> Result<bool> {
            match attributes.get(name).map(String::as_str) {
                None | Some("") => Ok(false),
                Some(text) => go_bool(text)
                    .ok_or_else(|| Error::invalid(format!("non-bool value specified for {name}: {text}"))),
            }
        };
        if kind == Kind::Image && flag("push-by-digest")? {
            return Err(Error::invalid("push-by-digest is not supported: push the image by its name"));
        }
        let names = attributes.get("name").map_or("", String::as_str);
        let epoch = attributes.get("source-date-epoch").filter(|text| !text.is_empty());
        let source_date_epoch = epoch
            .map(|text| text.parse::<i64>())
            .transpose()
            .map_err(|_| Error::invalid("invalid SOURCE_DATE_EPOCH"))?;
        let image = ImageOptions {
            names: names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            source_date_epoch,
            rewrite_times: flag("rewrite-timestamp")?,
            ..ImageOptions::default()
        };
        let push = kind == Kind::Image && flag("push")?;
        if push && image.names.is_empty() {
            return Err(Error::invalid("tag is needed when pushing to registry"));
        }
        let given = attributes.get("platform-split").is_some_and(|text| !text.is_empty());
        let split = if given { Some(flag("platform-split")?) } else { None };
        Ok(Some(Self { kind, image, push, is_moby, split, index }))
    }

    /// Lets the image tell later builds about the cache.
    pub fn with_inline_cache(mut self) -> Self {
        self.image.inline_cache = true;
        self
    }

    /// Whether it needs the client to take files.
    pub fn wants_session(&self) -> bool {
        self.kind != Kind::Image
    }

    /// Exports a result.
    ///
    /// # Errors
    /// Those of making the result; a client that does not take it.
    pub async fn run(
        self,
        job: &Job,
        progress: Arc<dyn Progress>,
        session: Option<Arc<Session>>,
        result: &BuildResult,
    ) -> Result<Exported> {
        let session =
            || session.clone().ok_or_else(|| Error::invalid("this exporter needs a session of the client"));
        match self.kind {
            Kind::Image if self.push && result.is_for_several() => {
                let list = export::push_several(job, result, self.image, self.is_moby).await?;
                Ok(about_list(&list))
            }
            Kind::Archive(Archive::Oci) if result.is_for_several() => {
                let (writer, mut end) = session()?.open_file(self.index);
                let list = match export::archive_several(job, result, self.image, writer).await {
                    Ok(list) => list,
                    Err(error) => return Err(end.reason().await.unwrap_or(error)),
                };
                end.finish().await?;
                Ok(about_list(&list))
            }
            Kind::Image => {
                let names = self.image.names.clone();
                let image = export::image(job, result, self.image).await?;
                let stored = Some((image.id.clone(), image.names.clone()));
                let pushed_names = if self.push { image.names.clone() } else { Vec::new() };
                let mut exported = Exported { stored, ..about(image, &names) };
                for name in pushed_names {
                    let (digest, size) = export::push(job, &name).await?;
                    let descriptor = json!({ "mediaType": PUSHED, "digest": digest, "size": size });
                    let descriptor = STANDARD.encode(descriptor.to_string());
                    exported.told.insert("containerimage.descriptor".to_owned(), descriptor);
                    exported.told.insert("containerimage.digest".to_owned(), digest);
                }
                Ok(exported)
            }
            Kind::Archive(form) => {
                let (session, names) = (session()?, self.image.names.clone());
                let (writer, mut end) = session.open_file(self.index);
                let image = match export::archive(job, result, self.image, form, writer).await {
                    Ok(image) => image,
                    Err(error) => return Err(end.reason().await.unwrap_or(error)),
                };
                end.finish().await?;
                Ok(about(image, &names))
            }
            Kind::Tar => {
                let (session, trees) = (session()?, trees(result, self.split)?);
                for (_, reference) in &trees {
                    reference.evaluate().await?;
                }
                if trees.is_empty() {
                    return Ok(Exported::default());
                }
                let epoch = self.image.source_date_epoch;
                Shown::during(progress, "exporting to client tarball", async |shown: Shown| {
                    let (writer, mut end) = session.open_file(self.index);
                    let sent = Arc::new(AtomicU64::new(0));
                    let writer = Counted {
                        inner: writer,
                        sent: sent.clone(),
                        told: Instant::now(),
                        shown: shown.clone(),
                    };
                    if let Err(error) = export::tar(trees, epoch, writer).await {
                        return Err(end.reason().await.unwrap_or(error));
                    }
                    end.finish().await?;
                    shown.bytes("sending tarball", sent.load(Ordering::Relaxed), true);
                    Ok(Exported::default())
                })
                .await
            }
            Kind::Local => {
                let (session, trees) = (session()?, trees(result, self.split)?);
                for (directory, reference) in trees {
                    let shape = Shape {
                        directory: Some(directory).filter(|directory| !directory.is_empty()),
                        epoch: self.image.source_date_epoch,
                    };
                    send(&session, progress.clone(), &reference, self.index, shape).await?;
                }
                Ok(Exported::default())
            }
        }
    }
}

/// Sends the files of a reference to a directory of the client.
async fn send(
    session: &Arc<Session>,
    progress: Arc<dyn Progress>,
    reference: &Ref,
    index: usize,
    shape: Shape,
) -> Result<()> {
    let mounted = reference.mount().await?;
    let root = mounted.root().try_clone_to_owned().map_err(|error| Error::failed(error.to_string()))?;
    Shown::during(progress, "exporting to client directory", async |shown: Shown| {
        let sent = Arc::new(AtomicU64::new(0));
        let (told, counted, teller) = (std::sync::Mutex::new(Instant::now()), sent.clone(), shown.clone());
        let on_sent = Arc::new(move |bytes| {
            counted.store(bytes, Ordering::Relaxed);
            let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if told.elapsed() >= TELL {
                *told = Instant::now();
                teller.bytes("copying files", bytes, false);
            }
        });
        session.send_files(root, shape, index, on_sent).await?;
        shown.bytes("copying files", sent.load(Ordering::Relaxed), true);
        Ok(())
    })
    .await
}

/// What clients are told about an image. Its digest is its id: images of this store are known by their configuration,
/// as dockerd's are.
fn about(image: ExportedImage, names: &[String]) -> Exported {
    let mut told = HashMap::from([
        ("containerimage.config.digest".to_owned(), image.id.clone()),
        ("containerimage.digest".to_owned(), image.id.clone()),
    ]);
    let names = if image.names.is_empty() { names } else { &image.names };
    if !names.is_empty() {
        told.insert("image.name".to_owned(), names.join(","));
    }
    Exported { told, configuration: Some(image.config), stored: None }
}

/// What clients are told about an image for several platforms.
fn about_list(list: &ExportedList) -> Exported {
    let mut told = HashMap::new();
    if let Some(digest) = &list.digest {
        let descriptor = json!({ "mediaType": PUSHED_LIST, "digest": digest, "size": list.size });
        let descriptor = STANDARD.encode(descriptor.to_string());
        told.insert("containerimage.descriptor".to_owned(), descriptor);
        told.insert("containerimage.digest".to_owned(), digest.clone());
    }
    if !list.names.is_empty() {
        told.insert("image.name".to_owned(), list.names.join(","));
    }
    Exported { told, configuration: None, stored: None }
}

/// The file systems of a result, each with the directory that it is sent in; an empty one is none.
fn trees(result: &BuildResult, split: Option<bool>) -> Result<Vec<(String, Ref)>> {
    let directory = |id: &str| if split == Some(false) { String::new() } else { id.replace('/', "_") };
    match &result.refs {
        Refs::None => Ok(Vec::new()),
        Refs::Single(reference) => Ok(vec![(String::new(), reference.clone())]),
        Refs::Map(map) if map.len() > 1 && split == Some(false) => Err(Error::invalid(
            "the files of several platforms need a directory for each: platform-split=true",
        )),
        Refs::Map(_) => {
            Ok(result.by_platform().into_iter().map(|(id, reference)| (directory(&id), reference)).collect())
        }
    }
}

/// Go's `strconv.ParseBool`.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Counts what is written, and tells.
struct Counted<W> {
    inner: W,
    sent: Arc<AtomicU64>,
    told: Instant,
    shown: Shown,
}

impl<W: std::io::Write> std::io::Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        let sent = self.sent.fetch_add(written as u64, Ordering::Relaxed) + written as u64;
        if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            self.shown.bytes("sending tarball", sent, false);
        }
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, attributes: &[(&str, &str)]) -> Result<Option<Exporter>> {
        let attributes =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Exporter::read(kind, &attributes, 0)
    }

    #[test]
    fn exporters_are_read_or_refused_in_buildkits_words() {
        assert_eq!(read("", &[]).unwrap(), None);
        let image = read("moby", &[("name", "a:1,b:2"), ("unpack", "true")]).unwrap().unwrap();
        assert_eq!(image.image.names, ["a:1", "b:2"]);
        assert!(!image.wants_session());
        assert!(read("local", &[("dest", "out")]).unwrap().unwrap().wants_session());
        assert_eq!(read("sky", &[]).unwrap_err().to_string(), "exporter \"sky\" could not be found");
        assert!(read("image", &[("push", "true"), ("name", "a")]).unwrap().unwrap().push);
        assert!(read("image", &[("push", "true")]).is_err(), "there is no name to push it under");
        assert!(read("image", &[("push-by-digest", "true")]).is_err());
        assert_eq!(
            read("image", &[("push-by-digest", "maybe")]).unwrap_err().to_string(),
            "non-bool value specified for push-by-digest: maybe"
        );
        assert!(read("oci", &[("source-date-epoch", "x")]).is_err());
    }
}
