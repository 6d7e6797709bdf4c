//! The command line as a whole: the top level, its help, and the wording of mistakes.

use clap::builder::Styles;
use clap::{Arg, ArgAction, Command, CommandFactory, Parser, Subcommand};

use crate::command::{
    Context, builder, completion, container, daemon, dashboard, doctor, explain, image, login, machine,
    manifest, network, registry, search, system, volume,
};
use crate::error::Error;

/// Runs Linux containers on any desktop
#[derive(Debug, Parser)]
#[command(name = "skiff", version, disable_version_flag = true, override_usage = "skiff [OPTIONS] COMMAND")]
pub struct Cli {
    /// Enable debug mode
    #[arg(short = 'D', long)]
    pub debug: bool,
    /// Daemon socket to connect to (default: the host daemon's own; overrides DOCKER_HOST)
    #[arg(short = 'H', long, value_name = "URL")]
    pub host: Option<String>,
    /// State directory of the host daemon (overrides SKIFF_STATE)
    #[arg(long, value_name = "DIR")]
    pub state: Option<std::path::PathBuf>,
    /// Print version information and quit
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: (),
    #[command(subcommand)]
    pub command: Top,
}

/// The commands at the top.
#[derive(Debug, Subcommand)]
pub enum Top {
    #[command(flatten)]
    Container(container::Shared),
    #[command(flatten)]
    Image(image::Shared),
    #[command(flatten)]
    System(system::Shared),
    /// Manage builds
    #[command(override_usage = "skiff builder COMMAND")]
    Builder {
        #[command(subcommand)]
        command: builder::Builder,
    },
    Completion(completion::Completion),
    /// Manage containers
    #[command(name = "container", override_usage = "skiff container COMMAND")]
    Containers {
        #[command(subcommand)]
        command: container::Container,
    },
    Daemon(daemon::Daemon),
    Dashboard(dashboard::Dashboard),
    Doctor(doctor::Doctor),
    /// Tell why something is as it is
    #[command(override_usage = "skiff explain COMMAND")]
    Explain {
        #[command(subcommand)]
        command: explain::Explain,
    },
    /// Manage images
    #[command(name = "image", override_usage = "skiff image COMMAND")]
    ImageManagement {
        #[command(subcommand)]
        command: image::Image,
    },
    Images(image::list::List),
    Login(login::Login),
    Logout(login::Logout),
    Inspect(container::inspect::Inspect),
    /// Manage the machine that containers run in
    #[command(override_usage = "skiff machine COMMAND")]
    Machine {
        #[command(subcommand)]
        command: machine::Machine,
    },
    /// Manage image manifests and manifest lists
    #[command(override_usage = "skiff manifest COMMAND")]
    Manifest {
        #[command(subcommand)]
        command: manifest::Manifest,
    },
    /// Manage networks
    #[command(override_usage = "skiff network COMMAND")]
    Network {
        #[command(subcommand)]
        command: network::Network,
    },
    Ps(container::list::List),
    /// Serve a registry
    #[command(override_usage = "skiff registry COMMAND")]
    Registry {
        #[command(subcommand)]
        command: registry::Registry,
    },
    Rmi(image::remove::Remove),
    Search(search::Search),
    /// Manage the engine
    #[command(name = "system", override_usage = "skiff system COMMAND")]
    SystemManagement {
        #[command(subcommand)]
        command: system::System,
    },
    Version(system::version::Version),
    /// Manage volumes
    #[command(override_usage = "skiff volume COMMAND")]
    Volume {
        #[command(subcommand)]
        command: volume::Volume,
    },
}

impl Top {
    /// Carries the command out.
    pub async fn run(&self, context: &Context) -> Result<(), Error> {
        match self {
            Top::Container(command) => command.run(context).await,
            Top::Image(command) => command.run(context).await,
            Top::System(command) => command.run(context).await,
            Top::Builder { command } => command.run(context).await,
            Top::Completion(args) => completion::run(args),
            Top::Containers { command } => command.run(context).await,
            Top::Daemon(args) => daemon::run(context, args).await,
            Top::Dashboard(args) => dashboard::run(context, args).await,
            Top::Doctor(args) => doctor::run(context, args).await,
            Top::Explain { command } => command.run(context).await,
            Top::ImageManagement { command } => command.run(context).await,
            Top::Images(args) => image::list::run(context, args).await,
            Top::Login(args) => login::login(context, args).await,
            Top::Logout(args) => login::logout(args),
            Top::Inspect(args) => container::inspect::run(context, args).await,
            Top::Machine { command } => command.run(context).await,
            Top::Manifest { command } => command.run(context).await,
            Top::Network { command } => command.run(context).await,
            Top::Registry { command } => command.run(context).await,
            Top::Ps(args) => container::list::run(context, args).await,
            Top::Rmi(args) => image::remove::remove(context, args).await,
            Top::Search(args) => search::run(context, args).await,
            Top::SystemManagement { command } => command.run(context).await,
            Top::Version(args) => system::version::run(context, args).await,
            Top::Volume { command } => command.run(context).await,
        }
    }
}

