//! Lists of manifests that are being put together, where the docker CLI keeps them: `manifests/LIST/MEMBER`, beside its
//! `config.json`. Both programs read and write the same files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use skiff_host::docker_context::config_dir;

use crate::error::Error;

/// A manifest as a member of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Member {
    /// Its full reference.
    #[serde(rename = "Ref")]
    pub reference: String,
    /// What the list will say of it.
    #[serde(rename = "Descriptor")]
    pub descriptor: Descriptor,
    /// Its bytes, in base64.
    #[serde(rename = "Raw", default)]
    pub raw: String,
    /// Itself, when it is Docker's.
    #[serde(rename = "SchemaV2Manifest", default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<Box<RawValue>>,
    /// Itself, when it is OCI's.
    #[serde(rename = "OCIManifest", default, skip_serializing_if = "Option::is_none")]
    pub oci: Option<Box<RawValue>>,
}

/// What names a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Descriptor {
    /// Its type.
    pub media_type: String,
    /// Its bytes.
    pub size: u64,
    /// Its digest.
    pub digest: String,
    /// Whom it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// Whom an image is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// The processor.
    pub architecture: String,
    /// The system.
    pub os: String,
    /// Its version.
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// What it must have.
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Which kind of the processor.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// All lists.
pub struct Lists(PathBuf);

impl Lists {
    /// Finds the place.
    ///
    /// # Errors
    /// Without a home directory.
    pub fn open() -> Result<Self, Error> {
        let directory = config_dir()
            .ok_or_else(|| Error::plain("no home directory to keep lists in: set HOME or DOCKER_CONFIG"))?;
        Ok(Self(directory.join("manifests")))
    }

    /// Reads a list; `None` when there is none.
    ///
    /// # Errors
    /// A file that can't be read, or is no member.
    pub fn list(&self, list: &str) -> Result<Option<Vec<Member>>, Error> {
        let directory = self.directory(list);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &directory, &error)),
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let members = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(members.into_iter().flatten().collect()))
    }

    /// Reads one member of a list; `None` when it is not there.
    ///
    /// # Errors
    /// As [`Lists::list`].
    pub fn member(&self, list: &str, member: &str) -> Result<Option<Member>, Error> {
        read(&self.directory(list).join(file_name(member)))
    }

    /// Puts a member into a list.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn save(&self, list: &str, member: &str, contents: &Member) -> Result<(), Error> {
        let directory = self.directory(list);
        fs::create_dir_all(&directory).map_err(|error| failed("mkdir", &directory, &error))?;
        let path = directory.join(file_name(member));
        let text = serde_json::to_vec(contents).map_err(|error| Error::plain(error.to_string()))?;
        fs::write(&path, text).map_err(|error| failed("write", &path, &error))
    }

    /// Removes a list.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove(&self, list: &str) -> Result<(), Error> {
        let directory = self.directory(list);
        fs::remove_dir_all(&directory).map_err(|error| failed("remove", &directory, &error))
    }

    fn directory(&self, list: &str) -> PathBuf {
        self.0.join(file_name(list))
    }
}

fn read(path: &Path) -> Result<Option<Member>, Error> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::plain(format!("{}: {error}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("open", path, &error)),
    }
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::plain(format!("{what} {}: {error}", path.display()))
}

/// Docker's way to make a file's name of a reference. Parsed references have no dots alone between slashes.
fn file_name(reference: &str) -> String {
    reference.replace(':', "-").replace('/', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_kept_until_their_list_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let lists = Lists(directory.path().join("manifests"));
        let (list, name) = ("docker.io/library/x:latest", "localhost:5000/a/b:1");
        assert!(lists.list(list).unwrap().is_none());
        let text = r#"{"Ref":"localhost:5000/a/b:1","Descriptor":{"mediaType":"m","size":3,"digest":"sha256:1",
            "platform":{"architecture":"arm","os":"linux","variant":"v7"}},"Raw":"e30=","OCIManifest":{"schemaVersion":2}}"#;
        let member: Member = serde_json::from_str(text).unwrap();
        lists.save(list, name, &member).unwrap();
        assert!(directory.path().join("manifests/docker.io_library_x-latest/localhost-5000_a_b-1").is_file());
        let again = lists.member(list, name).unwrap().unwrap();
        assert_eq!(again.descriptor, member.descriptor);
        assert_eq!(lists.list(list).unwrap().unwrap().len(), 1);
        lists.remove(list).unwrap();
        assert!(lists.member(list, name).unwrap().is_none());
    }
}
