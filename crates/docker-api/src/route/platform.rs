//! The `platform` of requests about images: an object as text, for those that have one image per platform.

use serde::Deserialize;

use crate::backend::Backend;
use crate::error::{ApiError, Result};
use crate::query::Query;

/// A platform in OCI's words. Whatever else stands there counts nothing, as with dockerd.
#[derive(Debug, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

impl Platform {
    fn parse(text: &str) -> Result<Self> {
        let wrong = || ApiError::bad_request(format!("failed to parse platform: {text}"));
        let platform: Self = serde_json::from_str(text).map_err(|_| wrong())?;
        if platform.os.is_empty() || platform.architecture.is_empty() {
            return Err(wrong());
        }
        Ok(platform)
    }

    /// Whether an image is for it; a variant counts where both have one.
    fn fits(&self, os: &str, architecture: &str, variant: &str) -> bool {
        let variants = self.variant.is_empty() || variant.is_empty() || self.variant == variant;
        self.os == os && self.architecture == architecture && variants
    }

    fn text(&self) -> String {
        let parts = [self.os.as_str(), &self.architecture, &self.variant];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }
}

/// Makes sure that an image is for the platform that the request names, if it names one. This engine keeps one platform
/// of an image, so it is that one or none.
///
/// # Errors
/// 400 for what is no platform, 404 for an image of another one.
pub(super) async fn check(backend: &dyn Backend, query: &Query, parameter: &str, image: &str) -> Result<()> {
    for text in query.all(parameter).filter(|text| !text.is_empty()) {
        let wanted = Platform::parse(text)?;
        let found = backend.inspect_image(image).await?;
        let [os, architecture, variant] =
            [&found.os, &found.architecture, &found.variant].map(|field| field.as_deref().unwrap_or(""));
        if !wanted.fits(os, architecture, variant) {
            return Err(ApiError::not_found(format!(
                "image with reference {image} was found but does not provide the specified platform ({})",
                wanted.text()
            )));
        }
    }
    Ok(())
}

/// The same for what is no image yet.
///
/// # Errors
/// 400 for what is no platform.
pub(super) fn check_text(query: &Query) -> Result<()> {
    query.filled("platform").map(Platform::parse).transpose().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_fits_its_platform_whatever_variant_is_left_open() {
        let arm = Platform::parse(r#"{"architecture":"arm64","os":"linux","variant":"v8"}"#).unwrap();
        assert!(arm.fits("linux", "arm64", "v8") && arm.fits("linux", "arm64", ""));
        assert!(!arm.fits("linux", "arm64", "v7") && !arm.fits("linux", "amd64", ""));
        assert_eq!(arm.text(), "linux/arm64/v8");
        for wrong in ["", "linux/amd64", "{}", r#"{"os":"linux"}"#, "[]"] {
            assert!(Platform::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
