//! TLS settings: built-in certificate authorities, the host's, and a registry's own; none for insecure registries.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier,
};
use tokio_rustls::TlsConnector;

use crate::config::Config;
use crate::error::Error;

/// Certificate authorities that came from elsewhere than a file; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Trust(Arc<Mutex<Authorities>>);

#[derive(Debug, Default)]
struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    /// Counts the changes.
    edition: u64,
}

impl Trust {
    /// Trusts what is in this PEM text, and nothing that was set before; what is no certificate is passed over.
    pub fn set(&self, pem: &[u8]) {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect();
        let mut authorities = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if authorities.certificates != certificates {
            authorities.certificates = certificates;
            authorities.edition += 1;
        }
    }
}

/// Makes TLS connectors: the strict one, the one of a registry that has authorities of its own, and the one that accepts
/// any certificate.
#[derive(Clone)]
pub(crate) struct Tls {
    /// The built-in authorities and those of the files.
    roots: Arc<RootCertStore>,
    trust: Trust,
    /// The strict connector, and of which edition of `trust` it is.
    strict: Arc<Mutex<Option<(u64, TlsConnector)>>>,
    lax: TlsConnector,
    /// Where registries have directories with their authorities and our certificates, as in `/etc/docker/certs.d`.
    directory: Option<PathBuf>,
}

impl Tls {
    pub fn new(config: &Config) -> Result<Tls, Error> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for path in &config.ca_files {
            let Ok(certificates) = CertificateDer::pem_file_iter(path) else { continue };
            let (added, skipped) = roots.add_parsable_certificates(certificates.filter_map(Result::ok));
            tracing::debug!(path = %path.display(), added, skipped, "certificate authorities read");
        }
        let provider = provider();
        let lax = builder(&provider)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        let tls = Tls {
            roots: Arc::new(roots),
            trust: config.trust.clone(),
            strict: Arc::default(),
            lax: TlsConnector::from(Arc::new(lax)),
            directory: config.certs_dir.clone(),
        };
        // What does not work at all should be known at once.
        tls.strict()?;
        Ok(tls)
    }

    /// The connector that accepts any certificate.
    pub fn lax(&self) -> TlsConnector {
        self.lax.clone()
    }

    /// The connector for a registry.
    pub fn for_registry(&self, host: &str, port: u16) -> Result<TlsConnector, Error> {
        let own = self.directory.as_ref().and_then(|directory| {
            // Names come out of references and redirects, which have no slashes; dots alone would lead elsewhere.
            let name = |name: String| (!name.contains(['/', '\0']) && !name.starts_with('.')).then_some(name);
            let candidates = [name(format!("{host}:{port}")), name(host.to_owned())];
            candidates.into_iter().flatten().map(|name| directory.join(name)).find(|path| path.is_dir())
        });
        match own {
            Some(directory) => self.with_directory(&directory),
            None => self.strict(),
        }
    }

    fn strict(&self) -> Result<TlsConnector, Error> {
        let edition = self.trust.0.lock().unwrap_or_else(PoisonError::into_inner).edition;
        let mut strict = self.strict.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, connector)) = &*strict
            && *of == edition
        {
            return Ok(connector.clone());
        }
        let config = builder(&provider())?.with_root_certificates(self.all_roots()).with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        *strict = Some((edition, connector.clone()));
        Ok(connector)
    }

    fn all_roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::clone(&self.roots);
        let authorities = self.trust.0.lock().unwrap_or_else(PoisonError::into_inner);
        roots.add_parsable_certificates(authorities.certificates.iter().cloned());
        roots
    }

    /// Docker's layout: `*.crt` are authorities, `X.cert` and `X.key` what we show.
    fn with_directory(&self, directory: &Path) -> Result<TlsConnector, Error> {
        let broken = |path: &Path, reason: &dyn std::fmt::Display| Error::Invalid {
            message: format!("{}: {reason}", path.display()),
        };
        let mut roots = self.all_roots();
        let mut shown = None;
        let entries = std::fs::read_dir(directory).map_err(|error| broken(directory, &error))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let read = || -> Result<Vec<CertificateDer<'static>>, pem::Error> {
                CertificateDer::pem_file_iter(&path)?.collect()
            };
            match path.extension().and_then(|end| end.to_str()) {
                Some("crt") => {
                    let certificates = read().map_err(|error| broken(&path, &error))?;
                    roots.add_parsable_certificates(certificates);
                }
                Some("cert") => {
                    let key = path.with_extension("key");
                    let certificates = read().map_err(|error| broken(&path, &error))?;
                    let key = PrivateKeyDer::from_pem_file(&key).map_err(|error| broken(&key, &error))?;
                    shown = Some((path, certificates, key));
                }
                _ => {}
            }
        }
        let builder = builder(&provider())?.with_root_certificates(roots);
        let config = match shown {
            Some((path, certificates, key)) => {
                builder.with_client_auth_cert(certificates, key).map_err(|error| broken(&path, &error))?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn builder(provider: &Arc<CryptoProvider>) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Invalid { message: format!("TLS is not usable: {e}") })
}

/// Accepts any certificate, as Docker does for registries that the user calls insecure.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
