//! `network`.

use std::collections::HashMap;
use std::net::IpAddr;

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::container::inspect::{Kind, objects};
use super::{Context, confirm, each, name_in_path};
use crate::api::Query;
use crate::error::Error;
use crate::format::list::{Layout, Row};
use crate::format::value::Value;
use crate::options::{environment, filter};
use crate::terminal::{print, print_line};

/// Everything under `network`.
#[derive(Debug, Subcommand)]
pub enum Network {
    Connect(Connect),
    Create(Create),
    Disconnect(Disconnect),
    Inspect(Inspect),
    #[command(visible_alias = "list")]
    Ls(List),
    Prune(Prune),
    #[command(visible_alias = "remove")]
    Rm(Remove),
}

/// Connect a container to a network
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff network connect [OPTIONS] NETWORK CONTAINER")]
pub struct Connect {
    /// Add network-scoped alias for the container
    #[arg(long, value_name = "strings")]
    alias: Vec<String>,
    /// driver options for the network
    #[arg(long, value_name = "strings")]
    driver_opt: Vec<String>,
    /// Highest gw-priority provides the default gateway. Accepts positive and negative values.
    #[arg(long, value_name = "int", default_value_t = 0, allow_negative_numbers = true)]
    gw_priority: i64,
    /// IPv4 address (e.g., "172.30.100.104")
    #[arg(long, value_name = "ip")]
    ip: Option<String>,
    /// IPv6 address (e.g., "2001:db8::33")
    #[arg(long, value_name = "ip")]
    ip6: Option<String>,
    /// Add link to another container
    #[arg(long, value_name = "list")]
    link: Vec<String>,
    /// Add a link-local address for the container
    #[arg(long, value_name = "strings")]
    link_local_ip: Vec<String>,
    /// Network
    #[arg(value_name = "NETWORK", hide = true)]
    network: String,
    /// Container
    #[arg(value_name = "CONTAINER", hide = true)]
    container: String,
}

/// Create a network
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff network create [OPTIONS] NETWORK")]
pub struct Create {
    /// Enable manual container attachment
    #[arg(long)]
    attachable: bool,
    /// Auxiliary IPv4 or IPv6 addresses used by Network driver
    #[arg(long, value_name = "map")]
    aux_address: Vec<String>,
    /// The network from which to copy the configuration
    #[arg(long, value_name = "string")]
    config_from: Option<String>,
    /// Create a configuration only network
    #[arg(long)]
    config_only: bool,
    /// Driver to manage the Network
    #[arg(short = 'd', long, value_name = "string", default_value = "bridge")]
    driver: String,
    /// IPv4 or IPv6 Gateway for the master subnet
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    gateway: Vec<String>,
    /// Create swarm routing-mesh network
    #[arg(long)]
    ingress: bool,
    /// Restrict external access to the network
    #[arg(long)]
    internal: bool,
    /// IP Address Management Driver
    #[arg(long, value_name = "string", default_value = "default")]
    ipam_driver: String,
    /// Set IPAM driver specific options
    #[arg(long, value_name = "map")]
    ipam_opt: Vec<String>,
    /// Enable or disable IPv4 address assignment
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    ipv4: Option<bool>,
    /// Enable or disable IPv6 address assignment
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    ipv6: Option<bool>,
    /// Allocate container ip from a sub-range
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    ip_range: Vec<String>,
    /// Set metadata on a network
    #[arg(long, value_name = "list")]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(short = 'o', long, value_name = "map")]
    opt: Vec<String>,
    /// Control the network's scope
    #[arg(long, value_name = "string")]
    scope: Option<String>,
    /// Subnet in CIDR format that represents a network segment
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    subnet: Vec<String>,
    /// Network
    #[arg(value_name = "NETWORK", hide = true)]
    name: String,
}

/// Disconnect a container from a network
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff network disconnect [OPTIONS] NETWORK CONTAINER")]
pub struct Disconnect {
    /// Force the container to disconnect from a network
    #[arg(short = 'f', long)]
    force: bool,
    /// Network
    #[arg(value_name = "NETWORK", hide = true)]
    network: String,
    /// Container
    #[arg(value_name = "CONTAINER", hide = true)]
    container: String,
}

/// Display detailed information on one or more networks
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff network inspect [OPTIONS] NETWORK [NETWORK...]")]
pub struct Inspect {
    #[doc = include_str!("format_object.txt")]
    #[arg(short = 'f', long, value_name = "string")]
    format: Option<String>,
    /// Verbose output for diagnostics
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Networks
    #[arg(required = true, value_name = "NETWORK", hide = true)]
    names: Vec<String>,
}

/// List networks
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff network ls [OPTIONS]")]
pub struct List {
    /// Provide filter values (e.g. "driver=bridge")
    #[arg(short = 'f', long, value_name = "filter", value_parser = crate::options::filter::check)]
    filter: Vec<String>,
    #[doc = include_str!("format.txt")]
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Do not truncate the output
    #[arg(long)]
    no_trunc: bool,
    /// Only display network IDs
    #[arg(short = 'q', long)]
    quiet: bool,
}

