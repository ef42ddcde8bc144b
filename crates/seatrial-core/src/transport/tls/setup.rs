//! Settings of TLS: whom to trust, what to ask for.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::CoreError;
use crate::transport::options::{OptionReader, Options};

/// Begin of the names of options that are not the protocol's but those of TLS.
pub const PREFIX: &str = "tls_";

/// Sessions that are kept for resumption; all of one server need but a few.
const SESSIONS_MAX: usize = 256;

/// What all TLS connections of a load share.
#[derive(Clone, Debug)]
pub struct TlsSetup {
    pub(super) config: Arc<ClientConfig>,
    /// The name that the certificates have to be for; the address of the target if not given.
    pub(super) server_name: Option<ServerName<'static>>,
}

impl TlsSetup {
    /// Reads the options that begin with `tls_`; others are not looked at. `alpn` is what the
    /// protocol inside asks for if nothing else is named.
    ///
    /// # Errors
    /// [`CoreError::InvalidOption`] for other names, values that do not fit, and files without certificates.
    pub fn read(options: &Options, alpn: &[&str]) -> Result<Self, CoreError> {
        let own = options.iter().filter(|(name, _)| name.starts_with(PREFIX));
        let own: Options = own
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let mut reader = OptionReader::new("tls", &own);
        let is_insecure = reader.flag("tls_insecure", false)?;
        let is_resuming = reader.flag("tls_resumption", true)?;
        let server_name = reader.parsed(
            "tls_server_name",
            None,
            "a host name or an address",
            |text| ServerName::try_from(text.to_owned()).ok().map(Some),
        )?;
        let default: Vec<Vec<u8>> = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let alpn = reader.parsed(
            "tls_alpn",
            default,
            "names such as h2,http/1.1, or none",
            read_alpn,
        )?;
        let ca = reader.text("tls_ca");
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| reader.invalid_text("tls_ca", error.to_string()))?;
        let mut config = if is_insecure {
            if ca.is_some() {
                return Err(reader.invalid_text(
                    "tls_ca",
                    "none with tls_insecure=true, which trusts anybody".to_owned(),
                ));
            }
            let verifier = Arc::new(Anybody(provider));
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth()
        } else {
            let roots = match ca {
                Some(path) => roots_of_file(path),
                None => system_roots(),
            };
            let roots = roots.map_err(|reason| reader.invalid_text("tls_ca", reason))?;
            builder.with_root_certificates(roots).with_no_client_auth()
        };
        reader.finish()?;
        config.alpn_protocols = alpn;
        config.resumption = if is_resuming {
            Resumption::in_memory_sessions(SESSIONS_MAX)
        } else {
            Resumption::disabled()
        };
        Ok(Self {
            config: Arc::new(config),
            server_name,
        })
    }

    /// The name that the certificate of a server at this address has to be for.
    pub(super) fn name_of(&self, address: IpAddr) -> ServerName<'static> {
        self.server_name
            .clone()
            .unwrap_or_else(|| ServerName::from(address))
    }
}

fn read_alpn(text: &str) -> Option<Vec<Vec<u8>>> {
    if text == "none" {
        return Some(Vec::new());
    }
    let name = |part: &str| {
        let is_name =
            (1..=255).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_graphic());
        is_name.then(|| part.as_bytes().to_vec())
    };
    text.split(',').map(name).collect()
}

/// The certificates of a PEM file.
fn roots_of_file(path: &str) -> Result<RootCertStore, String> {
    let unreadable = |error| format!("a readable PEM file of CA certificates ({error})");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        let added = roots.add(certificate.map_err(unreadable)?);
        added.map_err(|error| format!("a PEM file of CA certificates ({error})"))?;
    }
    if roots.is_empty() {
        return Err("a PEM file with at least one CERTIFICATE block".to_owned());
    }
    Ok(roots)
}

/// What this machine trusts.
fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added_count, _) = roots.add_parsable_certificates(found.certs);
    if added_count > 0 {
        return Ok(roots);
    }
    let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
    let errors = errors.join("; ");
    Err(format!(
        "a PEM file, because this machine has no list of authorities (package ca-certificates) {errors}"
    ))
}

/// Trusts whoever answers; signatures of the handshake are checked all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
