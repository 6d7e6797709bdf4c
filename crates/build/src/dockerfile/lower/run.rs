//! `RUN`: a command with its mounts.

use super::convert::Converter;
use super::dispatch::{Step, joined, with_shell};
use super::draft::{Inputs, Out, Vertex};
use super::image::Layer;
use super::names;
use crate::dockerfile::check::Linter;
use crate::dockerfile::fault::{Fault, Result};
use crate::dockerfile::ignore::clean;
use crate::dockerfile::instruction::{Mount, MountKind, Network, Run, Sharing};
use crate::dockerfile::parse::Heredoc;
use crate::graph::pb;

/// Where a script with an interpreter of its own is put.
const SCRIPTS: &str = "/dev/pipes/";

/// A mount whose input is not numbered yet.
struct Placed {
    target: String,
    from: Option<Out>,
    mount: pb::Mount,
}

impl Converter<'_> {
    /// Makes the vertex of a command.
    pub(super) fn run(&mut self, step: &Step<'_>, run: &Run, linter: &mut Linter) -> Result<()> {
        let own = self.stages.get(step.stage).paths;
        // A command may look at any file.
        self.paths.entry(own).or_default().insert("/".to_owned());
        let mut mounts = Vec::new();
        let mut words = run.command.words.clone();
        let mut code = step.instruction.code.clone();
        if let Some(first) = run.heredocs.first() {
            let [text] = words.as_slice() else {
                return Err(Fault::new(format!("parsing produced an invalid run command: {words:?}")));
            };
            if Heredoc::parse(text).is_none() {
                // The shell gets the line with its documents, as it was written.
                let mut whole = text.clone();
                run.heredocs.iter().for_each(|heredoc| heredoc.append_to(&mut whole));
                words = vec![whole];
            } else if first.content.starts_with("#!") {
                mounts.push(self.script(step, first)?);
                words = vec![format!("{SCRIPTS}{}", first.name)];
            } else {
                words = vec![first.text()];
            }
            if Heredoc::parse(text_of(run)).is_some() {
                code.push_str(&format!(" ({})", names::summary(&first.content)));
            }
        }
        if run.command.shell {
            words = with_shell(self.stages.get(step.stage), &words);
        }
        let (more, secret_env, ssh) = self.mounts(step, run, linter)?;
        mounts.extend(more);

        let lex = self.lex.raw_quotes().skip_unset();
        let mut shown_env = self.stages.get(step.stage).state.env.clone();
        for secret in &secret_env {
            shown_env.set(&secret.name, "****")?;
        }
        let text = names::shown(lex, &code, &shown_env);
        let name = self.prefixed(step, &text);

        let settings = self.settings;
        let state = self.stages.get(step.stage);
        let mut env = state.state.env.to_list();
        if let Some(agent) = ssh
            && state.state.env.get("SSH_AUTH_SOCK").is_none()
        {
            env.push(format!("SSH_AUTH_SOCK={agent}"));
        }
        if settings.shm_size > 0 {
            mounts.push(Placed {
                target: "/dev/shm".to_owned(),
                from: None,
                mount: pb::Mount {
                    mount_type: pb::MountType::Tmpfs.into(),
                    tmpfs_opt: Some(pb::TmpfsOpt { size: settings.shm_size }),
                    ..pb::Mount::default()
                },
            });
        }
        mounts.sort_by(|a, b| a.target.cmp(&b.target));
        let mut inputs = Inputs::default();
        let root = inputs.number(state.state.root);
        let mut placed = vec![pb::Mount { input: root, dest: "/".to_owned(), ..pb::Mount::default() }];
        for Placed { target, from, mount } in mounts {
            placed.push(pb::Mount { input: inputs.number(from), dest: target, output: -1, ..mount });
        }
        let exec = pb::ExecOp {
            meta: Some(pb::Meta {
                args: words.clone(),
                env,
                cwd: if state.state.dir.is_empty() { "/".to_owned() } else { state.state.dir.clone() },
                user: state.state.user.clone(),
                proxy_env: settings.proxy(),
                extra_hosts: settings.extra_hosts.clone(),
                hostname: settings.hostname.clone(),
                ulimit: settings.ulimits.clone(),
                cgroup_parent: settings.cgroup_parent.clone(),
                ..pb::Meta::default()
            }),
            mounts: placed,
            network: match run.network {
                Network::Default => settings.network,
                Network::None => pb::NetMode::None,
                Network::Host => pb::NetMode::Host,
            }
            .into(),
            security: if run.insecure { pb::SecurityMode::Insecure } else { pb::SecurityMode::Sandbox }
                .into(),
            secretenv: secret_env,
            cdi_devices: run
                .devices
                .iter()
                .map(|device| pb::CdiDevice { name: device.name.clone(), optional: !device.required })
                .collect(),
        };
        let vertex = self.vertex(step, name, pb::op::Op::Exec(exec), inputs.into_list());
        let made = self.draft.add(vertex)?;
        let created = self.created.clone();
        let state = self.stages.get_mut(step.stage);
        state.state.root = Some(made);
        // Arguments are part of what was run: `|2 A=1 B=2 /bin/sh -c …`.
        let mut said = Vec::new();
        for argument in state.args.iter() {
            let value = state.state.env.get(&argument.key).or(argument.value.as_deref()).unwrap_or_default();
            said.push(format!("{}={value}", argument.key));
        }
        if !said.is_empty() {
            said.insert(0, format!("|{}", said.len()));
        }
        said.extend(words);
        state.image.record(format!("RUN {}", said.join(" ")), Layer::Built, created.as_deref());
        Ok(())
    }

    /// A here-document that begins with `#!` is a file that is run.
    fn script(&mut self, step: &Step<'_>, heredoc: &Heredoc) -> Result<Placed> {
        let file = self.inline(step, &heredoc.name, 0o755, heredoc.text())?;
        Ok(Placed {
            target: SCRIPTS.trim_end_matches('/').to_owned(),
            from: Some(file),
            mount: pb::Mount { readonly: true, ..pb::Mount::default() },
        })
    }

    /// A file with a text.
    pub(super) fn inline(&mut self, step: &Step<'_>, name: &str, mode: i32, text: String) -> Result<Out> {
        let file = pb::FileActionMkFile {
            path: joined("/", name),
            mode,
            data: text.into_bytes(),
            owner: None,
            timestamp: -1,
        };
        let op = pb::op::Op::File(pb::FileOp {
            actions: vec![pb::FileAction {
                input: -1,
                secondary_input: -1,
                output: 0,
                action: Some(pb::file_action::Action::Mkfile(file)),
            }],
        });
        let vertex = self.vertex(step, String::new(), op, Vec::new());
        self.draft.add(Vertex {
            name: "[internal] preparing inline document".to_owned(),
            command: String::new(),
            lines: None,
            ignore_cache: false,
            ..vertex
        })
    }

    /// Reads `--mount`s; returns the mounts, the secrets that become variables, and where the first agent is.
    fn mounts(
        &mut self,
        step: &Step<'_>,
        run: &Run,
        linter: &mut Linter,
    ) -> Result<(Vec<Placed>, Vec<pb::SecretEnv>, Option<String>)> {
        let mut placed = Vec::new();
        let mut secret_env = Vec::new();
        let mut agent = None;
        let mut agents = 0;
        for (index, text) in run.mounts.iter().enumerate() {
            let mount = Mount::parse(text, |value| self.expand(step, value, linter))?;
            let source = step.sources.get(index).copied().flatten();
            match mount.kind {
                MountKind::Secret => {
                    let (id, required) = secret_id(&mount)?;
                    let lines = step.instruction.lines;
                    self.stages.get_mut(step.stage).needs.secrets.insert(id.clone(), (required, lines));
                    if let Some(name) = &mount.env {
                        let name = if name.is_empty() { id.clone() } else { name.clone() };
                        secret_env.push(pb::SecretEnv { id: id.clone(), name, optional: !required });
                        if mount.target.is_empty() {
                            continue;
                        }
                    }
                    let target = match mount.target.as_str() {
                        "" => format!("/run/secrets/{}", base_name(&id)),
                        target => self.in_directory(step, target),
                    };
                    placed.push(Placed {
                        target,
                        from: None,
                        mount: pb::Mount {
                            mount_type: pb::MountType::Secret.into(),
                            secret_opt: Some(pb::SecretOpt {
                                id,
                                uid: mount.uid.unwrap_or(0),
                                gid: mount.gid.unwrap_or(0),
                                mode: mount.mode.unwrap_or(0o400),
                                optional: !required,
                            }),
                            ..pb::Mount::default()
                        },
                    });
                }
                MountKind::Ssh => {
                    if !mount.from.is_empty() {
                        return Err(Fault::new("ssh mount should not have a from"));
                    }
                    let id = match (mount.id.as_str(), mount.source.as_str()) {
                        ("", "") => "default".to_owned(),
                        ("", source) => source.to_owned(),
                        (id, "") => id.to_owned(),
                        _ => return Err(Fault::new("both source and id can't be set")),
                    };
                    let target = match mount.target.as_str() {
                        "" => format!("/run/buildkit/ssh_agent.{agents}"),
                        target => self.in_directory(step, target),
                    };
                    agents += 1;
                    agent.get_or_insert_with(|| target.clone());
                    let lines = step.instruction.lines;
                    self.stages.get_mut(step.stage).needs.ssh.insert(id.clone(), (mount.required, lines));
                    placed.push(Placed {
                        target,
                        from: None,
                        mount: pb::Mount {
                            mount_type: pb::MountType::Ssh.into(),
                            ssh_opt: Some(pb::SshOpt {
                                id,
                                uid: mount.uid.unwrap_or(0),
                                gid: mount.gid.unwrap_or(0),
                                mode: mount.mode.unwrap_or(0o600),
                                optional: !mount.required,
                            }),
                            ..pb::Mount::default()
                        },
                    });
                }
                MountKind::Bind | MountKind::Cache | MountKind::Tmpfs => {
                    placed.push(self.directory(step, &mount, source)?);
                }
            }
        }
        Ok((placed, secret_env, agent))
    }

    fn directory(&mut self, step: &Step<'_>, mount: &Mount, source: Option<usize>) -> Result<Placed> {
        let target = self.in_directory(step, &mount.target);
        if target == "/" {
            return Err(Fault::new(format!("invalid mount target {target:?}")));
        }
        if mount.kind == MountKind::Tmpfs {
            return Ok(Placed {
                target,
                from: None,
                mount: pb::Mount {
                    mount_type: pb::MountType::Tmpfs.into(),
                    tmpfs_opt: Some(pb::TmpfsOpt { size: mount.size }),
                    ..pb::Mount::default()
                },
            });
        }
        let selector = joined("/", &mount.source);
        let mut from = match source {
            Some(source) => {
                let state = self.stages.get(source);
                if !state.done {
                    return Err(Fault::new(format!(
                        "cannot mount from stage {:?} to {:?}, stage needs to be defined before current command",
                        mount.from, mount.target
                    )));
                }
                let (root, paths) = (state.state.root, state.paths);
                self.paths.entry(paths).or_default().insert(selector.clone());
                root
            }
            // A cache without a source begins empty.
            None if mount.kind == MountKind::Cache => None,
            None => {
                self.context_paths.insert(selector.clone());
                self.context
            }
        };
        let mut placed = pb::Mount {
            selector: if selector == "/" { String::new() } else { selector.clone() },
            readonly: mount.read_only,
            ..pb::Mount::default()
        };
        if mount.kind == MountKind::Cache {
            let id = if mount.id.is_empty() { clean(&mount.target) } else { mount.id.clone() };
            let id = format!("{}/{id}", self.settings.cache_namespace);
            let lines = step.instruction.lines;
            self.stages.get_mut(step.stage).needs.caches.insert(id.clone(), lines);
            let sharing = match mount.sharing.unwrap_or_default() {
                Sharing::Shared => pb::CacheSharingOpt::Shared,
                Sharing::Private => pb::CacheSharingOpt::Private,
                Sharing::Locked => pb::CacheSharingOpt::Locked,
            };
            placed.mount_type = pb::MountType::Cache.into();
            placed.cache_opt = Some(pb::CacheOpt { id, sharing: sharing.into() });
            if selector == "/" && (mount.mode.is_some() || mount.uid.is_some() || mount.gid.is_some()) {
                from = Some(self.owned_directory(step, from, mount)?);
                placed.selector = "/cache".to_owned();
            }
        }
        Ok(Placed { target, from, mount: placed })
    }

    /// The directory that a cache with an owner begins as.
    fn owned_directory(&mut self, step: &Step<'_>, from: Option<Out>, mount: &Mount) -> Result<Out> {
        let owner = format!("{}:{}", mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        let mkdir = pb::FileActionMkDir {
            path: "/cache".to_owned(),
            mode: i32::try_from(mount.mode.unwrap_or(0o755)).unwrap_or(0o755),
            make_parents: false,
            owner: super::dispatch::owner(&owner, -1),
            timestamp: -1,
        };
        let op = pb::op::Op::File(pb::FileOp {
            actions: vec![pb::FileAction {
                input: if from.is_some() { 0 } else { -1 },
                secondary_input: -1,
                output: 0,
                action: Some(pb::file_action::Action::Mkdir(mkdir)),
            }],
        });
        let vertex = self.vertex(step, String::new(), op, from.into_iter().collect());
        self.draft.add(Vertex {
            name: "[internal] settings cache mount permissions".to_owned(),
            command: String::new(),
            lines: None,
            ignore_cache: false,
            ..vertex
        })
    }

    fn in_directory(&self, step: &Step<'_>, path: &str) -> String {
        joined(&self.stages.get(step.stage).state.dir, path)
    }
}

fn text_of(run: &Run) -> &str {
    run.command.words.first().map_or("", String::as_str)
}

fn secret_id(mount: &Mount) -> Result<(String, bool)> {
    let id = [&mount.source, &mount.id].into_iter().find(|text| !text.is_empty()).cloned();
    match id.or_else(|| (!mount.target.is_empty()).then(|| base_name(&mount.target).to_owned())) {
        Some(id) => Ok((id, mount.required)),
        None => Err(Fault::new("one of source, target required")),
    }
}

fn base_name(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit('/').next().unwrap_or(path)
}
