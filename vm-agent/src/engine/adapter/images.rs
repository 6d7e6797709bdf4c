//! Images.

use async_trait::async_trait;
use base64::Engine as _;
use futures_util::StreamExt;
use skiff_docker_api::backend::{
    Auth, BodyReader, ByteStream, ImageDetails, Images, ImportImage, ListImages, Progress, ProgressDetail,
    ProgressStream, PullImage, PushImage, PushList, PushedList, RemoteManifest, RemoveImage, SearchImages,
    SearchResult,
};
use skiff_docker_api::models::{
    ImageDeleteResponseItem, ImageHistoryResponseItem, ImagePruneResponse, ImageSummary,
};
use skiff_docker_api::{Filters, Result};
use skiff_engine::ImageProgress;
use skiff_images::{Parents, Secret};

use super::Adapter;
use super::convert::{self, OrApiError};

#[async_trait]
impl Images for Adapter {
    async fn pull_image(&self, request: PullImage) -> Result<ProgressStream> {
        let request = skiff_engine::PullImage {
            reference: request.reference,
            all_tags: request.all_tags,
            platform: request.platform,
            auth: request.auth.and_then(credentials),
        };
        Ok(progress(self.0.pull_image(request)))
    }

    async fn push_image(&self, request: PushImage) -> Result<ProgressStream> {
        let auth = request.auth.and_then(credentials);
        let PushImage { reference, platform, .. } = request;
        Ok(progress(self.0.push_image(skiff_engine::PushImage { reference, platform, auth })))
    }

    async fn check_credentials(&self, auth: Auth) -> Result<String> {
        let server = auth.serveraddress.clone();
        self.0.check_credentials(&server, credentials(auth).unwrap_or_default()).await.or_api()
    }

    async fn describe_remote_image(&self, name: &str, auth: Option<Auth>) -> Result<serde_json::Value> {
        self.0.describe_remote(name, auth.and_then(credentials)).await.or_api()
    }

    async fn remote_manifest(&self, name: &str, auth: Option<Auth>) -> Result<RemoteManifest> {
        let found = self.0.remote_manifest(name, auth.and_then(credentials)).await.or_api()?;
        Ok(RemoteManifest { description: found.description(), bytes: found.bytes, is_list: found.is_list })
    }

    async fn push_manifest_list(&self, list: PushList) -> Result<PushedList> {
        let PushList { name, list, members, auth } = list;
        let auth = auth.and_then(credentials);
        let (digest, members) = self.0.push_manifest_list(&name, list, &members, auth).await.or_api()?;
        let members = members.into_iter().map(|member| (member.reference, member.digest.to_string()));
        Ok(PushedList { digest, members: members.collect() })
    }

    async fn search_images(&self, request: SearchImages) -> Result<Vec<SearchResult>> {
        let search = skiff_images::Search {
            term: request.term,
            limit: request.limit,
            auth: request.auth.and_then(credentials),
        };
        let found = self.0.search_images(search, convert::filters(&request.filters)).await.or_api()?;
        let result = |found: skiff_images::SearchResult| SearchResult {
            star_count: found.star_count,
            is_official: found.is_official,
            name: found.name,
            is_automated: found.is_automated,
            description: found.description,
        };
        Ok(found.into_iter().map(result).collect())
    }

    async fn import_image(&self, request: ImportImage, tar: BodyReader) -> Result<ProgressStream> {
        let request = skiff_engine::ImportImage {
            url: request.url,
            reference: request.reference,
            message: request.message,
            changes: request.changes,
            platform: request.platform,
        };
        Ok(progress(self.0.import_image(request, tar)))
    }

    async fn load_images(
        &self,
        archive: BodyReader,
        quiet: bool,
        platform: Option<String>,
    ) -> Result<ProgressStream> {
        Ok(progress(self.0.load_images(archive, quiet, platform)))
    }

    async fn save_images(&self, names: Vec<String>, platform: Option<String>) -> Result<ByteStream> {
        self.0.save_images(&names, platform.as_deref()).or_api()
    }

    async fn list_images(&self, options: ListImages) -> Result<Vec<ImageSummary>> {
        let options = skiff_engine::ListImages {
            all: options.all,
            shared_size: options.shared_size,
            containers: false,
            filters: convert::filters(&options.filters),
        };
        self.0.list_images(options).await.or_api()
    }

    async fn inspect_image(&self, name: &str, platform: Option<&str>) -> Result<ImageDetails> {
        let details = self.0.inspect_image(name, platform).await.or_api()?;
        Ok(ImageDetails {
            model: details.model,
            parent: details.parent,
            docker_version: details.docker_version,
        })
    }

    async fn image_history(
        &self,
        name: &str,
        platform: Option<&str>,
    ) -> Result<Vec<ImageHistoryResponseItem>> {
        self.0.image_history(name, platform).await.or_api()
    }

    async fn tag_image(&self, name: &str, repository: &str, tag: &str) -> Result<()> {
        self.0.tag_image(name, repository, tag).await.or_api()
    }

    async fn remove_image(&self, name: &str, options: RemoveImage) -> Result<Vec<ImageDeleteResponseItem>> {
        let parents = if options.no_prune { Parents::Keep } else { Parents::Prune };
        let platform = options.platform.as_deref();
        self.0.remove_image(name, options.force, parents, platform).await.or_api()
    }

    async fn prune_images(&self, filters: Filters) -> Result<ImagePruneResponse> {
        self.0.prune_images(convert::filters(&filters)).await.or_api()
    }
}

/// The engine's form of the credentials; `auth` is an older form of name and password.
pub(super) fn credentials(auth: Auth) -> Option<skiff_images::Auth> {
    let (mut username, mut password) = (auth.username, auth.password);
    if username.is_empty()
        && let Ok(decoded) = base64::engine::general_purpose::STANDARD.decode(auth.auth)
        && let Ok(text) = String::from_utf8(decoded)
        && let Some((name, secret)) = text.split_once(':')
    {
        (username, password) = (name.to_owned(), secret.to_owned());
    }
    let own = skiff_images::Auth {
        username,
        password: Secret::new(password),
        identity_token: Secret::new(auth.identitytoken),
        registry_token: Secret::new(auth.registrytoken),
        delegate: None,
    };
    (own != skiff_images::Auth::default()).then_some(own)
}

fn progress(stream: skiff_engine::ProgressStream) -> ProgressStream {
    Box::pin(stream.map(|line| {
        Ok(match line.or_api()? {
            ImageProgress::Text(text) => Progress::stream(text),
            ImageProgress::Result(result) => {
                Progress { detail: Some(ProgressDetail::default()), aux: Some(result), ..Progress::default() }
            }
            ImageProgress::Step(step) => Progress {
                status: Some(step.status),
                id: step.id,
                detail: step
                    .progress_detail
                    .map(|detail| ProgressDetail { current: detail.current, total: detail.total }),
                ..Progress::default()
            },
        })
    }))
}
