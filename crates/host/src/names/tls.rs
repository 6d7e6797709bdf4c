//! Certificates for names: signed by an authority that is made for this installation, on demand.
//!
//! Whoever wants browsers to trust them adds the authority's certificate to the system's; nothing does so unasked.

use std::{
    collections::HashMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

use super::choose;

/// Certificates that are remembered.
const MOST_CERTIFICATES: usize = 256;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A file of the authority cannot be used.
    #[error("cannot {op} {}", path.display())]
    File {
        op: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The authority cannot be made or read.
    #[error("the certificate authority of this installation is of no use")]
    Authority(#[from] rcgen::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

/// Makes what turns connections into TLS; the authority is made first where it is missing.
pub(super) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, Error> {
    let authority = Authority::ensure(certificate, key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(authority));
    // Containers that speak HTTP/2 do so in the clear; everybody speaks this.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The authority, and what it has signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    signed: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    fn ensure(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let read = |path: &Path| match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File { op: "read", path: path.to_owned(), source }),
        };
        let issuer = match (read(certificate)?, read(key)?) {
            (Some(certificate), Some(key)) => {
                Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key)?)?
            }
            _ => make(certificate, key)?,
        };
        Ok(Self { issuer, signed: Mutex::default() })
    }

    fn certificate(&self, name: &str) -> Result<Arc<CertifiedKey>, Error> {
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = signed.get(name) {
            return Ok(Arc::clone(known));
        }
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Skiff container");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let certified =
            Arc::new(CertifiedKey::new(vec![certificate.der().clone()], any_ecdsa_type(&private)?));
        if signed.len() >= MOST_CERTIFICATES {
            signed.clear();
        }
        signed.insert(name.to_owned(), Arc::clone(&certified));
        Ok(certified)
    }
}

impl ResolvesServerCert for Authority {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?;
        // Nobody gets a certificate for a name that is not ours.
        choose::name(name)?;
        match self.certificate(name) {
            Ok(certificate) => Some(certificate),
            Err(error) => {
                tracing::warn!(error = crate::control::chain(&error), "no certificate for a name");
                None
            }
        }
    }
}

/// Makes the authority and writes it down; its key is for this user alone.
fn make(certificate: &Path, key: &Path) -> Result<Issuer<'static, KeyPair>, Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Skiff names below localhost");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(rcgen::NameConstraints {
        permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("localhost".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let pair = KeyPair::generate()?;
    let own = params.self_signed(&pair)?;
    write(key, &pair.serialize_pem())?;
    write(certificate, &own.pem())?;
    Ok(Issuer::new(params, pair))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::File { op: "write", path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(failed)?;
    io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_made_once_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("ca.pem"), directory.path().join("ca.key"));
        acceptor(&certificate, &key).unwrap();
        let first = fs::read(&certificate).unwrap();
        acceptor(&certificate, &key).unwrap();
        assert_eq!(fs::read(&certificate).unwrap(), first);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::write(&key, "nonsense").unwrap();
        assert!(matches!(acceptor(&certificate, &key), Err(Error::Authority(_))));
    }
}