/// Remove all unused networks
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff network prune [OPTIONS]")]
pub struct Prune {
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long, value_name = "filter", value_parser = crate::options::filter::check)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short = 'f', long)]
    force: bool,
}

/// Remove one or more networks
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff network rm [OPTIONS] NETWORK [NETWORK...]")]
pub struct Remove {
    /// Do not error if the network does not exist
    #[arg(short = 'f', long)]
    force: bool,
    /// Networks
    #[arg(required = true, value_name = "NETWORK", hide = true)]
    names: Vec<String>,
}

const TITLES: &[(&str, &str)] = &[
    ("CreatedAt", "CREATED AT"),
    ("Driver", "DRIVER"),
    ("ID", "NETWORK ID"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("Name", "NAME"),
    ("Scope", "SCOPE"),
];

impl Network {
    /// Carries the command out.
    pub async fn run(&self, context: &Context) -> Result<(), Error> {
        match self {
            Network::Connect(args) => connect(context, args).await,
            Network::Create(args) => create(context, args).await,
            Network::Disconnect(args) => disconnect(context, args).await,
            Network::Inspect(args) => {
                let query = Query::new().maybe("verbose", args.verbose.then_some("true"));
                objects(context, &[Kind::Network], &args.names, args.format.as_deref(), &query).await
            }
            Network::Ls(args) => list(context, args).await,
            Network::Prune(args) => prune(context, args).await,
            Network::Rm(args) => remove(context, args).await,
        }
    }
}

async fn connect(context: &Context, args: &Connect) -> Result<(), Error> {
    let options: HashMap<_, _> = environment::map(&args.driver_opt);
    let body = json!({
        "Container": args.container,
        "EndpointConfig": {
            "IPAMConfig": {
                "IPv4Address": args.ip.as_deref().unwrap_or_default(),
                "IPv6Address": args.ip6.as_deref().unwrap_or_default(),
                "LinkLocalIPs": args.link_local_ip,
            },
            "Links": args.link,
            "Aliases": args.alias,
            "DriverOpts": options,
            "GwPriority": args.gw_priority,
        },
    });
    let client = context.client().await?;
    let path = format!("/networks/{}/connect", name_in_path(&args.network));
    client.post_json(&path, &Query::new(), &body).await?;
    Ok(())
}

async fn disconnect(context: &Context, args: &Disconnect) -> Result<(), Error> {
    let body = json!({ "Container": args.container, "Force": args.force });
    let client = context.client().await?;
    let path = format!("/networks/{}/disconnect", name_in_path(&args.network));
    client.post_json(&path, &Query::new(), &body).await?;
    Ok(())
}

async fn create(context: &Context, args: &Create) -> Result<(), Error> {
    let (labels, options): (HashMap<_, _>, HashMap<_, _>) =
        (environment::map(&args.label), environment::map(&args.opt));
    let mut body = json!({
        "Name": args.name,
        "Driver": args.driver,
        "Internal": args.internal,
        "Ingress": args.ingress,
        "Attachable": args.attachable,
        "IPAM": { "Driver": args.ipam_driver, "Config": pools(args)? },
        "ConfigOnly": args.config_only,
        "Options": options,
        "Labels": labels,
    });
    if !args.ipam_opt.is_empty() {
        let options: HashMap<_, _> = environment::map(&args.ipam_opt);
        body["IPAM"]["Options"] = json!(options);
    }
    let optional = [("EnableIPv4", args.ipv4), ("EnableIPv6", args.ipv6)];
    for (name, value) in optional.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        body[name] = value.into();
    }
    if let Some(scope) = &args.scope {
        body["Scope"] = scope.as_str().into();
    }
    if let Some(network) = &args.config_from {
        body["ConfigFrom"] = json!({ "Network": network });
    }
    let client = context.client().await?;
    let answer = client.post_json("/networks/create", &Query::new(), &body).await?;
    print_line(answer.text("Id"));
    Ok(())
}

/// One pool per subnet, each with the range, gateway and auxiliary addresses that lie in it.
fn pools(args: &Create) -> Result<Vec<Json>, Error> {
    if args.subnet.len() < args.ip_range.len() || args.subnet.len() < args.gateway.len() {
        return Err(Error::plain("every ip-range or gateway must have a corresponding subnet"));
    }
    if args.subnet.is_empty() && !args.aux_address.is_empty() {
        return Err(Error::plain("every aux-address must have a corresponding subnet"));
    }
    let mut pools = Vec::new();
    let aux: HashMap<String, String> = environment::map(&args.aux_address);
    let mut placed = 0;
    for subnet in &args.subnet {
        let net = Subnet::parse(subnet);
        let inside = |text: &&String| {
            let ip = text.split('/').next().and_then(|ip| ip.parse().ok());
            // What can't be read is for the engine to refuse.
            args.subnet.len() == 1 || net.zip(ip).is_some_and(|(net, ip)| net.contains(ip))
        };
        let mut pool = serde_json::Map::from_iter([("Subnet".to_owned(), Json::from(subnet.as_str()))]);
        for (key, values) in [("IPRange", &args.ip_range), ("Gateway", &args.gateway)] {
            let mut here = values.iter().filter(inside);
            if let Some(value) = here.next() {
                placed += 1;
                pool.insert(key.to_owned(), value.as_str().into());
            }
            if here.next().is_some() {
                return Err(Error::plain(format!(
                    "cannot configure multiple {} on the same subnet ({subnet})",
                    match key {
                        "IPRange" => "ranges",
                        _ => "gateways",
                    }
                )));
            }
        }
        let here: HashMap<_, _> = aux.iter().filter(|(_, ip)| inside(ip)).collect();
        placed += here.len();
        if !here.is_empty() {
            pool.insert("AuxiliaryAddresses".to_owned(), json!(here));
        }
        pools.push(Json::Object(pool));
    }
    if placed < args.ip_range.len() + args.gateway.len() + aux.len() {
        return Err(Error::plain("no matching subnet for a range, a gateway or an auxiliary address"));
    }
    Ok(pools)
}