/// Commands of the first help page by group, in the order they are shown. The rest are `Commands`.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "Common Commands",
        &["run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "version", "info"],
    ),
    ("Skiff Commands", &["dashboard", "machine", "daemon", "registry", "doctor", "explain", "completion"]),
    ("Management Commands", &["builder", "container", "image", "manifest", "network", "system", "volume"]),
];

const TEMPLATE: &str = "Usage:  {usage}\n\n{about}{after-help}\n\nOptions:\n{options}\n";

/// Builds the command line: `--help` everywhere, repeated options override, values may begin with a hyphen,
/// as in Docker's.
pub fn command() -> Command {
    let command = finish(Cli::command(), &[]);
    let groups = groups(&command);
    command.help_template("Usage:  {usage}\n\n{about}{after-help}\n\nGlobal Options:\n{options}\n\nRun 'skiff COMMAND --help' for more information on a command.\n")
        .after_help(groups)
}

fn finish(command: Command, path: &[String]) -> Command {
    let mut path = path.to_vec();
    path.push(command.get_name().to_owned());
    let mut names: Vec<String> =
        command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned).collect();
    names.sort();
    let short_taken = command.get_arguments().any(|arg| arg.get_short() == Some('h'));
    let help =
        Arg::new("help").long("help").action(ArgAction::Help).help("Print usage").display_order(usize::MAX);
    let help = if short_taken { help } else { help.short('h') };
    let usage = usage_of(&command, &path);
    let mut command = command
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .args_override_self(true)
        .subcommand_value_name("COMMAND")
        .styles(Styles::plain())
        .max_term_width(100)
        .override_usage(usage)
        .arg(help)
        .mut_args(|arg| {
            let rank = arg.get_long().and_then(|long| names.iter().position(|name| name == long));
            arg.display_order(rank.unwrap_or(usize::MAX))
        })
        .mut_args(|arg| match arg.get_action() {
            ArgAction::Set | ArgAction::Append if !arg.is_positional() && !arg.is_require_equals_set() => {
                arg.allow_hyphen_values(true)
            }
            _ => arg,
        })
        .mut_args(|arg| match arg.get_action() {
            // The one-line help names the choices where they matter.
            ArgAction::Set | ArgAction::Append => arg.hide_possible_values(true),
            _ => arg,
        });
    if command.has_subcommands() {
        command = command.arg_required_else_help(path.len() == 1);
        let list = listing(command.get_subcommands());
        command = command.help_template(TEMPLATE).after_help(format!("Commands:\n{list}"));
    } else {
        let aliases: Vec<&str> = command.get_visible_aliases().collect();
        let aliases = match aliases.is_empty() {
            true => String::new(),
            false => {
                let parent = path[..path.len() - 1].join(" ");
                let all: Vec<String> = std::iter::once(command.get_name())
                    .chain(aliases)
                    .map(|name| format!("{parent} {name}"))
                    .collect();
                format!("\nAliases:\n  {}\n", all.join(", "))
            }
        };
        command = command
            .help_template(format!("Usage:  {{usage}}\n\n{{about}}\n{aliases}\nOptions:\n{{options}}\n"));
    }
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, |sub| finish(sub, &path));
    }
    command
}

/// Returns the usage with the words that really lead here: `container ls` shares its flags with `ps`.
fn usage_of(command: &Command, path: &[String]) -> String {
    let own =
        command.clone().disable_help_flag(true).disable_help_subcommand(true).render_usage().to_string();
    let own = own.strip_prefix("Usage: ").unwrap_or(&own);
    let tail = own.split_whitespace().skip(1).skip_while(|word| {
        !word.starts_with(['[', '<'])
            && word.chars().next().is_some_and(char::is_lowercase)
            && !word.contains('|')
    });
    let tail: Vec<&str> = tail.collect();
    format!("{} {}", path.join(" "), tail.join(" ")).trim_end().to_owned()
}

fn listing<'a>(commands: impl Iterator<Item = &'a Command>) -> String {
    let mut lines: Vec<String> = commands
        .map(|sub| {
            format!(
                "  {:<12}{}",
                sub.get_name(),
                sub.get_about().map(ToString::to_string).unwrap_or_default()
            )
        })
        .collect();
    lines.sort();
    lines.join("\n") + "\n"
}

fn groups(command: &Command) -> String {
    let mut out = String::new();
    let named: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    for (title, names) in GROUPS {
        out.push_str(&format!("{title}:\n"));
        for name in *names {
            if let Some(sub) = command.find_subcommand(name) {
                out.push_str(&listing(std::iter::once(sub)));
            }
        }
        out.push('\n');
    }
    out.push_str("Commands:\n");
    out.push_str(&listing(command.get_subcommands().filter(|sub| !named.contains(&sub.get_name()))));
    out
}

#[cfg(test)]
mod tests;
