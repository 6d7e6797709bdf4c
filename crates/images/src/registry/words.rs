//! Why a connection failed, in the words that Go's standard library has for it and Docker's users know.

use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage};

/// Finds the words for an error by what is at the bottom of it.
pub(super) fn of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    loop {
        if let Some(tls) = last.downcast_ref::<rustls::Error>() {
            return of_tls(tls);
        }
        if let Some(hyper) = last.downcast_ref::<hyper::Error>()
            && hyper.is_incomplete_message()
        {
            return "EOF".to_owned();
        }
        if let Some(io) = last.downcast_ref::<io::Error>() {
            return of_io(io);
        }
        match last.source() {
            Some(source) => last = source,
            None => return last.to_string(),
        }
    }
}

/// The same for an error of a stream, which may carry one of TLS.
pub(super) fn of_io(error: &io::Error) -> String {
    if let Some(inner) = error.get_ref() {
        return match inner.downcast_ref::<rustls::Error>() {
            Some(tls) => of_tls(tls),
            None if error.kind() == io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
            None => inner.to_string(),
        };
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
        io::ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
        io::ErrorKind::BrokenPipe => "write: broken pipe".to_owned(),
        _ => error.to_string(),
    }
}

fn of_tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(reason) => {
            format!("tls: failed to verify certificate: x509: {}", of_certificate(reason))
        }
        // The first bytes were no record of TLS: that is how plain HTTP looks.
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "http: server gave HTTP response to HTTPS client".to_owned()
        }
        rustls::Error::AlertReceived(alert) => format!("remote error: tls: {}", of_alert(*alert)),
        other => format!("tls: {other}"),
    }
}

fn of_certificate(reason: &CertificateError) -> String {
    let time = |time: &rustls::pki_types::UnixTime| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
    };
    match reason {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
        CertificateError::ExpiredContext { time: now, not_after } => format!(
            "certificate has expired or is not yet valid: current time {} is after {}",
            time(now),
            time(not_after)
        ),
        CertificateError::NotValidYetContext { time: now, not_before } => format!(
            "certificate has expired or is not yet valid: current time {} is before {}",
            time(now),
            time(not_before)
        ),
        CertificateError::Expired | CertificateError::NotValidYet => {
            "certificate has expired or is not yet valid".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            // `DnsName("registry.test")`
            let bare = |name: &String| match name.split_once('"').zip(name.rsplit_once('"')) {
                Some(((_, after), (before, _))) if before.len() + after.len() > name.len() => {
                    name[name.len() - after.len()..before.len()].to_owned()
                }
                _ => name.clone(),
            };
            let names: Vec<String> = presented.iter().map(bare).collect();
            match names.is_empty() {
                true => format!(
                    "certificate is not valid for any names, but wanted to match {}",
                    expected.to_str()
                ),
                false => format!("certificate is valid for {}, not {}", names.join(", "), expected.to_str()),
            }
        }
        other => other.to_string(),
    }
}

fn of_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::BadCertificate => "bad certificate".to_owned(),
        AlertDescription::CertificateRequired => "certificate required".to_owned(),
        AlertDescription::UnknownCA => "unknown certificate authority".to_owned(),
        AlertDescription::HandshakeFailure => "handshake failure".to_owned(),
        AlertDescription::ProtocolVersion => "protocol version not supported".to_owned(),
        AlertDescription::UnrecognisedName => "unrecognized name".to_owned(),
        AlertDescription::InternalError => "internal error".to_owned(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    #[test]
    fn errors_read_like_those_of_go() {
        let certificate = |reason| of(&io::Error::other(rustls::Error::InvalidCertificate(reason)));
        assert_eq!(
            certificate(CertificateError::UnknownIssuer),
            "tls: failed to verify certificate: x509: certificate signed by unknown authority"
        );
        let expected = ServerName::try_from("other.test").unwrap();
        let presented = vec!["DnsName(\"registry.test\")".to_owned()];
        assert_eq!(
            certificate(CertificateError::NotValidForNameContext { expected, presented }),
            "tls: failed to verify certificate: x509: certificate is valid for registry.test, not other.test"
        );
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        assert_eq!(
            certificate(CertificateError::ExpiredContext { time: at(120), not_after: at(60) }),
            "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: \
             current time 1970-01-01T00:02:00Z is after 1970-01-01T00:01:00Z"
        );
        let plain = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert_eq!(of(&plain), "http: server gave HTTP response to HTTPS client");
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        assert_eq!(of(&io::Error::other(alert)), "remote error: tls: certificate required");
        assert_eq!(of(&io::Error::from(io::ErrorKind::ConnectionReset)), "read: connection reset by peer");
    }
}