/// As much of a subnet as is needed to tell whether an address lies in it.
#[derive(Clone, Copy)]
struct Subnet {
    base: IpAddr,
    prefix: u32,
}

impl Subnet {
    fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = text.split_once('/')?;
        Some(Self { base: base.parse().ok()?, prefix: prefix.parse().ok()? })
    }

    fn contains(&self, ip: IpAddr) -> bool {
        let (a, b, bits) = match (self.base, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
            _ => return false,
        };
        let host_bits = u32::saturating_sub(bits, self.prefix);
        host_bits >= 128 || (a ^ b) >> host_bits == 0
    }
}

async fn list(context: &Context, args: &List) -> Result<(), Error> {
    let format = if args.quiet && args.format.is_none() { Some("{{.ID}}") } else { args.format.as_deref() };
    let layout = Layout::new(format, "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}")?;
    let filters = filter::encode(&args.filter).map_err(Error::plain)?;
    let client = context.client().await?;
    let answer = client.get("/networks", &Query::new().maybe("filters", filters)).await?;
    let Value::List(mut networks) = answer else {
        return Err(Error::plain("the engine sent no list of networks"));
    };
    networks.sort_by_key(|network| network.text("Name").to_owned());
    let rows: Vec<Row> = networks
        .iter()
        .map(|network| {
            let labels = network.entries("Labels");
            let mut texts: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            texts.sort();
            let id = network.text("Id");
            let id = if args.no_trunc { id } else { id.get(..12).unwrap_or(id) };
            let flag = |name: &str| Value::from(if network.flag(name) { "true" } else { "false" });
            Row {
                fields: vec![
                    ("CreatedAt", Value::from(network.text("Created"))),
                    ("Driver", Value::from(network.text("Driver"))),
                    ("ID", Value::from(id)),
                    ("IPv4", flag("EnableIPv4")),
                    ("IPv6", flag("EnableIPv6")),
                    ("Internal", flag("Internal")),
                    ("Labels", Value::from(texts.join(","))),
                    ("Name", Value::from(network.text("Name"))),
                    ("Scope", Value::from(network.text("Scope"))),
                ],
                labels: labels.to_vec(),
            }
        })
        .collect();
    print(&layout.render(TITLES, &rows)?);
    Ok(())
}

async fn prune(context: &Context, args: &Prune) -> Result<(), Error> {
    let filters = filter::encode(&args.filter).map_err(Error::plain)?;
    if !args.force {
        confirm("This will remove all custom networks not used by at least one container.")?;
    }
    let client = context.client().await?;
    let answer = client.post("/networks/prune", &Query::new().maybe("filters", filters)).await?;
    let deleted = answer.list("NetworksDeleted");
    if !deleted.is_empty() {
        print_line("Deleted Networks:");
        deleted.iter().for_each(print_line);
        print_line("");
    }
    Ok(())
}

async fn remove(context: &Context, args: &Remove) -> Result<(), Error> {
    let client = context.client().await?;
    each(&args.names, "", async |name| {
        match client.delete(&format!("/networks/{}", name_in_path(name)), &Query::new()).await {
            Err(error) if args.force && error.is_not_found() => Ok(()),
            Err(error) => Err(error),
            Ok(_) => {
                print_line(name);
                Ok(())
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(words: &[&str]) -> Create {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            create: Create,
        }
        let words = [&["create"], words, &["net"]].concat();
        <Line as clap::Parser>::try_parse_from(words).unwrap().create
    }

    #[test]
    fn addresses_belong_to_the_subnet() {
        let args =
            create(&["--subnet", "10.0.0.0/8", "--gateway", "10.0.0.9", "--aux-address", "r=10.0.0.1"]);
        assert_eq!(
            json!(pools(&args).unwrap()),
            json!([{ "Subnet": "10.0.0.0/8", "Gateway": "10.0.0.9", "AuxiliaryAddresses": { "r": "10.0.0.1" } }])
        );
        assert!(pools(&create(&[])).unwrap().is_empty());
        let error = pools(&create(&["--gateway", "10.0.0.9"])).unwrap_err();
        assert_eq!(error.to_string(), "every ip-range or gateway must have a corresponding subnet");
    }
}
