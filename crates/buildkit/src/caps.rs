//! What we say that we can do. Clients leave out, or refuse, what is not here.

use bollard_buildkit_proto::moby::buildkit::v1::apicaps::ApiCap;

/// Of LLBBridge. Not here: `gateway.exec` (containers of a client's own).
const FRONTEND: &[&str] = &[
    "solve.base",
    "resolveimage",
    "resolveimage.resolvemode",
    "source.metaresolver",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.evaluate",
    "gateway.solve.evaluate",
    "gateway.solve.metadata",
    "gateway.warnings",
    "frontend.caps",
];

/// Of graphs, and of a build as a whole. Not here: source policies, attestations, and caches kept by other people's
/// services.
const GRAPH: &[&str] = &[
    "source.image",
    "source.image.resolvemode",
    "source.local",
    "source.ocilayout",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.git.httpauth",
    "source.git.knownsshhosts",
    "source.git.mountsshsock",
    "source.git.subdir",
    "source.http",
    "source.http.checksum",
    "source.http.perm",
    "soruce.http.uidgid",
    "exec.meta.base",
    "exec.meta.cgroup.parent",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.meta.removemountstubs.recursive",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.cache.content",
    "exec.mount.selector",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.mount.secret",
    "exec.mount.ssh",
    "exec.secretenv",
    "exec.validexitcode",
    "file.base",
    "file.rm.wildcard",
    "file.rm.nofollowsymlink",
    "file.copy.includeexcludepatterns",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.modestring",
    "file.symlink.create",
    "constraints",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "meta.exportcache",
    "mergeop",
    "diffop",
    "exporter.sourcedateepoch",
    "exporter.multiple",
    "gc.freespacefilter",
];

/// Of LLBBridge.
pub(crate) fn frontend() -> Vec<ApiCap> {
    FRONTEND.iter().map(|id| enabled(id)).collect()
}

/// Of graphs.
pub(crate) fn graph() -> Vec<ApiCap> {
    GRAPH.iter().map(|id| enabled(id)).collect()
}

fn enabled(id: &str) -> ApiCap {
    ApiCap { id: id.to_owned(), enabled: true, ..ApiCap::default() }
}
