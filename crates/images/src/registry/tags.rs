//! The tags of a repository (OCI distribution specification, "Listing Tags").

use http::header::LINK;
use http::{StatusCode, Uri};
use serde::Deserialize;

use super::uri::{resolve, same_origin};
use super::{Failure, Repository, request_error};
use crate::error::Error;
use crate::manifest::MANIFEST_LIMIT;

/// More tags than any repository that is pulled whole.
const MAX_TAGS: usize = 100_000;
const MAX_PAGES: usize = 1000;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Repository {
    /// Lists the repository's tags in the registry's order, however many answers that takes.
    pub async fn tags(&self) -> Result<Vec<String>, Error> {
        let mut url = format!("{}/v2/{}/tags/list", self.base, self.reference.path());
        let mut tags = Vec::new();
        for _ in 0..MAX_PAGES {
            let (page, next) = self.page_of_tags(&url).await.map_err(Failure::into_error)?;
            tags.extend(page);
            if tags.len() > MAX_TAGS {
                break;
            }
            match next {
                Some(next) => url = next,
                None => return Ok(tags),
            }
        }
        Err(request_error("Get", &url, "the repository has too many tags".to_owned()))
    }

    async fn page_of_tags(&self, url: &str) -> Result<(Vec<String>, Option<String>), Failure> {
        let response = self.get(url, None, None).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response).await);
        }
        let link = response.headers().get(LINK).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bytes = self.client.collect(response, MANIFEST_LIMIT, url).await?;
        let page: Page = crate::manifest::parse_json("list of tags", &bytes).map_err(Failure::Final)?;
        let here: Option<Uri> = url.parse().ok();
        // A next page elsewhere would be asked for with this registry's credentials: there is none.
        let next = link.as_deref().and_then(next_of).zip(here).and_then(|(target, here)| {
            let next = resolve(&here, target)?;
            same_origin(&next, &here).then(|| next.to_string())
        });
        Ok((page.tags.unwrap_or_default(), next))
    }
}

/// Finds the target of `<target>; rel="next"`.
fn next_of(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    parameters.split(';').any(|part| matches!(part.trim(), "rel=\"next\"" | "rel=next")).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_the_one_that_is_said_to_be_next() {
        assert_eq!(next_of("</v2/a/tags/list?last=b&n=1>; rel=\"next\""), Some("/v2/a/tags/list?last=b&n=1"));
        assert_eq!(next_of("</x>; rel=\"prev\""), None);
        assert_eq!(next_of("nonsense"), None);
    }
}
