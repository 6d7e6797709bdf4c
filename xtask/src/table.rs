//! Who may import whom.
//!
//! ARCHITECTURE.md shows the same table to people; change both together, with the reason in the commit.

/// The packages of this workspace that each package may import.
const TABLE: &[(&str, &[&str])] = &[
    // Leaves. Host and guest share `link`, and what both ends of something need: `listeners` for published ports, `dns` and
    // `proxy` for the way out.
    ("skiff-dns", &[]),
    ("skiff-fileshare", &[]),
    ("skiff-link", &[]),
    ("skiff-registry", &[]),
    ("skiff-listeners", &[]),
    ("skiff-linux-sys", &[]),
    ("skiff-proxy", &[]),
    ("skiff-settings", &[]),
    ("skiff-testkit", &[]),
    ("skiff-vm", &[]),
    // Guest.
    // Of linux-sys, only what a client has not read yet.
    ("skiff-docker-api", &["skiff-linux-sys"]),
    ("skiff-images", &["skiff-linux-sys", "skiff-proxy"]),
    ("skiff-network", &["skiff-linux-sys"]),
    ("skiff-runtime", &["skiff-linux-sys"]),
    // A program of its own, and part of the agent.
    ("skiff-oci", &["skiff-linux-sys", "skiff-runtime"]),
    ("skiff-supervisor", &["skiff-linux-sys"]),
    ("skiff-build", &["skiff-images", "skiff-linux-sys", "skiff-runtime"]),
    ("skiff-buildkit", &["skiff-build", "skiff-images"]),
    (
        "skiff-engine",
        &[
            "skiff-build",
            "skiff-dns",
            "skiff-images",
            "skiff-linux-sys",
            "skiff-listeners",
            "skiff-network",
            "skiff-runtime",
            "skiff-supervisor",
        ],
    ),
    (
        "skiff-agent",
        &[
            "skiff-build",
            "skiff-buildkit",
            "skiff-dns",
            "skiff-docker-api",
            "skiff-engine",
            "skiff-images",
            "skiff-link",
            "skiff-linux-sys",
            "skiff-listeners",
            "skiff-network",
            "skiff-oci",
            "skiff-runtime",
            "skiff-settings",
            "skiff-supervisor",
        ],
    ),
    // Host.
    ("skiff-machine", &["skiff-link", "skiff-settings", "skiff-vm"]),
    (
        "skiff-host",
        &[
            "skiff-dns",
            "skiff-fileshare",
            "skiff-link",
            "skiff-listeners",
            "skiff-machine",
            "skiff-proxy",
            "skiff-settings",
        ],
    ),
    // As the command line: it asks the daemon and starts one that does not run.
    ("skiff-dashboard", &["skiff-host", "skiff-settings"]),
    ("skiff", &["skiff-dashboard", "skiff-host", "skiff-registry", "skiff-settings"]),
    // The window has the dashboard's page and its way to the sockets.
    ("skiff-desktop", &["skiff-dashboard", "skiff-host", "skiff-settings"]),
    // Around the product.
    // The floor of `runtime` is a clone of our own.
    ("skiff-bench", &["skiff-linux-sys", "skiff-settings", "skiff-testkit"]),
    ("skiff-compat", &["skiff-testkit"]),
    ("skiff-e2e", &["skiff-settings", "skiff-testkit"]),
    ("xtask", &[]),
];

/// Packages from outside that one package alone may import.
const RESERVED: &[(&str, &str)] = &[("tauri", "skiff-desktop")];

/// What a dependency is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Part of the product, build scripts included.
    Normal,
    /// For tests, examples and benches.
    Dev,
}

/// One line of a Cargo.toml.
#[derive(Debug, Clone, Copy)]
pub struct Edge<'a> {
    /// The package whose Cargo.toml it is.
    pub from: &'a str,
    /// The package it names.
    pub to: &'a str,
    /// What it is for.
    pub kind: Kind,
    /// Whether `to` is a package of this workspace.
    pub ours: bool,
}

