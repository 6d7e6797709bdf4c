//! Real clients: skopeo, and Debian's docker-registry on the other side.

use std::path::Path;
use std::process::Command;

use skiff_registry::{Tls, Users};
use skiff_testkit::image::{Compression, Layer};
use skiff_testkit::process::Program;
use skiff_testkit::registry::{PASSWORD, USER};
use skiff_testkit::{Image, Registry};

use super::subject::Subject;

/// Runs skopeo; whatever it says on failure is the test's message.
fn skopeo(arguments: &[&str]) -> anyhow::Result<String> {
    Ok(Program::new("skopeo").args(arguments.iter().copied()).run()?.ok()?.out())
}

fn there() -> bool {
    let found = Command::new("skopeo").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: skopeo is not installed (scripts/setup test)");
    }
    found
}

fn archive(dir: &Path) -> anyhow::Result<String> {
    let image = Image::scratch()
        .with_layer(Layer::new().file("a", 0o644, b"a"), Compression::Gzip)
        .with_layer(Layer::new().noise("b", 3 << 20, 7), Compression::Gzip);
    let path = dir.join("image.tar");
    std::fs::write(&path, image.oci_archive(&["v1"]))?;
    Ok(format!("oci-archive:{}", path.display()))
}

#[test]
fn skopeo_copies_to_and_from_this_registry_and_debians() -> anyhow::Result<()> {
    if !there() {
        return Ok(());
    }
    let on = Subject::start();
    let debian = Registry::start()?;
    let dir = tempfile::tempdir()?;
    let ours = format!("docker://{}/team/app:v1", on.address);
    let theirs = format!("docker://{}/team/app:v1", debian.address());
    let back = format!("docker://{}/team/again:v2", on.address);
    let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    let copy = |from: &str, to: &str| skopeo(&["copy", "--all", plain[0], plain[1], from, to]);
    copy(&archive(dir.path())?, &ours)?;
    copy(&ours, &theirs)?;
    copy(&theirs, &back)?;
    let digest = |place: &str| skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", place]);
    assert_eq!(digest(&ours)?, digest(&back)?);
    assert!(
        skopeo(&["list-tags", "--tls-verify=false", &format!("docker://{}/team/app", on.address)])?
            .contains("\"v1\"")
    );
    let out = dir.path().join("out");
    copy(&back, &format!("oci:{}:v2", out.display()))?;
    skopeo(&["delete", "--tls-verify=false", &back])?;
    assert!(digest(&back).is_err());
    assert!(digest(&ours).is_ok());
    Ok(())
}

#[test]
fn a_protected_registry_wants_a_password_over_tls() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (certificate, key) = (dir.path().join("domain.crt"), dir.path().join("domain.key"));
    Program::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            &key.display().to_string(),
            "-out",
            &certificate.display().to_string(),
        ])
        .run()?
        .ok()?;
    let mut users = Users::default();
    let file = dir.path().join("htpasswd");
    // Made with `htpasswd -B`.
    std::fs::write(&file, "ann:$2y$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n")?;
    users.read(&file)?;
    let on = Subject::start_with(users, Some(Tls { certificate: certificate.clone(), key }), false);
    let url = format!("https://{}/v2/", on.address);
    let curl = |more: &[&str]| -> anyhow::Result<String> {
        let certificate = certificate.display().to_string();
        let arguments: Vec<&str> = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", &certificate]
            .into_iter()
            .chain(more.iter().copied())
            .chain([url.as_str()])
            .collect();
        Ok(Program::new("curl").args(arguments).run()?.ok()?.out())
    };
    assert_eq!(curl(&[])?, "401");
    assert_eq!(curl(&["-u", &format!("{USER}:wrong")])?, "401");
    assert_eq!(curl(&["-u", &format!("{USER}:{PASSWORD}")])?, "200");
    if there() {
        let certificates = dir.path().display().to_string();
        std::fs::copy(&certificate, dir.path().join("ca.crt"))?;
        std::fs::remove_file(dir.path().join("domain.key"))?;
        let place = format!("docker://{}/x:1", on.address);
        let login = format!("{USER}:{PASSWORD}");
        skopeo(&[
            "copy",
            "--dest-cert-dir",
            &certificates,
            "--dest-creds",
            &login,
            &archive(dir.path())?,
            &place,
        ])?;
        assert!(skopeo(&["inspect", "--cert-dir", &certificates, &place]).is_err());
        skopeo(&["inspect", "--cert-dir", &certificates, "--creds", &login, &place])?;
    }
    Ok(())
}
