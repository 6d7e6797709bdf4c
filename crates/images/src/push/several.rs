//! An image for several platforms on its way out: a manifest for each, and the list of them under the tag.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Pushed;
use crate::build::NewBuilt;
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{OCI_INDEX, OCI_MANIFEST};
use crate::platform::Platform;
use crate::progress::{Progress, ProgressEvent};
use crate::reference::Reference;
use crate::registry::{Auth, Purpose};
use crate::store::{Held, Store};

/// How long a client may take that asks for a push again.
const REMEMBERED: Duration = Duration::from_secs(30);

/// One platform's part of an image that is none of the store's.
#[derive(Debug, Clone)]
pub struct BuiltFor {
    /// The platform.
    pub platform: Platform,
    /// The configuration, byte for byte; its `rootfs` names the layers.
    pub config: Vec<u8>,
    /// The layers.
    pub layers: Held,
}

/// Makes the list of the manifests of several platforms; `members` are a manifest's digest, its size and its platform.
pub(crate) fn oci_index(members: &[(Digest, usize, Platform)]) -> Vec<u8> {
    let members: Vec<Value> = members
        .iter()
        .map(|(digest, size, platform)| {
            json!({ "mediaType": OCI_MANIFEST, "digest": digest.as_str(), "size": size, "platform": platform })
        })
        .collect();
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": members }).to_string().into_bytes()
}

impl Store {
    /// Pushes an image for several platforms under a name. The store keeps what a pull of it would bring, if anything.
    ///
    /// `asked_again` says that the client will ask for a push of the name once more and then for the image, as older ones do
    /// after a build: the push is answered with this one, and any platform's image will do.
    ///
    /// # Errors
    /// As [`Store::push`].
    pub async fn push_several(
        &self,
        reference: &str,
        images: Vec<BuiltFor>,
        auth: Option<Auth>,
        asked_again: bool,
        progress: &dyn Progress,
    ) -> Result<Pushed, Error> {
        let reference = Reference::parse(reference)?.or_latest();
        let tag = super::tag_to_push(&reference)?;
        let endpoint = self.inner.client.endpoints(&reference).pop().ok_or(Error::Interrupted)?;
        let repository = self.inner.client.repository(&endpoint, &reference, auth, Purpose::Push).await?;
        let host = Platform::host();
        let suited = images.iter().filter(|image| host.distance(&image.platform).is_some());
        let suited = suited.min_by_key(|image| host.distance(&image.platform));
        let kept = suited.or(images.first().filter(|_| asked_again)).cloned();
        let mut members = Vec::with_capacity(images.len());
        for image in images {
            let manifest =
                self.send_built(&repository, &reference, image.config, &image.layers, progress).await?;
            let (digest, size) = (Digest::of(&manifest), manifest.len());
            repository.put_manifest(digest.as_str(), OCI_MANIFEST, manifest).await?;
            members.push((digest, size, image.platform));
        }
        let index = oci_index(&members);
        let (digest, size) = (Digest::of(&index), index.len() as u64);
        repository.put_manifest(&tag, OCI_INDEX, index).await?;
        progress.event(ProgressEvent::line(format!("{tag}: digest: {digest} size: {size}")));
        if let Some(BuiltFor { config, layers, .. }) = kept {
            let (store, new) = (self.clone(), NewBuilt { config, names: vec![reference.to_string()] });
            let added = tokio::task::spawn_blocking(move || store.add_image(new, &layers)).await;
            let image = added.map_err(|_| Error::Interrupted)??;
            self.record_pushed(&image.id, &reference.at_digest(digest.clone()))?;
        }
        let pushed = Pushed { tag, digest, size };
        if asked_again {
            let mut state = self.inner.state();
            state.lists.retain(|_, (_, since)| since.elapsed() < REMEMBERED);
            state.lists.insert(reference.to_string(), (pushed.clone(), Instant::now()));
        }
        Ok(pushed)
    }

    /// Returns what a build has pushed under a name as a list right before, once. The store's image of that name, if there
    /// is one, is another.
    pub(super) fn pushed_before(&self, reference: &Reference, progress: &dyn Progress) -> Option<Pushed> {
        let (pushed, since) = self.inner.state().lists.remove(&reference.to_string())?;
        let Pushed { tag, digest, size } = &pushed;
        progress.event(ProgressEvent::line(format!("{tag}: digest: {digest} size: {size}")));
        Some(pushed).filter(|_| since.elapsed() < REMEMBERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Document;

    #[test]
    fn a_list_is_read_back_and_says_what_each_manifest_is_for() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        let members =
            [(Digest::of(b"a"), 1, platform("linux/amd64")), (Digest::of(b"b"), 2, platform("linux/arm/v7"))];
        let bytes = oci_index(&members);
        let Ok(Document::List(list)) = Document::parse(&bytes, None) else { panic!("no list") };
        assert_eq!(list.choose(&platform("linux/arm/v7")).unwrap().digest, members[1].0);
        let written: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(written["manifests"][0]["platform"], json!({ "os": "linux", "architecture": "amd64" }));
    }
}