/// Checks one edge and says what is wrong with it.
pub fn check(edge: Edge<'_>) -> Option<String> {
    let Edge { from, to, .. } = edge;
    if let Some((_, owner)) = RESERVED.iter().find(|(package, owner)| *package == to && *owner != from) {
        return Some(format!("{from} imports {to}, which only {owner} may"));
    }
    if !edge.ours {
        return None;
    }
    let Some(allowed) = allowed(from) else {
        return Some(format!("{from} is not in the import table (xtask/src/table.rs)"));
    };
    if allowed.contains(&to) || (edge.kind == Kind::Dev && to == "skiff-testkit") {
        return None;
    }
    let list = if allowed.is_empty() { "nothing of ours".to_owned() } else { allowed.join(", ") };
    let tests = if edge.kind == Kind::Dev { " (in tests also skiff-testkit)" } else { "" };
    Some(format!("{from} imports {to}; it may import {list}{tests}"))
}

/// Returns the row of a package.
pub fn allowed(package: &str) -> Option<&'static [&'static str]> {
    TABLE.iter().find(|(name, _)| *name == package).map(|(_, allowed)| *allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(from: &'static str, to: &'static str, kind: Kind) -> Edge<'static> {
        Edge { from, to, kind, ours: true }
    }

    #[test]
    fn an_allowed_edge_passes() {
        assert_eq!(check(ours("skiff-host", "skiff-link", Kind::Normal)), None);
        assert_eq!(check(ours("skiff-engine", "skiff-supervisor", Kind::Normal)), None);
    }

    #[test]
    fn a_forbidden_edge_is_named_with_what_is_allowed() {
        assert_eq!(
            check(ours("skiff-engine", "skiff-docker-api", Kind::Normal)).unwrap(),
            "skiff-engine imports skiff-docker-api; it may import skiff-build, skiff-dns, skiff-images, \
             skiff-linux-sys, skiff-listeners, skiff-network, skiff-runtime, skiff-supervisor"
        );
        assert_eq!(
            check(ours("skiff-link", "skiff-settings", Kind::Normal)).unwrap(),
            "skiff-link imports skiff-settings; it may import nothing of ours"
        );
    }

    #[test]
    fn only_tests_may_import_the_testkit() {
        assert_eq!(check(ours("skiff-link", "skiff-testkit", Kind::Dev)), None);
        assert!(check(ours("skiff-link", "skiff-testkit", Kind::Normal)).is_some());
        assert!(
            check(ours("skiff-link", "skiff-vm", Kind::Dev))
                .unwrap()
                .ends_with("(in tests also skiff-testkit)")
        );
    }

    #[test]
    fn a_package_without_a_row_is_refused() {
        let message = check(ours("skiff-utils", "skiff-link", Kind::Normal)).unwrap();
        assert_eq!(message, "skiff-utils is not in the import table (xtask/src/table.rs)");
    }

    #[test]
    fn tauri_belongs_to_the_desktop() {
        let edge = |from| Edge { from, to: "tauri", kind: Kind::Normal, ours: false };
        assert_eq!(
            check(edge("skiff-host")).unwrap(),
            "skiff-host imports tauri, which only skiff-desktop may"
        );
        assert_eq!(check(edge("skiff-desktop")), None);
        assert_eq!(check(Edge { to: "serde", ..edge("skiff-host") }), None);
    }

    #[test]
    fn the_table_has_no_cycle_no_double_row_and_no_unknown_name() {
        for (index, (name, allowed)) in TABLE.iter().enumerate() {
            assert!(TABLE[..index].iter().all(|(other, _)| other != name), "{name} has two rows");
            for to in *allowed {
                // Rows come after what they import: that is a table without cycles.
                assert!(TABLE[..index].iter().any(|(other, _)| other == to), "{name} imports {to}");
            }
        }
    }
}
