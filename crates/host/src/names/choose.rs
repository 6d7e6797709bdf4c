//! Which containers a name means.

use crate::containers::{Container, printable};

const BELOW: &str = ".localhost";
/// Longest name of the domain name system (RFC 1035, 2.3.4).
const NAME_LIMIT: usize = 253;
/// Labels by which compose says what a container is.
const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";

/// The part of a `Host` header in front of `.localhost`, in lower case.
pub(super) fn name(host: &str) -> Option<String> {
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host,
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let name = host.strip_suffix(BELOW)?;
    (!name.is_empty() && host.len() <= NAME_LIMIT).then(|| name.to_owned())
}

/// The containers of a name: one by its own name, else all of a service of a project.
pub(super) fn matching<'a>(name: &str, running: &'a [Container]) -> Vec<&'a Container> {
    let own: Vec<&Container> =
        running.iter().filter(|container| container.name.eq_ignore_ascii_case(name)).collect();
    if !own.is_empty() {
        return own;
    }
    let Some((service, project)) = name.split_once('.') else { return Vec::new() };
    let is = |container: &Container, label: &str, wanted: &str| {
        container.labels.get(label).is_some_and(|value| value.eq_ignore_ascii_case(wanted))
    };
    let mut all: Vec<&Container> = running
        .iter()
        .filter(|container| is(container, SERVICE, service) && is(container, PROJECT, project))
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Every name that leads somewhere.
pub(super) fn names(running: &[Container]) -> Vec<String> {
    let of = |container: &Container| {
        let service = container.labels.get(SERVICE).zip(container.labels.get(PROJECT));
        let service = service.map(|(service, project)| format!("{service}.{project}"));
        [Some(container.name.clone()), service].into_iter().flatten().map(|name| printable(&name) + BELOW)
    };
    let mut all: Vec<String> = running.iter().flat_map(of).collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn container(name: &str, service: Option<(&str, &str)>) -> Container {
        let labels = service.map(|(service, project)| {
            [(SERVICE.to_owned(), service.to_owned()), (PROJECT.to_owned(), project.to_owned())].into()
        });
        Container { name: name.into(), labels: labels.unwrap_or_default(), ..Container::default() }
    }

    #[test]
    fn names_are_read_from_host_headers() {
        assert_eq!(name("Web.localhost").as_deref(), Some("web"));
        assert_eq!(name("web.shop.localhost:8080").as_deref(), Some("web.shop"));
        assert_eq!(name("web.localhost.").as_deref(), Some("web"));
        for other in [
            "localhost",
            ".localhost",
            "example.org",
            "web.localhost.example",
            "",
            "127.0.0.1:80",
            "[::1]:80",
        ] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn a_container_of_the_name_comes_before_a_service() {
        let running = [
            container("web.shop", None),
            container("shop-web-2", Some(("web", "shop"))),
            container("shop-web-1", Some(("web", "shop"))),
            container("shop-db-1", Some(("db", "shop"))),
        ];
        let found = |name: &str| matching(name, &running).iter().map(|c| c.name.as_str()).collect::<Vec<_>>();
        assert_eq!(found("web.shop"), ["web.shop"]);
        assert_eq!(found("db.shop"), ["shop-db-1"]);
        assert_eq!(matching("web.shop", &running[1..]).len(), 2, "all replicas");
        assert!(found("web").is_empty() && found("web.other").is_empty());
        assert!(names(&running).contains(&"db.shop.localhost".to_owned()));
    }

    proptest! {
        #[test]
        fn no_host_header_makes_it_panic(host in ".{0,300}") {
            if let Some(name) = name(&host) {
                prop_assert!(!name.is_empty() && name.len() <= NAME_LIMIT);
            }
        }
    }
}
